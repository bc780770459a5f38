//! Links on the default bridge: names and variables of the time before networks had names.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::{Case, Subject};

cases![
    a_link_tells_names_and_variables,
    a_link_follows_its_container,
    a_linked_container_has_to_run,
    a_link_is_a_name_and_can_be_removed,
    links_that_are_none_are_refused,
];

/// dockerd looks for the end of such a circle for ever.
pub const OURS: &[Case] =
    &[Case { name: "a_circle_has_nobody_to_link_to", run: a_circle_has_nobody_to_link_to }];

fn serve(on: &dyn Subject, name: &str, host: &str) -> Result<()> {
    let run =
        ["run", "-d", "--name", name, "-h", host, "-e", "FOO=bar", "--expose", "80", "--expose", "53/udp"];
    on.docker().ok(run.iter().chain(&["busybox", "sleep", "1000"]))?;
    Ok(())
}

fn address(on: &dyn Subject, name: &str) -> Result<String> {
    on.docker().ok(["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name])
}

fn hosts(on: &dyn Subject, name: &str) -> Result<String> {
    on.docker().ok(["exec", name, "cat", "/etc/hosts"])
}

fn a_link_tells_names_and_variables(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    serve(on, "k-db", "k-host")?;
    let run = ["run", "-d", "--name", "k-web", "--link", "k-db:data-base", "--link", "k-db", "-e", "MINE=1"];
    docker.ok(run.iter().chain(&["busybox", "sleep", "1000"]))?;
    let at = address(on, "k-db")?;
    let file = hosts(on, "k-web")?;
    for line in [format!("{at}\tdata-base k-host k-db"), format!("{at}\tk-db k-host")] {
        ensure!(file.lines().any(|known| known == line), "{line} in {file}");
    }
    for of in ["cat /proc/1/environ | tr '\\0' '\\n'", "env"] {
        let told = docker.ok(["exec", "k-web", "sh", "-c", of])?;
        for variable in [
            format!("DATA_BASE_PORT=tcp://{at}:80"),
            format!("DATA_BASE_PORT_80_TCP_ADDR={at}"),
            format!("DATA_BASE_PORT_53_UDP=udp://{at}:53"),
            "DATA_BASE_NAME=/k-web/data-base".into(),
            "DATA_BASE_ENV_FOO=bar".into(),
            "K_DB_NAME=/k-web/k-db".into(),
            "MINE=1".into(),
        ] {
            ensure!(told.lines().any(|known| known == variable), "{variable} in {told}");
        }
    }
    let links = docker.ok(["inspect", "-f", "{{json .HostConfig.Links}}", "k-web"])?;
    let mut links: Vec<String> = serde_json::from_str(&links)?;
    links.sort();
    ensure!(links == ["/k-db:/k-web/data-base", "/k-db:/k-web/k-db"], "{links:?}");
    docker.ok(["rm", "-f", "k-web", "k-db"])?;
    Ok(())
}

fn a_link_follows_its_container(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    serve(on, "k-moves", "k-moving")?;
    docker.ok(["run", "-d", "--name", "k-follows", "--link", "k-moves:m", "busybox", "sleep", "1000"])?;
    let before = address(on, "k-moves")?;
    // Its address goes to another one while it is stopped.
    docker.ok(["stop", "-t", "0", "k-moves"])?;
    docker.ok(["run", "-d", "--name", "k-takes", "busybox", "sleep", "1000"])?;
    docker.ok(["start", "k-moves"])?;
    let (now, taken) = (address(on, "k-moves")?, address(on, "k-takes")?);
    ensure!(now != before || taken != before, "{before}, {now}, {taken}");
    let line = format!("{now}\tm k-moving k-moves");
    let followed = (0..100).any(|_| hosts(on, "k-follows").is_ok_and(|file| file.contains(&line)));
    ensure!(followed, "{line} in {}", hosts(on, "k-follows")?);
    docker.ok(["rename", "k-moves", "k-renamed"])?;
    let links = docker.ok(["inspect", "-f", "{{json .HostConfig.Links}}", "k-follows"])?;
    ensure!(links == r#"["/k-renamed:/k-follows/m"]"#, "{links}");
    docker.ok(["rm", "-f", "k-follows", "k-renamed", "k-takes"])?;
    Ok(())
}

fn a_linked_container_has_to_run(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "k-still", "busybox"])?;
    docker.ok(["create", "--name", "k-waits", "--link", "k-still:s", "busybox"])?;
    let answer = on.api().post("/containers/k-waits/start", &Value::Null)?;
    let message = "Cannot link to a non running container: /k-still AS /k-waits/s";
    ensure!(answer.status == 500 && answer.json()?["message"] == message, "{}", answer.json()?);
    docker.ok(["network", "create", "k-elsewhere"])?;
    let id = docker.ok([
        "run",
        "-d",
        "--name",
        "k-far",
        "--network",
        "k-elsewhere",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let far = docker.run(["run", "--rm", "--link", "k-far", "busybox", "true"])?;
    ensure!(far.err.contains(&format!("container {id} not attached to default bridge network")), "{far:?}");
    docker.ok(["rm", "-f", "k-still", "k-waits", "k-far"])?;
    docker.ok(["network", "rm", "k-elsewhere"])?;
    Ok(())
}

fn a_link_is_a_name_and_can_be_removed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    serve(on, "k-named", "k-x")?;
    docker.ok(["run", "-d", "--name", "k-names", "--link", "k-named:it", "busybox", "sleep", "1000"])?;
    ensure!(docker.ok(["inspect", "-f", "{{.Name}}", "/k-names/it"])? == "/k-named");
    let listed = docker.ok(["ps", "--no-trunc", "--filter", "name=k-named", "--format", "{{.Names}}"])?;
    ensure!(listed == "k-named,k-names/it", "{listed}");
    let own = on.api().delete("/containers/k-named?link=1")?;
    ensure!(own.status == 500, "{}", own.json()?);
    docker.ok(["rm", "--link", "k-names/it"])?;
    ensure!(docker.ok(["inspect", "-f", "{{json .HostConfig.Links}}", "k-names"])? == "null");
    ensure!(!hosts(on, "k-names")?.contains("k-named"), "the name is left");
    ensure!(docker.run(["inspect", "/k-names/it"])?.status == 1, "the name still stands for it");
    ensure!(docker.ok(["inspect", "-f", "{{.State.Status}}", "k-named"])? == "running");
    docker.ok(["rm", "-f", "k-names", "k-named"])?;
    Ok(())
}

fn links_that_are_none_are_refused(on: &dyn Subject) -> Result<()> {
    for (link, status, message) in [
        ("a:b:c", 500, "bad format for links: a:b:c"),
        ("", 500, "empty string specified for links"),
        ("k-nobody:x", 400, "could not get container for k-nobody: No such container: k-nobody"),
        (":x", 400, "could not get container for : invalid name or ID supplied: \"\""),
    ] {
        let answer = on
            .api()
            .post("/containers/create", &json!({"Image": "busybox", "HostConfig": {"Links": [link]}}))?;
        let told = answer.json()?;
        ensure!(answer.status == status && told["message"] == message, "{link}: {} {told}", answer.status);
    }
    Ok(())
}

fn a_circle_has_nobody_to_link_to(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "k-round", "--network", "container:k-about", "busybox"])?;
    docker.ok(["create", "--name", "k-about", "--network", "container:k-round", "busybox"])?;
    let refused = docker.run(["create", "--link", "k-about", "busybox"])?;
    ensure!(refused.status == 1 && refused.err.contains("lives in its own network"), "{refused:?}");
    docker.ok(["rm", "k-round", "k-about"])?;
    Ok(())
}
