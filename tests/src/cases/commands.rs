//! Every command of the CLI that talks to an engine, one after the other: each does what it is for, or is refused in words. What more there
//! is to say of each is said by the other cases.
//!
//! Not here: builds, and what would make the reference a node of a swarm. The prunes are bound to this case's own things, because others
//! run beside it; `compose` has cases of its own.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hyper::Method;

use crate::cases;
use crate::fixtures;
use crate::subject::{Case, Subject};

cases![every_command_runs, an_image_goes_out_by_a_call_of_its_own];

/// What Caisson has not says so: a swarm of its own, plugins.
pub const OURS: &[Case] = &[Case { name: "what_there_is_not_says_so", run: what_there_is_not_says_so }];

/// How a command ends.
enum End {
    /// Well, and its output has this in it.
    Says(&'static str),
    /// Badly, and its complaint has this in it.
    Refuses(&'static str),
    /// Well, or badly where the system lacks what it takes.
    SaysOrLacks(&'static str, &'static str),
}
use End::{Refuses, Says, SaysOrLacks};

/// `{dir}` stands for a folder of the case's own, `{soon}` for a moment after which nothing is waited for.
const COMMANDS: &[(&str, End)] = &[
    ("version", Says("Server:")),
    ("info", Says("Storage Driver: overlay2")),
    ("run -d --name cmd1 -p 127.0.0.1::80 --label of=commands busybox sleep 1000", Says("")),
    ("run --rm busybox echo ran", Says("ran")),
    ("create --name cmd2 --label of=commands busybox echo created", Says("")),
    ("start cmd2", Says("cmd2")),
    ("wait cmd2", Says("0")),
    ("start -a cmd2", Says("created")),
    ("ps -a --filter name=cmd", Says("cmd2")),
    ("ps -s --filter name=cmd1", Says("(virtual ")),
    ("inspect cmd1", Says("\"Name\": \"/cmd1\"")),
    ("logs cmd2", Says("created\ncreated")),
    ("top cmd1", Says("sleep 1000")),
    ("stats --no-stream cmd1", Says("cmd1")),
    ("exec cmd1 touch /touched", Says("")),
    ("diff cmd1", Says("A /touched")),
    ("port cmd1", Says("80/tcp -> 127.0.0.1:")),
    ("exec cmd1 cat /etc/hostname", Says("")),
    ("exec -d cmd1 true", Says("")),
    ("attach --no-stdin cmd2", Refuses("cannot attach to a stopped container")),
    ("cp cmd1:/etc/passwd {dir}/p", Says("")),
    ("cp {dir}/p cmd1:/f", Says("")),
    ("exec cmd1 cat /f", Says("root:")),
    ("export -o {dir}/e cmd1", Says("")),
    ("commit cmd1 cmd-ci", Says("sha256:")),
    ("update -m 100m --memory-swap 200m cmd1", SaysOrLacks("cmd1", "has no memory controller here")),
    ("update --restart on-failure:2 cmd1", Says("cmd1")),
    ("rename cmd2 cmd3", Says("")),
    ("pause cmd1", Says("cmd1")),
    ("unpause cmd1", Says("cmd1")),
    ("kill -s USR1 cmd1", Says("cmd1")),
    ("restart -t 0 cmd1", Says("cmd1")),
    ("stop -t 0 cmd1", Says("cmd1")),
    ("wait cmd1", Says("137")),
    ("rm -f cmd3", Says("cmd3")),
    ("container prune -f --filter label=of=commands", Says("Deleted Containers:")),
    ("images", Says("busybox")),
    ("image inspect busybox", Says("\"RootFS\"")),
    ("history busybox", Says("IMAGE")),
    ("tag busybox cmd-b2", Says("")),
    ("save -o {dir}/s cmd-b2", Says("")),
    ("load -i {dir}/s", Says("Loaded image: cmd-b2:latest")),
    ("import {dir}/e cmd-imp", Says("sha256:")),
    ("pull 127.0.0.1:1/nothing", Refuses("Error response from daemon: ")),
    ("push 127.0.0.1:1/nothing", Refuses("does not exist locally with the tag: 127.0.0.1:1/nothing")),
    ("rmi cmd-b2 cmd-ci cmd-imp", Says("Untagged: cmd-b2:latest")),
    ("image prune -f --filter label=of=commands", Says("Total reclaimed space: 0B")),
    ("login -u a -p b 127.0.0.1:1", Refuses("Error response from daemon: ")),
    ("network ls", Says("bridge")),
    ("network create --label of=commands cmd-n1", Says("")),
    ("network inspect cmd-n1", Says("\"Driver\": \"bridge\"")),
    ("run -d --name cmd4 --label of=commands busybox sleep 1000", Says("")),
    // At once: an engine keeps the last 256 events of all containers.
    (
        "events --since 1h --until {soon} --filter image=busybox --filter label=of=commands --filter event=start",
        Says("name=cmd4"),
    ),
    ("events --since 1h --until {soon} --filter container=cmd4", Says("container start")),
    ("network connect cmd-n1 cmd4", Says("")),
    ("network disconnect cmd-n1 cmd4", Says("")),
    ("network rm cmd-n1", Says("cmd-n1")),
    ("network create --label of=commands cmd-n2", Says("")),
    ("network prune -f --filter label=of=commands", Says("cmd-n2")),
    ("volume create --label of=commands cmd-v1", Says("cmd-v1")),
    ("volume ls", Says("cmd-v1")),
    ("system df -v", Says("cmd-v1")),
    ("volume inspect cmd-v1", Says("\"Driver\": \"local\"")),
    ("volume rm cmd-v1", Says("cmd-v1")),
    ("volume create --label of=commands cmd-v2", Says("cmd-v2")),
    ("volume prune -a -f --filter label=of=commands", Says("cmd-v2")),
    ("system df", Says("Local Volumes")),
    ("system df -v", Says("cmd4")),
    ("rm -f cmd4", Says("cmd4")),
    ("context ls", Says("default")),
    ("plugin ls", Says("NAME")),
    ("node ls", Refuses("This node is not a swarm manager.")),
    ("service ls", Refuses("This node is not a swarm manager.")),
    ("swarm leave -f", Refuses("This node is not part of a swarm")),
];

fn every_command_runs(on: &dyn Subject) -> Result<()> {
    let folder = tempfile::tempdir_in(fixtures::scratch()?)?;
    for (line, end) in COMMANDS {
        run(on, line, end, folder.path())?;
    }
    Ok(())
}

/// `docker save` asks for images by their names in the query, for one as for many; other clients ask the image.
fn an_image_goes_out_by_a_call_of_its_own(on: &dyn Subject) -> Result<()> {
    let (docker, api) = (on.docker(), on.api());
    let name = "cmd-get/out:v1";
    let made = docker.feed(["import", "-", name], &fixtures::root_archive()?)?.ok()?;
    let saved = api.get(&format!("/images/{name}/get"))?;
    let kind = saved.headers.get("content-type");
    ensure!(saved.status == 200 && kind.is_some_and(|kind| kind == "application/x-tar"), "{kind:?}");
    docker.ok(["rmi", name])?;
    ensure!(docker.run(["image", "inspect", &made])?.status == 1, "{name} is still there");
    let tar = [("content-type", "application/x-tar")];
    let loaded = api.call(Method::POST, "/images/load?quiet=1", &tar, saved.body)?;
    let told = String::from_utf8_lossy(&loaded.body).into_owned();
    ensure!(loaded.status == 200 && told.contains(&format!("Loaded image: {name}")), "{told}");
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", name])? == made);
    docker.ok(["rmi", name])?;
    ensure!(api.get(&format!("/images/{name}/get"))?.status == 404);
    Ok(())
}

fn what_there_is_not_says_so(on: &dyn Subject) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for line in ["swarm init", "plugin install x"] {
        run(on, line, &Refuses("is not supported by Caisson "), folder.path())?;
    }
    Ok(())
}

fn run(on: &dyn Subject, line: &str, end: &End, folder: &Path) -> Result<()> {
    let folder = folder.to_str().context("a path that is no text")?;
    // The CLI tells times by whole seconds.
    let soon = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 2).to_string();
    let put = |word: &str| word.replace("{dir}", folder).replace("{soon}", &soon);
    let args: Vec<String> = line.split(' ').map(put).collect();
    let answer = on.docker().run(&args)?;
    let says = |words| answer.status == 0 && answer.out.contains(words);
    let refuses = |words| answer.status != 0 && answer.err.contains(words);
    let as_expected = match end {
        Says(words) => says(words),
        Refuses(words) => refuses(words),
        SaysOrLacks(words, lack) => says(words) || refuses(lack),
    };
    ensure!(as_expected, "docker {line}: {answer:?}");
    Ok(())
}
