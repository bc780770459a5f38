//! The engine's process: started, watched, started again when it ends, stopped in the end.
//!
//! Containers outlive an engine that crashes (each has a shim of its own), so a new one is started at once, and only
//! one that keeps crashing is given time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use caisson_guest_proto::{
    FromGuest, GUEST_CONTAINER_ENVIRONMENT, GUEST_ENGINE_SOCKET, GUEST_HOST_AUTHORITIES, GUEST_HOST_PROXIES,
    GUEST_HOST_ROUTES, GUEST_PORTS_SOCKET, GUEST_REGISTRY_CERTIFICATES, GUEST_REGISTRY_SETTINGS,
    HOST_ADDRESS,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::children::{Children, Exit, Started};
use crate::disk;
use crate::link::Outbox;

const PROGRAM: &str = "/usr/bin/caisson-engine";
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// An engine that ran for so long has not failed to start.
const SETTLED: Duration = Duration::from_secs(30);
/// How often a starting engine is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long clients wait for the way out of the machine once the engine answers.
const WAY_OUT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the output of an engine that has ended is read on: a shim may hold its pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// The most that is taken for one line of output, in bytes; what follows counts as the next.
const LINE_LIMIT: u64 = 16 * 1024;

/// The engine and whoever waits for it.
pub(crate) struct Engine {
    children: Children,
    outbox: Arc<Outbox>,
    /// Whether it answers.
    up: watch::Sender<bool>,
    running: RefCell<Option<Pid>>,
    stopping: Cell<bool>,
}

impl Engine {
    pub(crate) fn new(children: Children, outbox: Arc<Outbox>, up: watch::Sender<bool>) -> Self {
        Self { children, outbox, up, running: RefCell::default(), stopping: Cell::new(false) }
    }

    /// Keeps an engine running until [`stop`](Self::stop).
    pub(crate) async fn keep_running(&self, way_out: &watch::Receiver<bool>) {
        let mut retry = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        while !self.stopping.get() {
            let started_at = Instant::now();
            let (status, tail) = self.run_once(way_out).await;
            if self.stopping.get() {
                return;
            }
            tracing::warn!("the engine ended: {status}");
            self.outbox.send(FromGuest::EngineDown { status, tail });
            if started_at.elapsed() >= SETTLED {
                retry.reset();
            }
            sleep(retry.next(rand::random())).await;
        }
    }

    /// Runs an engine to its end; returns how it ended and its last output.
    async fn run_once(&self, way_out: &watch::Receiver<bool>) -> (String, String) {
        let Started { pid, output, mut exit } = match self.children.start(&mut command()) {
            Ok(started) => started,
            Err(error) => return (format!("could not start {PROGRAM}: {error}"), String::new()),
        };
        self.running.replace(Some(pid));
        let tail = Rc::new(RefCell::new(Tail::default()));
        let mut reading = tokio::task::spawn_local(keep_tail(output, tail.clone()));
        let status = tokio::select! {
            status = &mut exit => status,
            () = self.announce(way_out.clone()) => exit.await,
        };
        self.running.replace(None);
        self.up.send_replace(false);
        if timeout(LAST_OUTPUT, &mut reading).await.is_err() {
            reading.abort();
        }
        let status = status.map_or_else(|_| "unknown".to_owned(), |exit: Exit| exit.to_string());
        (status, tail.take().text())
    }

    /// Waits until the engine answers and its pulls have a way, and says so.
    async fn announce(&self, mut way_out: watch::Receiver<bool>) {
        while !matches!(timeout(ANSWER_DEADLINE, ping()).await, Ok(Ok(true))) {
            sleep(ASK_EVERY).await;
        }
        tracing::info!("the engine answers");
        // The first wish of a client may well be a pull. A way that does not open is in the log, and the rest goes on.
        let _ = timeout(WAY_OUT_DEADLINE, way_out.wait_for(|open| *open)).await;
        self.up.send_replace(true);
        self.outbox.send(FromGuest::EngineUp);
    }

    /// Lets the engine stop its containers and itself, and kills it if that takes longer than `grace`.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.stopping.set(true);
        if !self.signal(Signal::TERM) {
            return;
        }
        let gone = async {
            while self.running.borrow().is_some() {
                sleep(ASK_EVERY).await;
            }
        };
        if timeout(grace, gone).await.is_err() {
            tracing::warn!("the engine did not stop within {grace:?}");
            self.signal(Signal::KILL);
        }
    }

    /// Sends a signal to the engine; false if there is none.
    fn signal(&self, signal: Signal) -> bool {
        // It cannot have been reaped unnoticed: whoever reaps it clears `running` on this same thread.
        self.running.borrow().is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--data-root", disk::MOUNTED_AT])
        .args(["--listen", &format!("unix://{GUEST_ENGINE_SOCKET}")])
        .args(["--exec-root", "/run/caisson/engine"])
        .args(["--shim", "/usr/bin/caisson-shim"])
        .args(["--ports-socket", GUEST_PORTS_SOCKET])
        .args(["--host-routes", GUEST_HOST_ROUTES])
        .args(["--host-gateway-ip", &HOST_ADDRESS.to_string()])
        .args(["--authorities", GUEST_HOST_AUTHORITIES])
        .args(["--proxies", GUEST_HOST_PROXIES])
        .args(["--registry-settings", GUEST_REGISTRY_SETTINGS])
        .args(["--registry-certificates", GUEST_REGISTRY_CERTIFICATES])
        .args(["--container-environment", GUEST_CONTAINER_ENVIRONMENT])
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Whether the engine answers `GET /_ping` with 200.
async fn ping() -> io::Result<bool> {
    let mut stream = UnixStream::connect(GUEST_ENGINE_SOCKET).await?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: caisson\r\nConnection: close\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}

/// Logs a process's output and keeps the end of it.
async fn keep_tail(output: impl AsyncRead + Unpin, tail: Rc<RefCell<Tail>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut output, &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        tracing::info!("engine: {text}");
        tail.borrow_mut().push(text);
    }
}

/// Reads a line, or as much of it as is taken for one: a process that never ends its line must not fill the memory, nor
/// a message to the host. False at the end.
async fn next_line(output: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(output.take(LINE_LIMIT).read_until(b'\n', line).await? > 0)
}

/// The last lines of an output.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// How much is kept, in bytes of text.
    const LIMIT: usize = 16 * 1024;

    fn push(&mut self, line: &str) {
        let end = line.floor_char_boundary(Self::LIMIT);
        self.bytes += end;
        self.lines.push_back(line[..end].to_owned());
        while self.bytes > Self::LIMIT {
            self.bytes -= self.lines.pop_front().map_or(0, |first| first.len());
        }
    }

    fn text(self) -> String {
        self.lines.into_iter().collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_lines_within_its_limit() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.push(&format!("{n:0>1000}"));
        }
        let text = tail.text();
        assert!(text.len() <= Tail::LIMIT + 16, "{}", text.len());
        assert_eq!(text.lines().count(), 16);
        assert!(text.ends_with("99"));
    }

    #[tokio::test]
    async fn an_output_without_line_ends_comes_in_lines_of_a_bounded_length() {
        let limit = LINE_LIMIT as usize;
        let output = [vec![b'x'; 2 * limit + 1], b"\nnext\n".to_vec()].concat();
        let (mut output, mut line, mut lengths) = (output.as_slice(), Vec::new(), Vec::new());
        while next_line(&mut output, &mut line).await.unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [limit, limit, 2, 5]);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_cut_between_characters() {
        let mut tail = Tail::default();
        tail.push("before");
        tail.push(&"ü".repeat(Tail::LIMIT));
        let text = tail.text();
        assert_eq!(text.len(), Tail::LIMIT);
        assert!(text.chars().all(|character| character == 'ü'));
    }
}
