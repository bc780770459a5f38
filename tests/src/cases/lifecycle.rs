//! What is done to a container between its start and its end, and after: rename, pause, signals, waits, prune.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::containers::wait_for_log;
use crate::cases;
use crate::subject::Subject;

cases![
    a_renamed_container_is_found_by_its_new_name_only,
    a_rename_is_refused_in_words,
    a_paused_container_stands_still,
    a_paused_container_ends_when_it_is_stopped,
    signals_go_by_name_and_number,
    stop_sends_the_signal_that_was_asked_for,
    a_wait_for_the_next_exit_does_not_take_the_last,
    a_wait_for_the_removal_outlasts_the_end,
    a_wait_for_the_removal_ends_with_one_that_nobody_asks_for,
    restart_stops_and_starts_in_order,
    links_are_removed_by_their_own_name,
    prune_takes_what_its_filters_say,
];

/// A script that says `up`, then what signals it got, and goes on.
fn listener(name: &str, signals: &str) -> Vec<String> {
    let traps: String =
        signals.split(' ').map(|signal| format!("trap 'echo got {signal}' {signal}; ")).collect();
    let script = format!("{traps}echo up; while :; do sleep 1000 & wait; done");
    ["run", "-d", "--name", name, "busybox", "sh", "-c", &script].map(str::to_owned).into()
}

fn inspect(on: &dyn Subject, container: &str, format: &str) -> Result<String> {
    on.docker().ok(["inspect", "-f", format, container])
}

/// What happened to a container so far, in order.
pub(super) fn actions(on: &dyn Subject, id: &str) -> Result<Vec<String>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 1;
    let filter = format!("container={id}");
    let until = now.to_string();
    let all = on.docker().ok([
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--filter",
        &filter,
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ])?;
    Ok(all.lines().map(str::to_owned).collect())
}

fn a_renamed_container_is_found_by_its_new_name_only(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "before", "busybox"])?;
    docker.ok(["rename", "before", "after"])?;
    ensure!(inspect(on, "after", "{{.Id}} {{.Name}}")? == format!("{id} /after"));
    ensure!(docker.run(["inspect", "--type", "container", "before"])?.status == 1);
    docker.ok(["create", "--name", "before", "busybox"])?;
    ensure!(docker.ok(["ps", "-a", "--format", "{{.Names}}", "--filter", "name=^after$"])? == "after");
    ensure!(actions(on, &id)? == ["create", "rename"]);
    docker.ok(["rename", "after", "/with-slash"])?;
    docker.ok(["rm", "before", "with-slash"])?;
    Ok(())
}

fn a_rename_is_refused_in_words(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "renamed", "busybox"])?;
    docker.ok(["create", "--name", "holder", "busybox"])?;
    for (name, words) in [
        ("holder", "The container name \"/holder\" is already in use by container"),
        ("renamed", "Renaming a container with the same name as its current name"),
        ("-x", "Invalid container name (/-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ] {
        let answer = on.api().post(&format!("/containers/renamed/rename?name={name}"), &Value::Null)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.json()?["message"].as_str().is_some_and(|m| m.contains(words)), "{name}: {text}");
    }
    ensure!(inspect(on, "renamed", "{{.Name}}")? == "/renamed");
    docker.ok(["rm", "renamed", "holder"])?;
    Ok(())
}

fn a_paused_container_stands_still(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(listener("paused", "USR1"))?;
    wait_for_log(on, "paused", "up")?;
    docker.ok(["pause", "paused"])?;
    let state = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
    ensure!(inspect(on, "paused", state)? == "paused true true");
    let listed = docker.ok([
        "ps",
        "--format",
        "{{.State}} {{.Status}}",
        "--filter",
        "status=paused",
        "--filter",
        "name=^paused$",
    ])?;
    ensure!(listed.starts_with("paused Up ") && listed.ends_with(" (Paused)"), "{listed}");
    for (args, words) in [
        (&["pause", "paused"][..], "is already paused"),
        (&["rm", "paused"], "container is paused and must be unpaused first"),
        (&["start", "paused"], "cannot start a paused container, try unpause instead"),
    ] {
        let answer = docker.run(args)?;
        ensure!(answer.status != 0 && answer.err.contains(words), "{args:?}: {answer:?}");
    }
    docker.ok(["unpause", "paused"])?;
    ensure!(inspect(on, "paused", state)? == "running true false");
    let answer = docker.run(["unpause", "paused"])?;
    ensure!(answer.err.contains("is not paused"), "{answer:?}");
    docker.ok(["kill", "-s", "USR1", "paused"])?;
    wait_for_log(on, "paused", "got USR1")?;
    docker.ok(["rm", "-f", "paused"])?;
    ensure!(actions(on, &id)? == ["create", "start", "pause", "unpause", "kill", "kill", "die", "destroy"]);
    Ok(())
}

fn a_paused_container_ends_when_it_is_stopped(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (name, end) in
        [("frozen-stop", &["stop", "-t", "30", "frozen-stop"][..]), ("frozen-kill", &["kill", "frozen-kill"])]
    {
        let script = "trap 'exit 6' TERM; echo up; while :; do sleep 1000 & wait; done";
        docker.ok(["run", "-d", "--name", name, "busybox", "sh", "-c", script])?;
        wait_for_log(on, name, "up")?;
        docker.ok(["pause", name])?;
        docker.ok(end)?;
        let code = docker.ok(["wait", name])?;
        ensure!(code == if end[0] == "stop" { "6" } else { "137" }, "{name}: {code}");
        ensure!(inspect(on, name, "{{.State.Status}} {{.State.Paused}}")? == "exited false");
        docker.ok(["rm", name])?;
    }
    Ok(())
}

fn signals_go_by_name_and_number(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(listener("listens", "HUP USR1 USR2 WINCH"))?;
    wait_for_log(on, "listens", "up")?;
    for (signal, name) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("usr2", "USR2"), ("28", "WINCH")] {
        docker.ok(["kill", "-s", signal, "listens"])?;
        wait_for_log(on, "listens", &format!("got {name}"))?;
    }
    let answer = docker.run(["kill", "-s", "NONE", "listens"])?;
    ensure!(answer.status == 1 && answer.err.to_lowercase().contains("invalid signal: none"), "{answer:?}");
    docker.ok(["rm", "-f", "listens"])?;
    let answer = docker.run(["kill", "listens"])?;
    ensure!(answer.err.contains("No such container: listens"), "{answer:?}");
    Ok(())
}

fn stop_sends_the_signal_that_was_asked_for(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "trap 'exit 3' USR1; trap 'exit 4' USR2; echo up; while :; do sleep 1000 & wait; done";
    for (name, options, stop, code) in [
        ("own-signal", &["--stop-signal", "USR1"][..], &["stop", "own-signal"][..], "3"),
        ("asked-signal", &["--stop-signal", "USR1"], &["stop", "-s", "USR2", "asked-signal"], "4"),
        ("no-grace", &["--stop-timeout", "0"], &["stop", "no-grace"], "137"),
    ] {
        let args = [&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", script]].concat();
        docker.ok(args)?;
        wait_for_log(on, name, "up")?;
        docker.ok(stop)?;
        ensure!(inspect(on, name, "{{.State.ExitCode}}")? == code, "{name}");
        docker.ok(["rm", name])?;
    }
    Ok(())
}

/// A wait that has begun: its answer's head has come, its body comes with what it waits for.
fn begun(on: &dyn Subject, container: &str, condition: &str) -> Result<UnixStream> {
    let path = format!("/containers/{container}/wait?condition={condition}");
    // The connection's end is the body's.
    let (head, body) = on.api().open(&path, &[("Connection", "close")], &Value::Null)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body)
}

/// What a wait tells at its end.
fn told(mut wait: UnixStream) -> Result<Value> {
    let mut body = String::new();
    wait.read_to_string(&mut body)?;
    // It comes in chunks, whose lengths are on lines of their own.
    let told = body.lines().find(|line| line.starts_with('{')).with_context(|| body.clone())?;
    Ok(serde_json::from_str(told)?)
}

fn a_wait_for_the_next_exit_does_not_take_the_last(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "test -e /ran && exit 5; touch /ran; exit 4";
    docker.ok(["create", "--name", "next", "busybox", "sh", "-c", script])?;
    docker.ok(["start", "-a", "next"]).err().context("it ends with 4")?;
    let wait = begun(on, "next", "next-exit")?;
    docker.ok(["start", "next"])?;
    let next = told(wait)?;
    ensure!(next == json!({"StatusCode": 5}), "{next}");
    ensure!(on.api().post("/containers/next/wait", &Value::Null)?.json()? == json!({"StatusCode": 5}));
    docker.ok(["rm", "next"])?;
    Ok(())
}

fn a_wait_for_the_removal_outlasts_the_end(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "removed-last", "busybox", "sh", "-c", "exit 7"])?;
    let wait = begun(on, "removed-last", "removed")?;
    docker.run(["start", "-a", "removed-last"])?;
    ensure!(docker.ok(["wait", "removed-last"])? == "7");
    wait.set_nonblocking(true)?;
    let early = (&wait).read(&mut [0]).map_err(|error| error.kind());
    ensure!(early == Err(ErrorKind::WouldBlock), "{early:?} before the removal");
    wait.set_nonblocking(false)?;
    docker.ok(["rm", "removed-last"])?;
    let told = told(wait)?;
    ensure!(told == json!({"StatusCode": 7}), "{told}");
    Ok(())
}

fn a_wait_for_the_removal_ends_with_one_that_nobody_asks_for(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--rm", "--name", "removed-itself", "busybox", "sh", "-c", "exit 7"])?;
    let waits = ["removed", "next-exit"].map(|condition| begun(on, "removed-itself", condition));
    docker.ok(["start", "removed-itself"])?;
    let [removed, ended] = waits;
    let (removed, ended) = (told(removed?)?, told(ended?)?);
    ensure!(removed == json!({"StatusCode": 7}) && ended == removed, "{removed} {ended}");
    let gone = on.api().get("/containers/removed-itself/json")?;
    ensure!(gone.status == 404, "{}", gone.json()?);
    Ok(())
}

fn restart_stops_and_starts_in_order(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id =
        docker.ok(["run", "-d", "--name", "ordered", "--stop-signal", "KILL", "busybox", "sleep", "1000"])?;
    docker.ok(["restart", "ordered"])?;
    ensure!(inspect(on, "ordered", "{{.State.Status}} {{.RestartCount}}")? == "running 0");
    docker.ok(["stop", "ordered"])?;
    docker.ok(["restart", "ordered"])?;
    ensure!(inspect(on, "ordered", "{{.State.Status}}")? == "running");
    docker.ok(["rm", "-f", "ordered"])?;
    // dockerd tells of a stop and of the end that it brought in any order.
    let order = actions(on, &id)?.join(" ").replace("stop die", "die stop");
    let expected = "create start kill die stop start restart kill die stop start restart kill die destroy";
    ensure!(order == expected, "{order}");
    Ok(())
}

fn links_are_removed_by_their_own_name(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "unlinked", "busybox"])?;
    let answer = docker.run(["rm", "--link", "unlinked"])?;
    ensure!(
        answer.status == 1
            && answer.err.contains("Conflict, cannot remove the default link name of the container"),
        "{answer:?}"
    );
    let answer = docker.run(["rm", "--link", "unlinked/alias"])?;
    ensure!(answer.status == 1, "{answer:?}");
    docker.ok(["rm", "-v", "unlinked"])?;
    Ok(())
}

fn prune_takes_what_its_filters_say(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (name, keep) in [("pruned", "a=b"), ("kept", "keep=yes")] {
        docker.ok(["create", "--name", name, "--label", "pruning=yes", "--label", keep, "busybox"])?;
    }
    docker.ok([
        "run",
        "-d",
        "--name",
        "kept-running",
        "--label",
        "pruning=yes",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let prune = |filters: &str| -> Result<Value> {
        let filters: String = filters.bytes().map(|b| format!("%{b:02x}")).collect();
        on.api().post(&format!("/containers/prune?filters={filters}"), &Value::Null)?.json()
    };
    let none = prune(r#"{"label":["pruning=yes"],"until":["1h"]}"#)?;
    ensure!(none == json!({"ContainersDeleted": null, "SpaceReclaimed": 0}), "{none}");
    let one = prune(r#"{"label":["pruning=yes"],"label!":["keep"]}"#)?;
    ensure!(one["ContainersDeleted"].as_array().is_some_and(|ids| ids.len() == 1), "{one}");
    let listed = docker.ok(["ps", "-a", "--format", "{{.Names}}", "--filter", "label=pruning=yes"])?;
    ensure!(listed == "kept-running\nkept", "{listed}");
    ensure!(prune(r#"{"nope":["x"]}"#)?["message"] == "invalid filter 'nope'");
    docker.ok(["rm", "-f", "kept", "kept-running"])?;
    Ok(())
}
