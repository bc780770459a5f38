//! `docker commit`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bounded::Bounded;
use crate::cases;
use crate::fixtures;
use crate::subject::Subject;

cases![
    a_commit_is_an_image_of_what_the_container_changed,
    a_commit_s_configuration_is_the_container_s_and_what_is_asked,
    a_commit_of_a_running_container_lets_it_go_on,
    nothing_changed_is_no_layer,
    a_commit_follows_each_instruction,
    a_commit_fills_in_a_health_check,
    an_import_has_its_options,
    a_history_tells_of_all,
    a_container_comes_back_from_its_export,
];

/// Every instruction that a commit or an import follows.
const CHANGES: [&str; 11] = [
    "CMD [\"echo\", \"$A\"]",
    "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
    "ENV A=\"b c\" D=e",
    "EXPOSE 80 53/udp",
    "HEALTHCHECK --interval=3s --retries=2 CMD true",
    "LABEL a.b=\"c d\" e=f",
    "ONBUILD RUN make",
    "STOPSIGNAL SIGINT",
    "USER me:us",
    "VOLUME [\"/data\", \"/more\"]",
    "WORKDIR /work/$D",
];

fn with_changes<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let changes = CHANGES.iter().flat_map(|change| ["--change", change]);
    args[..1].iter().copied().chain(changes).chain(args[1..].iter().copied()).collect()
}

/// What [`CHANGES`] come to, but for the command, which an entry point that comes after it keeps.
fn check_changes(config: &Value) -> Result<()> {
    for (field, wanted) in [
        ("Entrypoint", json!(["/bin/sh", "-c"])),
        ("Cmd", json!(["echo", "$A"])),
        ("ExposedPorts", json!({"53/udp": {}, "80/tcp": {}})),
        ("Healthcheck", json!({"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000_i64, "Retries": 2})),
        ("Labels", json!({"a.b": "c d", "e": "f"})),
        ("OnBuild", json!(["RUN make"])),
        ("StopSignal", json!("SIGINT")),
        ("User", json!("me:us")),
        ("Volumes", json!({"/data": {}, "/more": {}})),
    ] {
        ensure!(config[field] == wanted, "{field}: {config}");
    }
    let env = config["Env"].as_array().cloned().unwrap_or_default();
    ensure!(env.contains(&json!("A=b c")) && env.contains(&json!("D=e")), "{config}");
    Ok(())
}

fn a_commit_follows_each_instruction(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "commit-all", "busybox"])?;
    docker.ok(with_changes(&["commit", "commit-all", "commit-all:1"]))?;
    let config = &inspect(on, "commit-all:1")?["Config"];
    check_changes(config)?;
    ensure!(config["WorkingDir"] == "/work/e", "{config}");
    for (change, told) in [
        ("RUN true", "run is not a valid change command"),
        ("COPY a b", "copy is not a valid change command"),
        ("EXPOSE x", "invalid"),
        ("ENV", "ENV requires at least one argument"),
        ("STOPSIGNAL nope", "invalid signal: nope"),
        ("HEALTHCHECK --interval=x CMD true", "invalid duration"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ] {
        let refused = docker.run(["commit", "--change", change, "commit-all"])?;
        let has = refused.err.to_lowercase().contains(&told.to_lowercase());
        ensure!(refused.status == 1 && has, "{change}: {refused:?}");
    }
    docker.ok(["rm", "commit-all"])?;
    docker.ok(["rmi", "commit-all:1"])?;
    Ok(())
}

fn a_commit_fills_in_a_health_check(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let health = ["--health-cmd", "true", "--health-interval", "7s", "--health-retries", "9"];
    docker.ok(["create", "--name", "commit-health"].iter().chain(&health).chain(&["busybox"]))?;
    let body = json!({"Healthcheck": {"Retries": 4}});
    let answer = on.api().post("/commit?container=commit-health&repo=commit-health&tag=1", &body)?;
    ensure!(answer.status == 201, "{}", answer.json()?);
    let config = &inspect(on, "commit-health:1")?["Config"];
    let wanted = json!({"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000_i64, "Retries": 4});
    ensure!(config["Healthcheck"] == wanted, "{config}");
    docker.ok(["rm", "commit-health"])?;
    docker.ok(["rmi", "commit-health:1"])?;
    Ok(())
}

fn an_import_has_its_options(on: &dyn Subject) -> Result<()> {
    let root = fixtures::root_archive()?;
    let args =
        with_changes(&["import", "-m", "why it is", "--platform", "linux/arm64/v8", "-", "import-all:1"]);
    on.docker().feed(args, &root)?.ok()?;
    let image = inspect(on, "import-all:1")?;
    check_changes(&image["Config"])?;
    ensure!(image["Comment"] == "why it is" && image["Os"] == "linux", "{image}");
    ensure!(image["Architecture"] == "arm64" && image["Variant"] == "v8", "{image}");
    let history =
        on.docker().ok(["history", "--format", "{{.CreatedBy}}|{{.Comment}}|{{.Size}}", "import-all:1"])?;
    ensure!(history == "|why it is|6B", "{history}");
    let plain = on.docker().feed(["import", "-", "import-plain:1"], &root)?.ok()?;
    let history = on.docker().ok(["history", "--format", "{{.Comment}}", &plain])?;
    ensure!(history == "Imported from -" || history.is_empty(), "{history}");
    for (args, told) in [
        (["import", "--change", "RUN x", "-"], "run is not a valid change command"),
        (["import", "--platform", "windows/amd64", "-"], "operating system is not supported"),
        (["import", "--platform", "linux/a/b/c", "-"], "cannot parse platform specifier"),
    ] {
        let refused = on.docker().feed(args, &root)?;
        ensure!(refused.status == 1 && refused.err.to_lowercase().contains(told), "{args:?}: {refused:?}");
    }
    on.docker().ok(["rmi", "import-all:1", "import-plain:1"])?;
    Ok(())
}

fn a_history_tells_of_all(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "--name", "commit-history", "busybox", "sh", "-c", "echo 12345 > /own"])?;
    let first =
        docker.ok(["commit", "-m", "a file", "-a", "me <me@x>", "commit-history", "commit-history:1"])?;
    docker.ok(["rm", "commit-history"])?;
    docker.ok(["create", "--name", "commit-history", "commit-history:1"])?;
    docker.ok([
        "commit",
        "-m",
        "nothing",
        "--change",
        "CMD [\"true\"]",
        "commit-history",
        "commit-history:2",
    ])?;
    let format = "{{.Comment}}|{{.Size}}|{{.CreatedBy}}";
    let history = docker.ok(["history", "--no-trunc", "--format", format, "commit-history:2"])?;
    let lines: Vec<_> = history.lines().collect();
    ensure!(lines.len() == 3 && lines[0] == "nothing|0B|sh -c echo 12345 > /own", "{history}");
    ensure!(lines[1] == "a file|6B|sh -c echo 12345 > /own", "{history}");
    ensure!(lines[2].ends_with("|make-images"), "{history}");
    let told = on.api().get("/images/commit-history:2/history")?.json()?;
    ensure!(told[1]["Id"] == first.as_str() && told[1]["Tags"] == json!(["commit-history:1"]), "{told}");
    let image = inspect(on, "commit-history:1")?;
    ensure!(image["Author"] == "me <me@x>" && image["Comment"] == "a file", "{image}");
    docker.ok(["rm", "commit-history"])?;
    docker.ok(["rmi", "commit-history:2", "commit-history:1"])?;
    Ok(())
}

fn a_container_comes_back_from_its_export(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "mkdir /e && cd /e && echo x > f && ln f h && ln -s f s && mkfifo p && mknod n c 1 3 && chown 5:6 f \
                  && chmod 4711 f && mkdir -p \"$(printf '%0150d' 7)/$(printf '%0150d' 8)\" && truncate -s 1M hole && echo end >> hole";
    docker.ok(["run", "--name", "exported", "busybox", "sh", "-c", script])?;
    let archive = docker.command(["export", "exported"])?.in_time()?.stdout;
    docker.feed(["import", "--change", "CMD [\"sh\"]", "-", "exported:1"], &archive)?.ok()?;
    let look = "cd /e && stat -c '%n %a %u:%g %h %F %t,%T' f h p n && readlink s && ls -d 0*/0* | wc -c && stat -c %s hole && tail -c 4 hole";
    let found = docker.ok(["run", "--rm", "exported:1", "sh", "-c", look])?;
    let wanted = "f 4711 5:6 2 regular file 0,0\nh 4711 5:6 2 regular file 0,0\np 644 0:0 1 fifo 0,0\n\
                  n 644 0:0 1 character special file 1,3\nf\n302\n1048580\nend";
    ensure!(found == wanted, "{found}");
    docker.ok(["rm", "exported"])?;
    docker.ok(["rmi", "exported:1"])?;
    Ok(())
}

fn inspect(on: &dyn Subject, image: &str) -> Result<Value> {
    let text = on.docker().ok(["image", "inspect", "-f", "{{json .}}", image])?;
    Ok(serde_json::from_str(&text)?)
}

fn a_commit_is_an_image_of_what_the_container_changed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let first =
        "mkdir -p /d/e /gone && echo old > /d/old && echo x > /d/e/in && echo y > /gone/y && chmod 700 /d/e";
    docker.ok(["run", "--name", "commit", "busybox", "sh", "-c", first])?;
    let id = docker.ok(["commit", "-m", "first", "-a", "me", "commit", "commit:1"])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", "commit:1"])? == id);
    docker.ok(["rm", "commit"])?;
    // Removed, replaced, linked, owned, special: all that a layer can say.
    let second = "rm -r /gone /d/old && rm -r /d/e && mkdir /d/e && echo new > /d/e/new && ln /d/e/new /d/link && ln -s link /d/soft \
         && chown 5:6 /d/link && chmod 2755 /d && mkfifo /d/pipe && mknod /d/null c 1 3 && truncate -s 10485760 /d/sparse && echo end >> /d/sparse";
    docker.ok(["run", "--name", "commit", "-v", "/vol", "--tmpfs", "/t", "commit:1", "sh", "-c", second])?;
    docker.ok(["commit", "commit", "commit:2"])?;
    docker.ok(["rm", "-v", "commit"])?;
    let look = "ls -a / | grep -c gone; ls /d /d/e; stat -c '%n %a %u:%g %h %F %t,%T' /d /d/e /d/link /d/pipe /d/null; readlink /d/soft; \
         tail -c 4 /d/sparse; ls -d /vol /t";
    let found = docker.ok(["run", "--rm", "commit:2", "sh", "-c", look])?;
    let wanted = "0\n/d:\ne\nlink\nnull\npipe\nsoft\nsparse\n\n/d/e:\nnew\n/d 2755 0:0 1 directory 0,0\n/d/e 755 0:0 2 directory 0,0\n\
         /d/link 644 5:6 2 regular file 0,0\n/d/pipe 644 0:0 1 fifo 0,0\n/d/null 644 0:0 1 character special file 1,3\nlink\nend\n/t\n/vol";
    ensure!(found == wanted, "{found}");
    let history = docker.ok(["history", "--no-trunc", "--format", "{{.Comment}}", "commit:2"]);
    if let Ok(history) = history {
        ensure!(history.lines().nth(1) == Some("first"), "{history}");
    }
    let image = inspect(on, "commit:1")?;
    ensure!(image["Author"] == "me" && image["Comment"] == "first", "{image}");
    docker.ok(["rmi", "commit:2", "commit:1"])?;
    Ok(())
}

fn a_commit_s_configuration_is_the_container_s_and_what_is_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "create",
        "--name",
        "commit-config",
        "-e",
        "A=own",
        "-e",
        "B=own",
        "-l",
        "l=own",
        "--user",
        "5",
        "busybox",
        "echo",
        "own",
    ])?;
    let changes =
        ["ENV A=changed", "LABEL m=changed", "CMD [\"echo\", \"changed\"]", "EXPOSE 80", "WORKDIR /w"];
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    docker.ok(["commit"].into_iter().chain(changes).chain(["commit-config", "commit-config:1"]))?;
    let config = &inspect(on, "commit-config:1")?["Config"];
    ensure!(config["Cmd"] == json!(["echo", "changed"]) && config["User"] == "5", "{config}");
    ensure!(config["WorkingDir"] == "/w" && config["ExposedPorts"] == json!({"80/tcp": {}}), "{config}");
    ensure!(config["Labels"] == json!({"l": "own", "m": "changed"}), "{config}");
    let env = config["Env"].to_string();
    ensure!(env.contains("A=changed") && env.contains("B=own") && !env.contains("A=own"), "{env}");
    let answer = on.api().post("/commit?container=commit-config&changes=RUN+x", &Value::Null)?;
    ensure!(answer.status == 400, "{}", answer.json()?);
    let answer = on.api().post("/commit?container=commit-config&repo=UPPER", &Value::Null)?;
    ensure!(answer.status == 400, "{}", answer.json()?);
    let answer = on.api().post("/commit?container=nobody", &Value::Null)?;
    ensure!(
        answer.status == 404 && answer.json()?["message"] == "No such container: nobody",
        "{}",
        answer.json()?
    );
    docker.ok(["rm", "commit-config"])?;
    docker.ok(["rmi", "commit-config:1"])?;
    Ok(())
}

fn a_commit_of_a_running_container_lets_it_go_on(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "echo x > /made; touch /ready; exec sleep 1000";
    docker.ok(["run", "-d", "--name", "commit-live", "busybox", "sh", "-c", script])?;
    super::copy::wait_for_file(on, "commit-live", "/ready")?;
    for pause in ["--pause=true", "--pause=false"] {
        docker.ok(["commit", pause, "commit-live", "commit-live:1"])?;
        ensure!(docker.ok(["inspect", "-f", "{{.State.Status}}", "commit-live"])? == "running");
    }
    ensure!(docker.ok(["run", "--rm", "commit-live:1", "cat", "/made"])? == "x");
    docker.ok(["rm", "-f", "commit-live"])?;
    docker.ok(["rmi", "commit-live:1"])?;
    Ok(())
}

fn nothing_changed_is_no_layer(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "commit-none", "busybox"])?;
    docker.ok(["commit", "commit-none", "commit-none:1"])?;
    let layers = |image: &str| inspect(on, image).map(|image| image["RootFS"]["Layers"].clone());
    ensure!(layers("commit-none:1")? == layers("busybox")?);
    docker.ok(["rm", "commit-none"])?;
    docker.ok(["rmi", "commit-none:1"])?;
    Ok(())
}
