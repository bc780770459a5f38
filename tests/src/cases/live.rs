//! Live streams of containers: slow readers, detach keys, sizes, websockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bounded::until;
use crate::cases;
use crate::subject::Subject;

cases![
    the_detach_keys_leave_a_container_running,
    a_terminal_is_resized,
    the_past_comes_before_the_present,
    several_clients_share_a_container,
    a_slow_reader_loses_nothing,
    what_a_container_wrote_outlives_its_removal,
    a_reader_that_goes_holds_nothing_up,
    the_end_of_a_client_s_input_lets_it_go,
    a_websocket_carries_both_ways,
    what_is_no_websocket_is_refused,
    bytes_of_any_kind_pass,
];

const UPGRADE: [(&str, &str); 2] = [("Upgrade", "tcp"), ("Connection", "Upgrade")];

fn attach(on: &dyn Subject, name: &str, query: &str) -> Result<(String, UnixStream)> {
    on.api().open(&format!("/containers/{name}/attach?{query}"), &UPGRADE, &Value::Null)
}

fn the_detach_keys_leave_a_container_running(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-dit", "--name", "detached", "busybox", "cat"])?;
    for (keys, typed) in [("", &b"\x10\x11"[..]), ("&detachKeys=ctrl-a,x", b"\x01x")] {
        let query = format!("stream=1&stdin=1&stdout=1{keys}");
        let (_, mut stream) = attach(on, "detached", &query)?;
        stream.write_all(b"hi")?;
        let mut echo = [0; 2];
        stream.read_exact(&mut echo)?;
        stream.write_all(typed)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        ensure!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
    ensure!(on.docker().ok(["inspect", "-f", "{{.State.Running}}", "detached"])? == "true");
    let answer = on.api().post("/containers/detached/attach?detachKeys=foo", &Value::Null)?;
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status == 400 && told.contains("Invalid detach keys (foo) provided"), "{told}");
    on.docker().ok(["rm", "-f", "detached"])?;
    Ok(())
}

fn a_terminal_is_resized(on: &dyn Subject) -> Result<()> {
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done";
    on.docker().ok(["create", "-t", "--name", "resized", "busybox", "sh", "-c", script])?;
    let (_, mut stream) = attach(on, "resized", "stream=1&stdout=1")?;
    on.docker().ok(["start", "resized"])?;
    let mut ready = [0; 7];
    stream.read_exact(&mut ready)?;
    ensure!(on.api().post("/containers/resized/resize?h=33&w=44", &Value::Null)?.status == 200);
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    ensure!(rest == "33 44\r\n", "{rest:?}");
    on.docker().ok(["rm", "-f", "resized"])?;
    Ok(())
}

fn the_past_comes_before_the_present(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-di", "--name", "past", "busybox", "sh", "-c", "echo before; cat"])?;
    super::containers::wait_for_log(on, "past", "before")?;
    let (_, mut stream) = attach(on, "past", "logs=1&stream=1&stdin=1&stdout=1")?;
    let mut before = [0; 15];
    stream.read_exact(&mut before)?;
    ensure!(before.ends_with(b"before\n"), "{before:?}");
    stream.write_all(b"now\n")?;
    let mut now = [0; 12];
    stream.read_exact(&mut now)?;
    ensure!(now.ends_with(b"now\n"), "{now:?}");
    let answer = on.api().post("/containers/past/attach?logs=1&stdout=1", &Value::Null)?;
    ensure!(answer.body.windows(6).any(|bytes| bytes == b"before"), "{:?}", answer.body);
    on.docker().ok(["rm", "-f", "past"])?;
    Ok(())
}

fn several_clients_share_a_container(on: &dyn Subject) -> Result<()> {
    on.docker().ok([
        "create",
        "-i",
        "--name",
        "shared",
        "busybox",
        "sh",
        "-c",
        "read line; echo got $line",
    ])?;
    let query = "stream=1&stdin=1&stdout=1&stderr=1";
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(attach(on, "shared", query)?.1);
    }
    on.docker().ok(["start", "shared"])?;
    streams[2].write_all(b"it\n")?;
    for stream in &mut streams {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        ensure!(all.ends_with(b"got it\n"), "{:?}", String::from_utf8_lossy(&all));
    }
    on.docker().ok(["rm", "shared"])?;
    Ok(())
}

/// How much a container writes at a reader that does not read: more than all buffers hold, on the way and in the log's file system.
const MUCH: usize = 6 << 20;

fn a_slow_reader_loses_nothing(on: &dyn Subject) -> Result<()> {
    let script = format!("head -c {MUCH} /dev/zero");
    on.docker().ok(["create", "--log-driver", "none", "--name", "slow", "busybox", "sh", "-c", &script])?;
    let (_, mut slow) = attach(on, "slow", "stream=1&stdout=1")?;
    on.docker().ok(["start", "slow"])?;
    let mut first = [0; 8];
    slow.read_exact(&mut first)?;
    // Whoever asks is answered, whoever else reads is served, while that one does not.
    ensure!(on.api().get("/containers/slow/json")?.status == 200);
    let mut all = first.to_vec();
    slow.read_to_end(&mut all)?;
    let bytes: usize = contents(&all).iter().map(|part| part.len()).sum();
    ensure!(bytes == MUCH, "{bytes} bytes came");
    on.docker().ok(["rm", "-f", "slow"])?;
    Ok(())
}

/// More than fits into the sockets on the way, and less than with what the container's shim keeps for a client.
const LEFT_OVER: usize = 500_000;

fn what_a_container_wrote_outlives_its_removal(on: &dyn Subject) -> Result<()> {
    let script = format!("head -c {LEFT_OVER} /dev/zero");
    on.docker().ok(["create", "--rm", "--name", "left-over", "busybox", "sh", "-c", &script])?;
    let (_, mut slow) = attach(on, "left-over", "stream=1&stdout=1")?;
    on.docker().ok(["start", "left-over"])?;
    until("the container's removal", || {
        Ok((on.api().get("/containers/left-over/json")?.status == 404).then_some(()))
    })?;
    let mut all = Vec::new();
    slow.read_to_end(&mut all)?;
    let bytes: usize = contents(&all).iter().map(|part| part.len()).sum();
    ensure!(bytes == LEFT_OVER, "{bytes} bytes came");
    Ok(())
}

/// What is in the frames of a multiplexed stream.
fn contents(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (part, rest) = rest.split_at(length.min(rest.len()));
        parts.push(part);
        stream = rest;
    }
    parts
}

fn a_reader_that_goes_holds_nothing_up(on: &dyn Subject) -> Result<()> {
    let script = format!("head -c {MUCH} /dev/zero; echo done >&2; exit 5");
    on.docker().ok(["create", "--log-driver", "none", "--name", "gone", "busybox", "sh", "-c", &script])?;
    let (_, mut reader) = attach(on, "gone", "stream=1&stdout=1")?;
    on.docker().ok(["start", "gone"])?;
    reader.read_exact(&mut [0; 8])?;
    drop(reader);
    ensure!(on.docker().ok(["wait", "gone"])? == "5");
    on.docker().ok(["rm", "gone"])?;
    Ok(())
}

fn the_end_of_a_client_s_input_lets_it_go(on: &dyn Subject) -> Result<()> {
    for (name, options) in [("letgo1", &["-di"][..]), ("letgo2", &["-dit"])] {
        on.docker().ok([&["run"], options, &["--name", name, "busybox", "cat"]].concat())?;
        let (_, mut stream) = attach(on, name, "stream=1&stdin=1&stdout=1")?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        ensure!(on.docker().ok(["inspect", "-f", "{{.State.Running}}", name])? == "true", "{name}");
        on.docker().ok(["rm", "-f", name])?;
    }
    Ok(())
}

/// A client's frame, masked with zeros: as it is.
fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0x80 | kind, 0x80 | content.len() as u8, 0, 0, 0, 0], content].concat()
}

fn websocket(on: &dyn Subject, path: &str) -> Result<(String, UnixStream)> {
    let headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "http://localhost"),
    ];
    on.api().get_open(path, &headers)
}

fn a_websocket_carries_both_ways(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-di", "--name", "socket", "busybox", "sh", "-c", "echo past; cat"])?;
    super::containers::wait_for_log(on, "socket", "past")?;
    let query = "stream=1&stdin=1&stdout=1&stderr=1";
    let (head, mut stream) = websocket(on, &format!("/v1.45/containers/socket/attach/ws?{query}&logs=1"))?;
    ensure!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    ensure!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    let mut past = [0; 7];
    stream.read_exact(&mut past)?;
    ensure!(past == *b"\x82\x05past\n", "a binary frame: {past:?}");
    stream.write_all(&frame(2, b"ping\n"))?;
    let mut echo = [0; 7];
    stream.read_exact(&mut echo)?;
    ensure!(echo == *b"\x82\x05ping\n", "{echo:?}");
    on.docker().ok(["kill", "socket"])?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest == b"\x88\x02\x03\xe8", "it is closed in order: {rest:?}");
    on.docker().ok(["rm", "-f", "socket"])?;
    Ok(())
}

fn what_is_no_websocket_is_refused(on: &dyn Subject) -> Result<()> {
    let missing = on.api().get("/containers/none-such/attach/ws?stream=1")?;
    ensure!(missing.status == 404 && missing.json()?["message"] == "No such container: none-such");
    on.docker().ok(["create", "--name", "nosocket", "busybox"])?;
    let (head, _) = on.api().get_open("/containers/nosocket/attach/ws?stream=1", &[])?;
    ensure!(head.starts_with("HTTP/1.1 400 "), "{head}");
    on.docker().ok(["rm", "nosocket"])?;
    Ok(())
}

fn bytes_of_any_kind_pass(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["create", "-i", "-a", "stdin", "-a", "stdout", "--name", "anykind", "busybox", "cat"])?;
    let (_, mut stream) = attach(on, "anykind", "stream=1&stdin=1&stdout=1")?;
    on.docker().ok(["start", "anykind"])?;
    let input: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let (mut writer, fed) = (stream.try_clone()?, input.clone());
    let feeding = std::thread::spawn(move || -> std::io::Result<()> {
        writer.write_all(&fed)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    feeding.join().ok().context("the feeder")??;
    ensure!(contents(&all).concat() == input, "{} bytes came back", all.len());
    on.docker().ok(["rm", "-f", "anykind"])?;
    Ok(())
}
