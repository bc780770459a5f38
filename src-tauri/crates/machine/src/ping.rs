//! The engine's first answer: `GET /_ping` over the very way that Docker clients take.

use std::time::Duration;

use caisson_guest_proto::{Duplex, GUEST_API};
use caisson_hypervisor::{Vm, VsockStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout_at},
};

/// How long to wait before asking again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long the head of an answer may be.
const LONGEST_HEAD: usize = 8 << 10;

/// Asks until the engine answers; after `limit`, tells why it did not at the last.
pub(crate) async fn until_answered(vm: &dyn Vm, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = String::from("no answer");
    while Instant::now() < deadline {
        match timeout_at(deadline, once(vm)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => last = why,
            Err(_) => break,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(last)
}

async fn once(vm: &dyn Vm) -> Result<(), String> {
    let stream = vm.connect(GUEST_API).await.map_err(|error| error.to_string())?;
    let head = ask(Duplex::new(stream)).await.map_err(|error| error.to_string())?;
    match head.lines().next() {
        Some(line) if line.starts_with("HTTP/1.") && line.split(' ').nth(1) == Some("200") => Ok(()),
        Some(line) => Err(format!("it said {line:?}")),
        None => Err("it closed the stream without an answer".into()),
    }
}

async fn ask(mut stream: Duplex<VsockStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: caisson\r\nConnection: close\r\n\r\n").await?;
    let mut head = Vec::new();
    while head.len() < LONGEST_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
