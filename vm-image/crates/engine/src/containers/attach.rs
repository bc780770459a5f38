//! Attaching: a client's connection becomes the container's streams.
//!
//! The bytes are in Docker's stream format already when they come from the shim, so they are copied as they are. A client
//! may attach before the container starts: its wish waits with the container's task, which makes the connection to
//! the shim between spawning it and telling it to start.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tracing::debug;

use super::Handle;
use super::state::State;
use super::task::{Request, Task, Waiting};
use crate::error::ApiError;
use crate::readiness::watched;

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// The container's streams, now or when it starts.
pub(crate) enum Attached {
    Now(UnixStream),
    /// Resolves when the container starts; fails when it could not be started or is removed.
    AtStart(oneshot::Receiver<UnixStream>),
}

/// What a client's input means.
#[derive(Debug)]
pub(crate) struct Typing {
    /// What in it detaches the client.
    pub(crate) keys: DetachKeys,
    /// Whether its end detaches the client; else only the input ends.
    pub(crate) detaches_at_end: bool,
}

/// How a client's stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The container's output has ended.
    Ended,
    /// The client typed its detach keys.
    Detached,
    /// The client went.
    Gone,
}

impl Handle {
    /// The container's streams. When this returns, a start that is asked for later cannot be missed.
    pub(crate) async fn attach(&self, streams: Streams) -> Result<Attached, ApiError> {
        self.ask(|answer| Request::Attach(streams, answer)).await
    }
}

impl Task {
    pub(super) async fn attach(&mut self, streams: Streams) -> Result<Attached, ApiError> {
        let id = &self.definition.id;
        let attached = match self.state() {
            State::Running(running) if running.paused => {
                return Err(ApiError::conflict(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            State::Restarting(_) => {
                return Err(ApiError::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
            State::Running(_) => {
                let stream = self.shim.attach(streams.stdin, streams.stdout, streams.stderr).await;
                Attached::Now(
                    stream.map_err(|e| ApiError::from_chain("could not attach to the container", &e))?,
                )
            }
            State::Created(_) | State::Exited(_) => {
                let (connection, connected) = oneshot::channel();
                self.waiting.retain(|waiting| !waiting.connection.is_closed());
                self.waiting.push(Waiting { streams, connection });
                Attached::AtStart(connected)
            }
            State::Removing(_) | State::Removed => {
                return Err(ApiError::conflict("container is marked for removal and cannot be attached to"));
            }
        };
        self.ground.tell(&self.definition, "attach", &[]);
        Ok(attached)
    }
}

impl Attached {
    /// The streams; `None` if there will be none.
    pub(crate) async fn stream(self) -> Option<UnixStream> {
        match self {
            Self::Now(stream) => Some(stream),
            Self::AtStart(connected) => connected.await.ok(),
        }
    }
}

/// Copies between a client and the container until one of them is done. `sent` is what the client has sent already;
/// `stdin` says whether the client's bytes are wanted, and what they mean. The client's stream ends when the output has ended, and
/// `over` is.
///
/// A client that has gone is noticed when all that it sent has been taken, whether there is output for it or not. One that ends its input has
/// not gone: `docker attach` without stdin begins with that.
pub(crate) async fn copy(
    client: UnixStream,
    sent: Bytes,
    container: UnixStream,
    stdin: Option<Typing>,
    over: impl Future,
) -> Left {
    let gone = gone(&client);
    let (client_read, client_write) = client.into_split();
    let (container_read, container_write) = container.into_split();
    let let_go = AtomicBool::new(false);
    let over = async {
        if !let_go.load(Ordering::Relaxed) {
            over.await;
        }
    };
    let output = copy_output(container_read, client_write, over);
    let Some(Typing { keys, detaches_at_end }) = stdin else {
        // It stays open: closing it would mean the end of input.
        let _keep = container_write;
        return tokio::select! {
            left = output => left,
            () = gone => Left::Gone,
            never = discard(client_read) => match never {},
        };
    };
    let input = copy_input(client_read, sent, container_write, keys);
    tokio::pin!(output);
    tokio::select! {
        left = &mut output => left,
        left = input => match left {
            Some(left) => left,
            None => {
                let_go.store(detaches_at_end, Ordering::Relaxed);
                tokio::select! {
                    left = output => left,
                    () = gone => Left::Gone,
                }
            }
        },
    }
}

/// Returns when nobody has the other end of a socket any more; as dockerd, which waits for `EPOLLHUP`. What the other end sent may still be
/// there to be read.
pub(crate) fn gone(socket: &UnixStream) -> impl Future<Output = ()> + use<> {
    // A descriptor of its own has a readiness of its own: what is cleared here is not missed by who writes.
    let own = socket.as_fd().try_clone_to_owned();
    async move {
        if let Err(error) = hung_up(own).await {
            debug!(%error, "it will not be noticed when a client goes");
            std::future::pending::<()>().await;
        }
    }
}

async fn hung_up(socket: std::io::Result<OwnedFd>) -> std::io::Result<()> {
    let socket = watched(socket?)?;
    loop {
        let mut ready = socket.writable().await?;
        if ready.ready().is_write_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Takes what a client sends that nobody wants, so that it does not wait for that.
async fn discard(mut from: OwnedReadHalf) -> Infallible {
    // Its end, whatever that is, is no news: see `gone`.
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    std::future::pending().await
}

async fn copy_output(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, over: impl Future) -> Left {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return Left::Gone;
                }
            }
        }
    }
    over.await;
    // The client may have gone; then there is nobody to tell.
    let _ = to.shutdown().await;
    Left::Ended
}

/// Copies what the client types. Its end of input is passed on; `Some` if it detached.
async fn copy_input(
    mut from: OwnedReadHalf,
    sent: Bytes,
    mut to: OwnedWriteHalf,
    mut keys: DetachKeys,
) -> Option<Left> {
    let mut buffer = vec![0; 16 * 1024];
    let mut chunk = sent.to_vec();
    loop {
        let (typed, detach) = keys.filter(&chunk);
        if to.write_all(&typed).await.is_err() {
            // The container reads no more; its output may go on.
            std::future::pending::<()>().await;
        }
        if detach {
            return Some(Left::Detached);
        }
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => chunk = buffer[..length].to_vec(),
        }
    }
    // If this fails the container has ended, which the output tells.
    let _ = to.shutdown().await;
    None
}

/// The keys that detach a terminal, `ctrl-p,ctrl-q` by default, and how many of them were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// `ctrl-p,ctrl-q`.
const USUAL: &[u8] = &[16, 17];

impl DetachKeys {
    /// Nothing detaches.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// The keys that these bytes are; the usual ones for none.
    pub(crate) fn of(keys: &[u8]) -> Self {
        let keys = if keys.is_empty() { USUAL } else { keys };
        Self { keys: keys.to_vec(), typed: 0 }
    }

    /// What detaches.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.keys
    }

    /// Reads `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`; empty text is the default.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::of(USUAL));
        }
        let key = |name: &str| match name.as_bytes() {
            [byte] => Some(*byte),
            b"DEL" => Some(127),
            _ => match name.strip_prefix("ctrl-")?.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                b"@" => Some(0),
                b"[" => Some(27),
                b"\\" => Some(28),
                b"]" => Some(29),
                b"^" => Some(30),
                b"_" => Some(31),
                _ => None,
            },
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or_else(|| ApiError::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, typed: 0 })
    }

    /// What of these bytes is the container's, and whether the keys are complete. Keys that may yet become the
    /// sequence are held back until it is clear.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.keys.get(self.typed) == Some(&byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(self.keys.len() > 1 && self.keys.first() == Some(&byte));
            if self.typed == 0 {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read() {
        let keys = |text| DetachKeys::parse(text).unwrap().keys;
        assert_eq!(keys(""), [16, 17]);
        assert_eq!(keys("ctrl-a,x,ctrl-[,DEL"), [1, b'x', 27, 127]);
        assert_eq!(DetachKeys::parse("foo").unwrap_err().message, "Invalid detach keys (foo) provided");
    }

    #[test]
    fn the_sequence_detaches_and_all_else_passes() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11d"), (Vec::new(), true));
        assert_eq!(DetachKeys::none().filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[tokio::test]
    async fn an_end_of_input_is_passed_on_and_output_goes_on() {
        let (client, mut user) = UnixStream::pair().unwrap();
        let (container, mut shim) = UnixStream::pair().unwrap();
        let copying = tokio::spawn(copy(
            client,
            Bytes::from_static(b"early "),
            container,
            Some(Typing { keys: DetachKeys::none(), detaches_at_end: false }),
            async {},
        ));
        user.write_all(b"late").await.unwrap();
        user.shutdown().await.unwrap();
        let mut input = String::new();
        shim.read_to_string(&mut input).await.unwrap();
        assert_eq!(input, "early late");
        shim.write_all(b"done").await.unwrap();
        drop(shim);
        let mut output = String::new();
        user.read_to_string(&mut output).await.unwrap();
        assert_eq!((output.as_str(), copying.await.unwrap()), ("done", Left::Ended));
    }

    #[tokio::test]
    async fn without_input_a_client_s_half_close_means_nothing() {
        let (client, mut user) = UnixStream::pair().unwrap();
        let (container, mut shim) = UnixStream::pair().unwrap();
        let copying = tokio::spawn(copy(client, Bytes::new(), container, None, async {}));
        user.shutdown().await.unwrap();
        shim.write_all(b"out").await.unwrap();
        drop(shim);
        let mut output = String::new();
        user.read_to_string(&mut output).await.unwrap();
        assert_eq!((output.as_str(), copying.await.unwrap()), ("out", Left::Ended));
    }

    /// What becomes of a client with or without input that goes while there is no output for it.
    async fn left_by(stdin: Option<Typing>) -> Left {
        let (client, mut user) = UnixStream::pair().unwrap();
        let (container, mut shim) = UnixStream::pair().unwrap();
        let wanted = stdin.is_some();
        let copying =
            tokio::spawn(copy(client, Bytes::new(), container, stdin, std::future::pending::<()>()));
        // More than fits into the sockets: it is taken, wanted or not.
        let sent = vec![b'x'; 1 << 20];
        let sending = async {
            user.write_all(&sent).await.unwrap();
            drop(user);
        };
        let mut taken = Vec::new();
        let taking = async {
            if wanted {
                shim.read_to_end(&mut taken).await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, async { tokio::join!(sending, taking) }).await.unwrap();
        assert_eq!(taken.len(), if wanted { sent.len() } else { 0 });
        tokio::time::timeout(limit, copying).await.expect("it is noticed").unwrap()
    }

    #[tokio::test]
    async fn a_client_that_goes_is_noticed_without_output() {
        assert_eq!(left_by(None).await, Left::Gone);
        let typing = Typing { keys: DetachKeys::none(), detaches_at_end: false };
        assert_eq!(left_by(Some(typing)).await, Left::Gone);
    }
}
