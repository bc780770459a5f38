//! What `docker events` tells: every action, in the order in which dockerd tells them.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::Subject;

cases![
    every_action_is_told_in_order,
    copies_are_told,
    a_start_that_fails_is_no_connection,
    filters_choose_by_image_and_label,
];

/// Follows what is told of a few things from now on. An engine keeps only its last few hundred events, which those of other cases
/// may push out; what is followed is not lost.
pub(super) struct Followed {
    follows: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ids: Vec<String>,
    /// The events so far.
    pub(super) events: Vec<Value>,
}

impl Followed {
    /// Follows the events of things that have been made this moment: `first` is the last thing that was done to them.
    pub(super) fn since(on: &dyn Subject, ids: &[&str], first: &str) -> Result<Self> {
        let mut follows = on.docker().spawn(["events", "--since", "0", "--format", "json"])?;
        let lines = BufReader::new(follows.stdout.take().context("spawned with a pipe")?).lines();
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut followed = Self { follows, lines, ids, events: Vec::new() };
        // It is there once it has told of that.
        followed.until(first)?;
        Ok(followed)
    }

    /// Reads on until the last thing that happened is this: `type action`.
    pub(super) fn until(&mut self, last: &str) -> Result<()> {
        while self.events.last().map(told).as_deref() != Some(last) {
            let so_far: Vec<String> = self.events.iter().map(told).collect();
            let line = self.lines.next().with_context(|| format!("no {last:?} follows {so_far:?}"))??;
            let event: Value = serde_json::from_str(&line)?;
            let actor = &event["Actor"];
            if [&actor["ID"], &actor["Attributes"]["container"]].iter().any(|about| self.is_followed(about)) {
                self.events.push(event);
            }
        }
        Ok(())
    }

    fn is_followed(&self, about: &Value) -> bool {
        about.as_str().is_some_and(|text| self.ids.iter().any(|id| id == text))
    }

    /// All of it, when the last thing has happened.
    fn all_until(mut self, last: &str) -> Result<String> {
        self.until(last)?;
        Ok(self.events.iter().map(told).collect::<Vec<_>>().join("; "))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.follows.kill();
        let _ = self.follows.wait();
    }
}

/// `type action`.
fn told(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&event["Type"]), text(&event["Action"]))
}

fn every_action_is_told_in_order(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["volume", "create", "events-volume"])?;
    let create = ["create", "--name", "events", "-v", "events-volume:/v", "busybox", "sleep", "1000"];
    let id = docker.ok(create)?;
    let followed = Followed::since(on, &[&id, "events-volume"], "container create")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    let file = file.to_str().context("a path that is no text")?;
    for line in [
        "start events",
        "exec events true",
        "top events",
        "pause events",
        "unpause events",
        "update --restart no events",
        "rename events evented",
        "kill -s USR2 evented",
        "export -o FILE evented",
        "commit evented events-image",
        "stop -t 0 evented",
        "start evented",
        "restart -t 0 evented",
        "kill evented",
        "wait evented",
        "rm evented",
        "volume rm events-volume",
        "rmi events-image",
    ] {
        docker.ok(line.split(' ').map(|word| if word == "FILE" { file } else { word }))?;
    }
    // dockerd tells of a stop and of the end that it brought in any order.
    let told = followed.all_until("volume destroy")?.replace("stop; container die", "die; container stop");
    let start = "volume mount; network connect; container start";
    let kill = "container kill";
    let end = "network disconnect; volume unmount; container die";
    let expected = [
        "volume create; container create",
        start,
        "container exec_create: true ; container exec_start: true ; container exec_die; container top",
        "container pause; container unpause; container update; container rename",
        kill,
        "container export; container pause; container commit; container unpause",
        // A stop: with no time to wait, the second signal follows the first.
        kill,
        kill,
        end,
        "container stop",
        start,
        // A restart.
        kill,
        kill,
        end,
        "container stop",
        start,
        "container restart",
        kill,
        end,
        "container destroy; volume destroy",
    ];
    ensure!(told == expected.join("; "), "{told}");
    Ok(())
}

fn copies_are_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok([
        "create",
        "--name",
        "events-copies",
        "-v",
        "events-copied:/v",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let followed = Followed::since(on, &[&id], "container create")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    let file = file.to_str().context("a path that is no text")?;
    docker.ok(["cp", "events-copies:/etc/passwd", file])?;
    docker.ok(["cp", file, "events-copies:/tmp/f"])?;
    docker.ok(["start", "events-copies"])?;
    docker.ok(["cp", "events-copies:/etc/passwd", file])?;
    docker.ok(["rm", "-f", "events-copies"])?;
    docker.ok(["volume", "rm", "events-copied"])?;
    let told = followed.all_until("container destroy")?;
    let out = "volume mount; container archive-path; volume unmount";
    let expected = [
        "container create",
        out,
        // What is there is looked at before.
        "volume mount; volume unmount",
        "volume mount; container extract-to-dir; volume unmount",
        "volume mount; network connect; container start",
        out,
        "container kill; network disconnect; volume unmount; container die; container destroy",
    ];
    ensure!(told == expected.join("; "), "{told}");
    Ok(())
}

fn a_start_that_fails_is_no_connection(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let created = on
        .api()
        .post("/containers/create?name=events-fail", &json!({"Image": "busybox", "Cmd": ["/nothing"]}))?;
    let id = created.json()?["Id"].as_str().context("no id")?.to_owned();
    let followed = Followed::since(on, &[&id], "container create")?;
    ensure!(docker.run(["start", "events-fail"])?.status == 1);
    docker.ok(["rm", "events-fail"])?;
    let told = followed.all_until("container destroy")?;
    ensure!(told == "container create; network disconnect; container destroy", "{told}");
    Ok(())
}

/// Of four containers one has both, the image and the label.
fn filters_choose_by_image_and_label(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["tag", "busybox", "events-image-chosen:v1"])?;
    let create = |name: &str, image: &str, label: &str| {
        docker.ok(["create", "--name", name, "--label", label, image, "true"])
    };
    create("events-f1", "busybox", "events-chosen=yes")?;
    create("events-f2", "events-image-chosen:v1", "events-chosen=no")?;
    create("events-f3", "events-image-chosen:v1", "other=yes")?;
    let chosen = create("events-f4", "events-image-chosen:v1", "events-chosen=yes")?;
    let filters = ["--filter", "image=events-image-chosen", "--filter", "label=events-chosen=yes"];
    let follow = [&["events", "--since", "0", "--format", "{{.Action}} {{.ID}}"], &filters[..]].concat();
    let mut follows = docker.spawn(follow)?;
    let mut lines = BufReader::new(follows.stdout.take().context("spawned with a pipe")?).lines();
    let mut next = || -> Result<String> { Ok(lines.next().context("the events ended")??) };
    // It is there once it has told of what has been.
    let mut told = vec![next()?];
    for name in ["events-f1", "events-f2", "events-f3", "events-f4"] {
        docker.ok(["start", "-a", name])?;
        docker.ok(["rm", name])?;
    }
    let last = format!("destroy {chosen}");
    while told.last() != Some(&last) {
        told.push(next()?);
    }
    follows.kill()?;
    follows.wait()?;
    docker.ok(["rmi", "events-image-chosen:v1"])?;
    let expected = ["create", "start", "die", "destroy"].map(|action| format!("{action} {chosen}"));
    // Whoever starts a container and sees what it writes is attached to it, which is told before its start.
    told.retain(|event| !event.starts_with("attach "));
    ensure!(told == expected, "{told:?}");
    Ok(())
}
