//! The Docker socket: clients wait in line while the machine comes up, and are served.

use crate::{Connection, Guest, Listener, serve_each};
use caisson_guest_proto::copy;
use caisson_machine::Unavailable;
use serde_json::json;
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};
use tracing::debug;

/// The most clients at once; more wait in the system's queue.
const MAX_CLIENTS: usize = 1024;

/// How long a failed boot answers for the clients that come after it. A docker command makes up to three connections (two
/// pings, then its request); without this each of them would boot the machine again, and wait for it to fail again.
const FAILURE_ANSWERS_FOR: Duration = Duration::from_secs(5);

/// How long a client may take to send its request and to read why it failed.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// The most of a request that is read to refuse it.
const REQUEST_HEAD_BYTES: usize = 64 << 10;

/// Serves Docker clients until dropped; its clients end with it.
pub async fn serve_api(listener: Listener, guest: impl Guest) {
    let door = Arc::new(Door { guest, last_failure: Mutex::default() });
    let serve = |client| {
        let door = door.clone();
        async move { door.serve(client).await }
    };
    serve_each(listener, MAX_CLIENTS, "Docker clients", serve).await;
}

struct Door<G> {
    guest: G,
    last_failure: Mutex<Option<(Instant, Arc<Refusal>)>>,
}

impl<G: Guest> Door<G> {
    async fn serve(&self, mut client: Connection) {
        let ended = match self.open().await {
            Ok(mut engine) => copy::both_ways(&mut client, &mut engine).await,
            Err(refusal) => refuse(client, &refusal).await,
        };
        if let Err(error) = ended {
            debug!(%error, "Docker client ended");
        }
    }

    async fn open(&self) -> Result<caisson_hypervisor::VsockStream, Arc<Refusal>> {
        if let Some(refusal) = self.recent_failure() {
            return Err(refusal);
        }
        self.guest.api().await.map_err(|error| {
            let refusal = Arc::new(Refusal::of(&error));
            *self.lock() = Some((Instant::now(), refusal.clone()));
            refusal
        })
    }

    fn recent_failure(&self) -> Option<Arc<Refusal>> {
        let last = self.lock();
        let (at, refusal) = last.as_ref()?;
        (self.guest.has_failed() && at.elapsed() < FAILURE_ANSWERS_FOR).then(|| refusal.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<Refusal>)>> {
        self.last_failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a client is told instead of being served.
struct Refusal {
    status: &'static str,
    message: String,
}

impl Refusal {
    fn of(error: &Unavailable) -> Self {
        let status = match error {
            Unavailable::Failed(_) => "500 Internal Server Error",
            Unavailable::Stopped
            | Unavailable::EngineDown { .. }
            | Unavailable::Unreachable(_)
            | Unavailable::ShuttingDown => "503 Service Unavailable",
        };
        Self { status, message: message(error) }
    }

    /// An answer as dockerd gives them. There is no body for `HEAD`.
    fn response(&self, head_only: bool) -> String {
        let body = json!({ "message": self.message }).to_string();
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            body.len()
        );
        if head_only { head } else { head + &body }
    }
}

/// The error with its causes and, on a line of its own, what can be done.
fn message(error: &Unavailable) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match error {
        Unavailable::Failed(failure) if !failure.remedy.is_empty() => format!("{text}\n{}", failure.remedy),
        _ => text,
    }
}

/// Reads the request, for an HTTP client takes no answer before it has asked, and answers it.
async fn refuse(client: impl AsyncRead + AsyncWrite + Unpin, refusal: &Refusal) -> io::Result<()> {
    timeout(REFUSAL_LIMIT, converse(client, refusal)).await.unwrap_or(Ok(()))
}

async fn converse(mut client: impl AsyncRead + AsyncWrite + Unpin, refusal: &Refusal) -> io::Result<()> {
    let head = read_head(&mut client).await?;
    client.write_all(refusal.response(head.starts_with(b"HEAD ")).as_bytes()).await?;
    client.shutdown().await?;
    // What is closed with something unread is reset, and then the answer may be lost.
    tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop)
}

async fn read_head(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < REQUEST_HEAD_BYTES {
        if client.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
