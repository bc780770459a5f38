//! `docker rmi`, and what is told of images while they come and go.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cases;
use crate::cases::events::Followed;
use crate::fixtures;
use crate::subject::Subject;

cases![
    an_id_of_many_names_takes_force,
    a_running_container_keeps_its_image,
    a_stopped_container_keeps_its_layers,
    parents_without_names_go_unless_told_otherwise,
    what_happens_to_images_is_told,
    names_that_lead_nowhere_are_told,
];

fn import(on: &dyn Subject, name: &str) -> Result<String> {
    // An image of its own: two that are made in one moment are else the same.
    let change = format!("LABEL removal={name}");
    on.docker().feed(["import", "--change", &change, "-", name], &fixtures::root_archive()?)?.ok()
}

fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

fn an_id_of_many_names_takes_force(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = import(on, "many/one:1")?;
    docker.ok(["tag", "many/one:1", "many/two:1"])?;
    let refused = docker.run(["rmi", &id])?;
    let told = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        short(&id)
    );
    ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
    let removed = docker.ok(["rmi", "-f", short(&id)])?;
    let lines: Vec<_> = removed.lines().collect();
    ensure!(
        lines[..3] == ["Untagged: many/one:1", "Untagged: many/two:1", &format!("Deleted: {id}")],
        "{removed}"
    );
    Ok(())
}

fn a_running_container_keeps_its_image(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["tag", "busybox", "running/it:1"])?;
    docker.ok([
        "create",
        "--name",
        "of-running",
        "running/it:1",
        "sh",
        "-c",
        "touch /own; exec sleep 100000",
    ])?;
    let id = docker.ok(["commit", "of-running", "running/own:1"])?;
    let container = docker.ok(["run", "-d", "--name", "running-own", "running/own:1"])?;
    let told = format!(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
        short(&id),
        &container[..12]
    );
    for args in [&["rmi", &id][..], &["rmi", "-f", &id]] {
        let refused = docker.run(args)?;
        ensure!(refused.status == 1 && refused.err.contains(&told), "{args:?} {refused:?}");
    }
    let untagged = docker.ok(["rmi", "-f", "running/own:1"])?;
    ensure!(untagged == "Untagged: running/own:1", "{untagged}");
    docker.ok(["rm", "-f", "running-own", "of-running"])?;
    docker.ok(["rmi", &id, "running/it:1"])?;
    Ok(())
}

fn a_stopped_container_keeps_its_layers(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "of-stopped", "busybox", "echo", "still here"])?;
    let id = docker.ok(["commit", "of-stopped", "stopped/own:1"])?;
    let container = docker.ok(["create", "--name", "stopped-own", "stopped/own:1"])?;
    let refused = docker.run(["rmi", &id])?;
    let told = format!(
        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
        short(&id),
        &container[..12]
    );
    ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
    docker.ok(["rmi", "-f", "stopped/own:1"])?;
    ensure!(docker.ok(["start", "-a", "stopped-own"])? == "still here");
    let shown =
        docker.ok(["ps", "-a", "--no-trunc", "--format", "{{.Image}}", "--filter", "name=stopped-own"])?;
    ensure!(shown == id, "{shown}");
    docker.ok(["rm", "stopped-own", "of-stopped"])?;
    Ok(())
}

fn parents_without_names_go_unless_told_otherwise(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for no_prune in [true, false] {
        let parent = import(on, "lineage/parent:1")?;
        docker.ok(["create", "--name", "lineage", "lineage/parent:1", "/none"])?;
        let child = docker.ok(["commit", "-m", "child", "lineage", "lineage/child:1"])?;
        docker.ok(["rm", "lineage"])?;
        let refused = docker.run(["rmi", "-f", &parent])?;
        let told = format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            short(&parent)
        );
        ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
        ensure!(docker.ok(["rmi", "lineage/parent:1"])? == "Untagged: lineage/parent:1");
        let args = if no_prune {
            &["rmi", "--no-prune", "lineage/child:1"][..]
        } else {
            &["rmi", "lineage/child:1"]
        };
        let removed = docker.ok(args)?;
        ensure!(removed.contains(&format!("Deleted: {child}")), "{removed}");
        ensure!(removed.contains(&format!("Deleted: {parent}")) != no_prune, "{removed}");
        if no_prune {
            docker.ok(["rmi", &parent])?;
        }
        ensure!(docker.run(["image", "inspect", &parent])?.status == 1);
    }
    Ok(())
}

fn what_happens_to_images_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = import(on, "events/one:1")?;
    let mut followed = Followed::since(on, &[&id], "image import")?;
    docker.ok(["tag", "events/one:1", "events/two:1"])?;
    let archive = fixtures::scratch()?.join(format!("events-{}.tar", on.name()));
    let file = archive.to_str().context("a path that is no text")?;
    docker.ok(["save", "-o", file, "events/one:1"])?;
    docker.ok(["load", "-i", file])?;
    docker.ok(["rmi", "events/one:1", "events/two:1"])?;
    followed.until("image delete")?;
    let wanted = [
        ("tag", "events/one:1"),
        ("import", &id),
        ("tag", "events/two:1"),
        ("save", &id),
        ("load", &id),
        ("untag", &id),
        ("untag", &id),
        ("delete", &id),
    ];
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let told = |event: &Value| (text(&event["Action"]), text(&event["Actor"]["Attributes"]["name"]));
    let told: Vec<_> = followed.events.iter().map(told).collect();
    let wanted = wanted.map(|(action, name)| (action.to_owned(), name.to_owned()));
    ensure!(told == wanted, "{told:?}");
    Ok(std::fs::remove_file(&archive)?)
}

fn names_that_lead_nowhere_are_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = import(on, "blank:1")?;
    let nameless = docker
        .feed(["import", "--change", "LABEL removal=nameless", "-"], &fixtures::root_archive()?)?
        .ok()?;
    for (args, told) in [
        (["rmi", "blank"], "No such image: blank:latest"),
        (["rmi", "blank:none"], "No such image: blank:none"),
        (["rmi", "UPPER"], "invalid reference format: repository name (library/UPPER) must be lowercase"),
    ] {
        let refused = docker.run(args)?;
        ensure!(refused.status == 1 && refused.err.contains(told), "{refused:?}");
    }
    let forced = docker.run(["rmi", "-f", "blank:none"])?;
    ensure!(forced.err.contains("No such image: blank:none"), "{forced:?}");
    docker.ok(["rmi", &id, &nameless])?;
    Ok(())
}
