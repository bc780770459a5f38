//! Volumes: made, listed, used, kept and removed.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bounded::Bounded;
use crate::cases;
use crate::subject::Subject;

cases![
    a_volume_outlives_its_containers,
    a_volume_in_use_is_not_removed,
    a_new_volume_gets_what_the_image_has,
    an_anonymous_volume_goes_with_its_container_if_asked,
    an_anonymous_volume_of_a_container_that_removes_itself_goes,
    volumes_come_from_other_containers,
    a_volume_s_device_is_mounted_while_it_is_used,
    volumes_are_listed_by_their_labels_and_use,
    prune_takes_the_anonymous_ones_unless_told_otherwise,
    a_part_of_a_volume_is_mounted,
    a_server_that_is_not_there_fails_the_start,
    what_a_volume_takes_is_told,
    labels_choose_what_is_pruned,
    a_volume_that_is_there_stays_as_it_was_made,
];

fn a_volume_outlives_its_containers(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/file"])?;
    ensure!(docker.ok(["run", "--rm", "-v", "keep:/data:ro", "busybox", "cat", "/data/file"])? == "kept");
    let answer = docker.run(["run", "--rm", "-v", "keep:/data:ro", "busybox", "touch", "/data/file"])?;
    ensure!(answer.err.contains("Read-only file system"), "{answer:?}");
    docker.ok(["volume", "rm", "keep"])?;
    let answer = docker.run(["volume", "inspect", "keep"])?;
    ensure!(answer.err.contains("get keep: no such volume"), "{answer:?}");
    Ok(())
}

fn a_volume_in_use_is_not_removed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "holder", "-v", "held:/data", "busybox"])?;
    for force in [&["volume", "rm", "held"][..], &["volume", "rm", "-f", "held"]] {
        let answer = docker.run(force)?;
        let told = format!("remove held: volume is in use - [{id}]");
        ensure!(answer.status == 1 && answer.err.contains(&told), "{answer:?}");
    }
    let mounts: Value = serde_json::from_str(&docker.ok(["inspect", "-f", "{{json .Mounts}}", "holder"])?)?;
    let mount = &mounts[0];
    ensure!(mount["Type"] == "volume" && mount["Name"] == "held" && mount["Driver"] == "local", "{mount}");
    ensure!(mount["Mode"] == "z" && mount["RW"] == true && mount["Propagation"] == "", "{mount}");
    ensure!(
        mount["Source"].as_str().is_some_and(|source| source.ends_with("/volumes/held/_data")),
        "{mount}"
    );
    ensure!(docker.ok(["ps", "-aq", "--no-trunc", "--filter", "volume=held"])? == id);
    docker.ok(["rm", "-v", "holder"])?;
    docker.ok(["volume", "rm", "held"])?;
    Ok(())
}

fn a_new_volume_gets_what_the_image_has(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let base = docker.ok([
        "run", "--name", "grown", "busybox", "sh", "-c",
        "mkdir -p /srv/d/e && echo a > /srv/d/f && ln -s f /srv/d/l && ln /srv/d/f /srv/d/e/h && chmod 600 /srv/d/f \
         && chown 5:6 /srv/d/f && chown 7:8 /srv/d && chmod 2750 /srv/d",
    ])?;
    ensure!(base.is_empty(), "{base}");
    let archive = docker.command(["export", "grown"])?.in_time()?.stdout;
    docker.feed(["import", "-", "grown:1"], &archive)?.ok()?;
    let look = "cd /x && stat -c '%a %u:%g %h %F' . f e/h && readlink l && cat f";
    let found = docker.ok(["run", "--rm", "-v", "grown:/srv/d", "grown:1", "true"]);
    found?;
    let found = docker.ok(["run", "--rm", "-v", "grown:/x", "busybox", "sh", "-c", look])?;
    let wanted = "2750 7:8 3 directory\n600 5:6 2 regular file\n600 5:6 2 regular file\nf\na";
    ensure!(found == wanted, "{found}");
    // What is there is not filled again, and what asks for nothing gets nothing.
    docker.ok(["run", "--rm", "-v", "grown:/srv", "grown:1", "sh", "-c", "rm /srv/f"])?;
    let again = docker.ok(["run", "--rm", "-v", "grown:/srv/d", "grown:1", "ls", "/srv/d"])?;
    ensure!(again == "e\nl", "{again}");
    let empty = docker.ok(["run", "--rm", "-v", "grown-not:/srv/d:nocopy", "grown:1", "ls", "/srv/d"])?;
    ensure!(empty.is_empty(), "{empty}");
    docker.ok(["rm", "grown"])?;
    docker.ok(["volume", "rm", "grown", "grown-not"])?;
    docker.ok(["rmi", "grown:1"])?;
    Ok(())
}

/// The volume at `/data` of a container.
fn volume_of(on: &dyn Subject, container: &str) -> Result<String> {
    on.docker().ok(["inspect", "-f", "{{range .Mounts}}{{.Name}}{{end}}", container])
}

fn an_anonymous_volume_goes_with_its_container_if_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "anon", "-v", "/data", "busybox"])?;
    let name = volume_of(on, "anon")?;
    let labels = docker.ok(["volume", "inspect", "-f", "{{json .Labels}}", &name])?;
    ensure!(labels == r#"{"com.docker.volume.anonymous":""}"#, "{labels}");
    docker.ok(["rm", "anon"])?;
    docker.ok(["volume", "rm", &name])?;
    docker.ok(["create", "--name", "anon", "-v", "/data", "busybox"])?;
    let name = volume_of(on, "anon")?;
    docker.ok(["rm", "-v", "anon"])?;
    ensure!(docker.run(["volume", "inspect", &name])?.status == 1);
    Ok(())
}

fn an_anonymous_volume_of_a_container_that_removes_itself_goes(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--rm",
        "--name",
        "anon-rm",
        "-v",
        "/data",
        "-v",
        "anon-kept:/kept",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let name = docker.ok([
        "inspect",
        "-f",
        "{{range .Mounts}}{{if eq .Destination \"/data\"}}{{.Name}}{{end}}{{end}}",
        "anon-rm",
    ])?;
    docker.ok(["kill", "anon-rm"])?;
    // Already gone, which is a 404, or about to be.
    on.api().post("/containers/anon-rm/wait?condition=removed", &Value::Null)?;
    ensure!(docker.run(["volume", "inspect", &name])?.status == 1);
    docker.ok(["volume", "rm", "anon-kept"])?;
    Ok(())
}

fn volumes_come_from_other_containers(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--name",
        "lender",
        "-v",
        "lent:/lent",
        "-v",
        "/own",
        "busybox",
        "sh",
        "-c",
        "echo a > /lent/f; echo b > /own/f",
    ])?;
    let read = [
        "run",
        "--rm",
        "--volumes-from",
        "lender:ro",
        "busybox",
        "sh",
        "-c",
        "cat /lent/f /own/f; touch /own/g || echo refused",
    ];
    ensure!(docker.ok(read)? == "a\nb\nrefused");
    docker.ok(["run", "--name", "borrower", "--volumes-from", "lender", "busybox", "touch", "/own/g"])?;
    docker.ok(["rm", "-v", "lender"])?;
    let left = docker.ok(["run", "--rm", "--volumes-from", "borrower", "busybox", "ls", "/own", "/lent"])?;
    ensure!(left.contains('g'), "{left}");
    let answer = docker.run(["create", "--volumes-from", "no-such", "busybox"])?;
    ensure!(answer.err.contains("No such container: no-such"), "{answer:?}");
    docker.ok(["rm", "-v", "borrower"])?;
    docker.ok(["volume", "rm", "lent"])?;
    Ok(())
}

fn a_volume_s_device_is_mounted_while_it_is_used(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,mode=0700",
        "ram",
    ])?;
    docker.ok([
        "run",
        "-d",
        "--name",
        "ram1",
        "-v",
        "ram:/r",
        "busybox",
        "sh",
        "-c",
        "echo x > /r/f; sleep 1000",
    ])?;
    let seen = docker.ok([
        "run",
        "--rm",
        "-v",
        "ram:/r",
        "busybox",
        "sh",
        "-c",
        "grep ' /r ' /proc/mounts; stat -c %a /r; while [ ! -s /r/f ]; do :; done; cat /r/f",
    ])?;
    ensure!(
        seen.contains("tmpfs /r tmpfs") && seen.contains("size=1024k") && seen.ends_with("700\nx"),
        "{seen}"
    );
    docker.ok(["rm", "-f", "ram1"])?;
    ensure!(
        docker.ok(["run", "--rm", "-v", "ram:/r", "busybox", "ls", "/r"])?.is_empty(),
        "it was left mounted"
    );
    docker.ok(["volume", "rm", "ram"])?;
    docker.ok(["volume", "create", "-o", "type=none", "-o", "device=/no/such", "-o", "o=bind", "lost"])?;
    let answer = docker.run(["run", "--rm", "-v", "lost:/r", "--name", "lost", "busybox", "true"])?;
    ensure!(
        answer.status == 127
            && answer.err.contains("failed to mount local volume")
            && answer.err.contains("no such file or directory"),
        "{answer:?}"
    );
    docker.run(["rm", "-f", "lost"])?;
    docker.ok(["volume", "rm", "lost"])?;
    Ok(())
}

fn volumes_are_listed_by_their_labels_and_use(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["volume", "create", "--label", "listed=a", "listed-a"])?;
    docker.ok(["volume", "create", "--label", "listed=b", "listed-b"])?;
    docker.ok(["create", "--name", "lister", "-v", "listed-b:/b", "busybox"])?;
    let list = |filters: &[&str]| -> Result<String> {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        docker.ok(["volume", "ls", "-q"].into_iter().chain(filters))
    };
    ensure!(list(&["label=listed"])? == "listed-a\nlisted-b");
    ensure!(list(&["label=listed=b"])? == "listed-b");
    ensure!(list(&["name=listed", "dangling=true"])? == "listed-a");
    ensure!(list(&["name=listed", "dangling=false"])? == "listed-b");
    ensure!(list(&["name=listed", "driver=nope"])?.is_empty());
    docker.ok(["rm", "lister"])?;
    docker.ok(["volume", "rm", "listed-a", "listed-b"])?;
    Ok(())
}

fn prune_takes_the_anonymous_ones_unless_told_otherwise(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["volume", "create", "--label", "pruned", "pruned"])?;
    docker.ok([
        "create",
        "--name",
        "pruner",
        "--mount",
        "type=volume,dst=/x,volume-label=pruned",
        "busybox",
    ])?;
    let prune =
        |more: &[&str]| docker.ok(["volume", "prune", "-f", "--filter", "label=pruned"].iter().chain(more));
    ensure!(prune(&[])?.ends_with("Total reclaimed space: 0B"));
    let anonymous = volume_of(on, "pruner")?;
    docker.ok(["rm", "pruner"])?;
    let pruned = prune(&[])?;
    ensure!(pruned.contains(&anonymous) && !pruned.contains("pruned\n"), "{pruned}");
    ensure!(prune(&["-a"])?.contains("pruned"));
    ensure!(docker.run(["volume", "inspect", "pruned"])?.status == 1);
    Ok(())
}

fn a_part_of_a_volume_is_mounted(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--rm",
        "-v",
        "parts:/p",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /p/a/b; echo in > /p/a/b/f; ln -s /etc /p/out",
    ])?;
    let part = |path: &str| format!("type=volume,src=parts,dst=/x,volume-subpath={path}");
    ensure!(docker.ok(["run", "--rm", "--mount", &part("a/b"), "busybox", "cat", "/x/f"])? == "in");
    for (path, told) in [("none", "cannot access path"), ("out", "")] {
        let answer = docker.run(["run", "--rm", "--mount", &part(path), "busybox", "ls", "/x"])?;
        ensure!(answer.status != 0 && answer.err.contains(told), "{path}: {answer:?}");
    }
    docker.ok(["volume", "rm", "parts"])?;
    Ok(())
}

/// Neither kind of file system need be known to the kernel: why it failed is the kernel's to say.
fn a_server_that_is_not_there_fails_the_start(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (kind, device, options, told) in [
        ("nfs", ":/export", "addr=127.0.0.1,port=9,soft,retry=0", "mount :/export:"),
        ("cifs", "//127.0.0.1/share", "username=me,password=secret,port=9", "mount //127.0.0.1/share:"),
    ] {
        let name = format!("far-{kind}");
        let opts = [format!("type={kind}"), format!("device={device}"), format!("o={options}")];
        let opts = opts.iter().flat_map(|opt| ["--opt", opt.as_str()]);
        docker.ok(["volume", "create"].into_iter().chain(opts).chain([name.as_str()]))?;
        let answer = docker.run(["run", "--name", &name, "-v", &format!("{name}:/x"), "busybox", "true"])?;
        ensure!(answer.status == 127 || answer.status == 125, "{answer:?}");
        let said = "failed to mount local volume: ";
        ensure!(answer.err.contains(said) && answer.err.contains(told), "{answer:?}");
        ensure!(answer.err.contains("data: ") && !answer.err.contains("secret"), "{answer:?}");
        // Why is told once, and as dockerd says it.
        ensure!(!answer.err.contains("os error"), "{answer:?}");
        // The machine's kernel has both; what another system has is not ours to say.
        ensure!(on.name() != "machine" || !answer.err.contains("no such device"), "{answer:?}");
        docker.ok(["rm", &name])?;
        docker.ok(["volume", "rm", &name])?;
    }
    let opts = ["--opt", "type=nfs", "--opt", "device=:/x", "--opt", "o=addr=no.such.host.invalid"];
    docker.ok(["volume", "create"].iter().chain(&opts).chain(&["far-name"]))?;
    let answer = docker.run(["run", "--name", "far-name", "-v", "far-name:/x", "busybox", "true"])?;
    let told = "error resolving passed in network volume address: lookup no.such.host.invalid";
    ensure!(answer.status != 0 && answer.err.contains(told), "{answer:?}");
    docker.ok(["rm", "far-name"])?;
    docker.ok(["volume", "rm", "far-name"])?;
    Ok(())
}

fn what_a_volume_takes_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "dd if=/dev/zero of=/d/f bs=1000 count=3 2>/dev/null; ln /d/f /d/h; mkdir /d/sub; echo 123 > /d/sub/g";
    docker.ok(["run", "--name", "takes", "-v", "takes:/d", "busybox", "sh", "-c", script])?;
    let usage = |wanted: (i64, i64)| -> Result<()> {
        let told = on.api().get("/system/df?type=volume")?.json()?;
        let volumes = told["Volumes"].as_array().cloned().unwrap_or_default();
        let volume = volumes.iter().find(|volume| volume["Name"] == "takes").cloned().unwrap_or_default();
        let usage = &volume["UsageData"];
        ensure!(usage["Size"] == wanted.0 && usage["RefCount"] == wanted.1, "{volume}");
        Ok(())
    };
    usage((3004, 1))?;
    docker.ok(["rm", "takes"])?;
    usage((3004, 0))?;
    docker.ok(["volume", "rm", "takes"])?;
    Ok(())
}

fn labels_choose_what_is_pruned(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (name, label) in [("chosen-a", "chosen=a"), ("chosen-b", "chosen=b")] {
        docker.ok(["volume", "create", "--label", label, "--label", "kept=no", name])?;
    }
    let prune = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        docker.ok(["volume", "prune", "-f", "-a"].into_iter().chain(filters))
    };
    let pruned = prune(&["label=chosen", "label!=kept=no"])?;
    ensure!(!pruned.contains("chosen-"), "{pruned}");
    let pruned = prune(&["label=chosen", "label!=chosen=a"])?;
    ensure!(pruned.contains("chosen-b") && !pruned.contains("chosen-a"), "{pruned}");
    let pruned = prune(&["label=chosen=a"])?;
    ensure!(pruned.contains("chosen-a"), "{pruned}");
    Ok(())
}

/// Whatever is asked for under its name later.
fn a_volume_that_is_there_stays_as_it_was_made(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["volume", "create", "--label", "first=yes", "stays"])?;
    let tmpfs = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--label", "second=yes"];
    ensure!(docker.ok(["volume", "create"].iter().chain(&tmpfs).chain(&["stays"]))? == "stays");
    let made = docker.ok(["volume", "inspect", "-f", "{{json .Labels}} {{json .Options}}", "stays"])?;
    ensure!(made == r#"{"first":"yes"} null"#, "{made}");
    let other = docker.run(["volume", "create", "--driver", "no-such-driver", "stays"])?;
    ensure!(other.status == 1, "{other:?}");
    docker.ok(["volume", "rm", "stays"])?;
    Ok(())
}
