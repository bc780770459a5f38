//! What `docker ps` shows, and of which containers.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::Subject;

cases![
    every_filter_chooses_its_containers,
    names_of_networks_and_volumes_are_expressions_as_well,
    annotations_are_listed,
    bad_filters_are_refused,
    sizes_are_told_when_asked_for,
];

/// The names of those of this case that the filters choose, running or not.
fn listed(on: &dyn Subject, args: &[&str], filters: &[&str]) -> Result<String> {
    let mut all = vec!["ps", "--format", "{{.Names}}", "--filter", "label=of=list"];
    all.extend(args);
    for filter in filters {
        all.extend(["--filter", filter]);
    }
    Ok(on.docker().ok(all)?.replace('\n', " "))
}

fn every_filter_chooses_its_containers(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "list-a", "--label", "of=list", "--label", "empty=", "busybox"])?;
    docker.ok([
        "run",
        "-d",
        "--name",
        "list-b",
        "--label",
        "of=list",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ])?;
    docker.ok(["wait", "list-b"])?;
    let id = docker.ok([
        "run",
        "-d",
        "--name",
        "list-c",
        "--label",
        "of=list",
        "-p",
        "28095:80",
        "--expose",
        "9000",
        "-v",
        "/tmp:/mounted",
        "web",
    ])?;
    let (beginning, bridge) =
        (format!("id={}", &id[..10]), docker.ok(["network", "inspect", "-f", "{{.Id}}", "bridge"])?);
    let bridge = format!("network={}", &bridge[..12]);
    for (filters, expected) in [
        (&[][..], "list-c list-b list-a"),
        (&["name=list-"], "list-c list-b list-a"),
        (&["name=^/list-a$"], "list-a"),
        (&["name=list-(a|b)"], "list-b list-a"),
        (&["name=^ist"], ""),
        (&["name=a", "name=c"], "list-c list-a"),
        (&[beginning.as_str()], "list-c"),
        (&["id=ffffffffffff"], ""),
        (&["label=empty"], "list-a"),
        (&["label=empty="], "list-a"),
        (&["label=empty=x"], ""),
        (&["exited=3"], "list-b"),
        (&["exited=0"], ""),
        (&["status=created"], "list-a"),
        (&["status=exited", "status=created"], "list-b list-a"),
        (&["ancestor=web"], "list-c"),
        (&["ancestor=busybox"], "list-b list-a"),
        (&["ancestor=no-such-image"], ""),
        (&["before=list-c"], "list-b list-a"),
        (&["since=list-a"], "list-c list-b"),
        (&["since=list-a", "before=list-c"], "list-b"),
        (&["volume=/mounted"], "list-c"),
        (&["volume=/tmp"], "list-c"),
        (&["volume=/mount"], ""),
        (&["network=none"], "list-b"),
        (&["network=bridge"], "list-c list-a"),
        (&[bridge.as_str()], "list-c"),
        (&["publish=28095"], "list-c"),
        (&["publish=28000-28100/tcp"], "list-c"),
        (&["publish=80"], ""),
        (&["expose=9000/tcp"], "list-c"),
        (&["expose=80"], "list-c"),
        (&["expose=1"], ""),
        (&["health=none"], "list-c list-b list-a"),
        (&["health=healthy"], ""),
        (&["is-task=false"], "list-c list-b list-a"),
        (&["is-task=true"], ""),
        (&["isolation=default"], "list-c list-b list-a"),
    ] {
        let found = listed(on, &["-a"], filters)?;
        ensure!(found == expected, "{filters:?}: {found:?}, not {expected:?}");
    }
    for (args, filters, expected) in [
        (&[][..], &[][..], "list-c"),
        (&[], &["status=exited"], "list-b"),
        (&[], &["exited=3"], ""),
        (&[], &["before=list-c"], ""),
        (&["-n", "2"], &[], "list-c list-b"),
        (&["-l"], &[], "list-c"),
        (&["-n", "1"], &["name=list-a"], "list-a"),
    ] {
        let found = listed(on, args, filters)?;
        ensure!(found == expected, "{args:?} {filters:?}: {found:?}, not {expected:?}");
    }
    docker.ok(["rm", "-f", "list-a", "list-b", "list-c"])?;
    Ok(())
}

fn names_of_networks_and_volumes_are_expressions_as_well(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (kind, make) in [("network", "list-net"), ("volume", "list-vol")] {
        let [plain, more] = [make.to_owned(), format!("{make}-more")];
        docker.ok([kind, "create", &plain])?;
        docker.ok([kind, "create", &more])?;
        let both = format!("{plain} {more}");
        for (filter, expected) in [
            (format!("^{make}$"), plain.as_str()),
            (make.to_owned(), &both),
            (format!("{make}(-more|-less)"), &more),
            ("^ist-".to_owned(), ""),
            // No expression, and nobody's name.
            (format!("{make}("), ""),
        ] {
            let list = [kind, "ls", "--format", "{{.Name}}", "--filter", &format!("name={filter}")];
            let listed = docker.ok(list)?;
            let mut listed: Vec<&str> = listed.lines().collect();
            listed.sort_unstable();
            ensure!(listed.join(" ") == expected, "{kind} {filter}: {listed:?}");
        }
        docker.ok([kind, "rm", &plain, &more])?;
    }
    Ok(())
}

fn annotations_are_listed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "list-noted", "--annotation", "why=shown", "busybox"])?;
    let path = format!("containers/json?all=1&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D");
    for (version, expected) in [("", json!({"why": "shown"})), ("/v1.45", Value::Null)] {
        let listed = on.api().get(&format!("{version}/{path}"))?.json()?;
        ensure!(listed[0]["HostConfig"]["Annotations"] == expected, "{version}: {listed}");
    }
    docker.ok(["rm", "list-noted"])?;
    Ok(())
}

fn bad_filters_are_refused(on: &dyn Subject) -> Result<()> {
    for (filter, words) in [
        ("nope=1", "invalid filter 'nope'"),
        ("exited=x", "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
        ("status=well", "invalid filter 'status=well': invalid value for state (well): must be one of"),
        ("health=well", "invalid filter 'health=well': invalid value for health (well): must be one of"),
        ("is-task=x", "invalid filter 'is-task=[x]'"),
        ("before=no-such", "No such container: no-such"),
        ("publish=1:2", "filter for 'publish' should not contain ':': 1:2"),
        ("expose=x", "error while looking up for expose x: "),
    ] {
        let answer = on.docker().run(["ps", "--filter", filter])?;
        ensure!(answer.status == 1 && answer.err.contains(words), "{filter}: {answer:?}");
    }
    Ok(())
}

fn sizes_are_told_when_asked_for(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "dd if=/dev/zero of=/filled bs=1000 count=50 2>/dev/null; ln /filled /again";
    docker.ok(["run", "--name", "sized", "busybox", "sh", "-c", script])?;
    let listed = docker.ok(["ps", "-as", "--format", "{{.Size}}", "--filter", "name=^sized$"])?;
    ensure!(listed.starts_with("50kB (virtual "), "{listed}");
    let sizes = docker.ok(["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "sized"])?;
    ensure!(sizes.starts_with("50000 "), "{sizes}");
    ensure!(docker.ok(["inspect", "-f", "{{.SizeRw}}", "sized"])? == "<nil>");
    docker.ok(["rm", "sized"])?;
    Ok(())
}
