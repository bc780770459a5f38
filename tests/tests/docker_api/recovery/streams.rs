//! What is written to containers, and by them, over the end of an engine.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::until;
use caisson_tests::cases::copy::wait_for_file;
use caisson_tests::engine::Engine;
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

const UPGRADE: [(&str, &str); 2] = [("Upgrade", "tcp"), ("Connection", "Upgrade")];

fn attach(engine: &Engine, name: &str) -> Result<UnixStream> {
    let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    let (head, stream) = engine.api().open(&path, &UPGRADE, &Value::Null)?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Ok(stream)
}

/// Writes, and reads exactly what has to come back.
fn echoes(stream: &mut UnixStream, written: &[u8], expected: &[u8]) -> Result<()> {
    stream.write_all(written)?;
    let mut echo = vec![0; expected.len()];
    stream.read_exact(&mut echo)?;
    ensure!(echo == expected, "{:?}", String::from_utf8_lossy(&echo));
    Ok(())
}

/// A part of a multiplexed stream's standard output.
fn frame(content: &[u8]) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0, 0, content.len() as u8], content].concat()
}

/// A terminal, a standard input that outlives its clients, and one that ends with the first of them.
pub(super) fn streams_go_on_with_the_next_engine(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["run", "-dit", "--name", "terminal", "busybox", "cat"])?;
    docker.ok(["run", "-di", "--name", "many-clients", "busybox", "cat"])?;
    docker.ok(["create", "-i", "--name", "one-client", "busybox", "cat"])?;
    docker.ok(["start", "one-client"])?;
    // One that is attached when the engine ends is no last client.
    let mut attached = attach(engine, "many-clients")?;
    echoes(&mut attached, b"before\n", &frame(b"before\n"))?;
    engine.crash()?;
    engine.start_again()?;
    let mut terminal = attach(engine, "terminal")?;
    echoes(&mut terminal, b"hi\n", b"hi\r\nhi\r\n")?;
    ensure!(engine.api().post("/containers/terminal/resize?h=33&w=44", &Value::Null)?.status == 200);
    let size = docker.ok(["exec", "terminal", "stty", "-F", "/dev/pts/0", "size"])?;
    ensure!(size == "33 44", "{size}");
    let mut many = attach(engine, "many-clients")?;
    echoes(&mut many, b"hi\n", &frame(b"hi\n"))?;
    many.shutdown(Shutdown::Write)?;
    ensure!(many.read(&mut [0])? == 0, "its client is let go");
    ensure!(super::state(engine, "many-clients")? == "running 0");
    let mut one = attach(engine, "one-client")?;
    echoes(&mut one, b"hi\n", &frame(b"hi\n"))?;
    one.shutdown(Shutdown::Write)?;
    ensure!(one.read(&mut [0])? == 0, "the end of its input ends it");
    ensure!(docker.ok(["wait", "one-client"])? == "0");
    ensure!(
        docker.ok(["logs", "many-clients"])? == "before\nhi" && docker.ok(["logs", "one-client"])? == "hi"
    );
    docker.ok(["rm", "-f", "terminal", "many-clients", "one-client"])?;
    Ok(())
}

pub(super) fn clients_of_a_killed_engine_are_let_go(engine: &Engine) -> Result<()> {
    let (docker, api) = (engine.docker(), engine.api());
    docker.ok(["run", "-di", "--name", "lively", "busybox", "sh", "-c", "echo up; cat"])?;
    let mut follows = docker.spawn(["logs", "-f", "lively"])?;
    said(follows.stdout.as_mut().context("spawned with a pipe")?, "up\n")?;
    let mut attached = docker.spawn(["attach", "lively"])?;
    attached.stdin.as_mut().context("spawned with a pipe")?.write_all(b"typed\n")?;
    said(attached.stdout.as_mut().context("spawned with a pipe")?, "typed\n")?;
    let (_, mut events) = api.get_open("/events", &[])?;
    let (_, mut waits) = api.open("/containers/lively/wait", &[], &Value::Null)?;
    engine.crash()?;
    follows.wait_with_output()?;
    let attached = attached.wait_with_output()?;
    ensure!(!attached.status.success(), "the container has not ended: {attached:?}");
    for stream in [&mut events, &mut waits] {
        stream.read_to_end(&mut Vec::new())?;
    }
    engine.start_again()?;
    ensure!(super::state(engine, "lively")? == "running 0");
    docker.ok(["rm", "-f", "lively"])?;
    Ok(())
}

/// Nobody can write to it any more, which is the end of its input as when its client goes.
pub(super) fn an_added_process_outlives_its_client(engine: &Engine) -> Result<()> {
    let (docker, api) = (engine.docker(), engine.api());
    docker.ok(["run", "-d", "--name", "added-to", "busybox", "sleep", "1000"])?;
    let script = "cat; touch /over; while [ ! -e /go ]; do sleep 0.05; done; exit 3";
    let mut client = docker.spawn(["exec", "-i", "added-to", "sh", "-c", script])?;
    client.stdin.as_mut().context("spawned with a pipe")?.write_all(b"hi\n")?;
    said(client.stdout.as_mut().context("spawned with a pipe")?, "hi\n")?;
    let added = api.get("/containers/added-to/json")?.json()?["ExecIDs"][0].clone();
    let path = format!("/exec/{}/json", added.as_str().context("an id")?);
    let before = api.get(&path)?.json()?;
    engine.crash()?;
    let let_go = client.wait_with_output()?;
    ensure!(!let_go.status.success(), "{let_go:?}");
    engine.start_again()?;
    wait_for_file(engine, "added-to", "/over")?;
    let after = api.get(&path)?.json()?;
    ensure!(after["Running"] == true && after["Pid"] == before["Pid"], "{before} {after}");
    docker.ok(["exec", "added-to", "touch", "/go"])?;
    until("the process ends", || Ok((api.get(&path)?.json()?["Running"] == false).then_some(())))?;
    ensure!(api.get(&path)?.json()?["ExitCode"] == 3, "{}", api.get(&path)?.json()?);
    ensure!(docker.feed(["exec", "-i", "added-to", "cat"], b"again\n")?.ok()? == "again");
    docker.ok(["rm", "-f", "added-to"])?;
    Ok(())
}

/// Reads what a client has to say next.
fn said(client: &mut impl Read, expected: &str) -> Result<()> {
    let mut told = vec![0; expected.len()];
    client.read_exact(&mut told)?;
    ensure!(told == expected.as_bytes(), "{:?} instead of {expected:?}", String::from_utf8_lossy(&told));
    Ok(())
}

pub(super) fn processes_and_their_ends_outlive_a_killed_engine(engine: &Engine) -> Result<()> {
    let (docker, api) = (engine.docker(), engine.api());
    docker.ok(["run", "-d", "--name", "works", "busybox", "sleep", "1000"])?;
    let script = |code: u8| format!("while [ ! -e /go{code} ]; do sleep 0.05; done; exit {code}");
    let mut ids = Vec::new();
    for code in [3, 4, 5, 6] {
        let created =
            api.post("/containers/works/exec", &json!({"Cmd": ["sh", "-c", script(code)]}))?.json()?;
        ids.push(created["Id"].as_str().context("an id")?.to_owned());
    }
    let inspect = |id: &str| api.get(&format!("/exec/{id}/json"))?.json();
    let start = |id: &str| api.post(&format!("/exec/{id}/start"), &json!({"Detach": true}));
    // The first has ended before, the second ends while the engine is away, the third after; the fourth is started after.
    ids[..3].iter().try_for_each(|id| start(id).map(drop))?;
    docker.ok(["exec", "works", "touch", "/go3"])?;
    let ends = |id: &str| {
        until("the process ends", || Ok((inspect(id)?["Running"] == false).then_some(())))
            .with_context(|| format!("exec {id}"))
    };
    ends(&ids[0])?;
    let pid = inspect(&ids[2])?["Pid"].clone();
    let first = docker.ok(["inspect", "-f", "{{.State.Pid}}", "works"])?;
    engine.crash()?;
    engine.namespaces().shell(&format!("touch /proc/{first}/root/go4"))?;
    let waits = "while pgrep -f '[e]xit 4' > /dev/null; do sleep 0.05; done";
    engine.namespaces().shell(waits)?;
    engine.start_again()?;
    ensure!(inspect(&ids[0])?["ExitCode"] == 3, "{}", inspect(&ids[0])?);
    ensure!(inspect(&ids[1])?["ExitCode"] == 4, "{}", inspect(&ids[1])?);
    let running = inspect(&ids[2])?;
    ensure!(running["Running"] == true && running["Pid"] == pid, "{running}");
    docker.ok(["exec", "works", "touch", "/go5", "/go6"])?;
    ensure!(start(&ids[3])?.status == 200);
    for (id, code) in [(&ids[2], 5), (&ids[3], 6)] {
        ends(id)?;
        ensure!(inspect(id)?["ExitCode"] == code, "{}", inspect(id)?);
    }
    docker.ok(["rm", "-f", "works"])?;
    Ok(())
}

pub(super) fn a_follower_s_log_goes_on_after_a_crash(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let script =
        "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.1; done";
    docker.ok([
        "run",
        "-d",
        "--name",
        "talks",
        "--log-opt",
        "max-size=8k",
        "--log-opt",
        "max-file=100",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    for _ in 0..2 {
        engine.crash()?;
        engine.start_again()?;
    }
    let followed = docker.ok(["logs", "-f", "talks"])?;
    let expected: Vec<String> = (0..2000).map(|n| format!("line {n}")).collect();
    ensure!(
        followed == expected.join("\n"),
        "{} lines, the last {:?}",
        followed.lines().count(),
        followed.lines().last()
    );
    docker.ok(["rm", "-f", "talks"])?;
    Ok(())
}
