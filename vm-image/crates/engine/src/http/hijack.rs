//! Taking over a connection: attach turns an HTTP connection into a raw stream both ways.
//!
//! hyper hands a connection over only after a 101. dockerd also does it after a plain 200, to clients that send no
//! `Upgrade`, and it writes very few headers. So the connection's I/O is ours ([`ConnectionIo`]): a function that wants
//! the connection leaves a [`Takeover`] with its [`Hijacker`]; from then on nothing that hyper writes reaches the client,
//! hyper is told that the connection is finished, and the server hands the socket, with what hyper had read ahead, to
//! the takeover.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::RAW;
use super::reply::{self, Reply};

/// What is done with a connection that was taken over: the socket, and bytes that the client had already sent.
pub(crate) type Takeover = Box<dyn FnOnce(UnixStream, Bytes) -> BoxFuture<'static, ()> + Send>;

/// A connection's place for a takeover.
#[derive(Clone, Default)]
pub(crate) struct Hijacker(Arc<Slot>);

#[derive(Default)]
struct Slot {
    /// Nothing more is to be read by hyper.
    deaf: AtomicBool,
    /// Nothing more is to be written by hyper.
    mute: AtomicBool,
    /// hyper must not see the end of the client's input, which it takes for the end of the client.
    hides_end: AtomicBool,
    /// That end has come.
    end: Notify,
    takeover: Mutex<Option<Takeover>>,
}

impl Hijacker {
    /// Keeps hyper from reading past the request's head: what follows is for the takeover, an end of input included.
    pub(crate) fn stop_reading(&self) {
        self.0.deaf.store(true, Ordering::Release);
    }

    /// Keeps the end of the client's input from hyper: a client may send its request, all its input and the end of it at once.
    pub(crate) fn hide_end(&self) {
        self.0.hides_end.store(true, Ordering::Release);
    }

    /// Returns when the client's input has ended, if that is hidden.
    pub(crate) async fn ended(&self) {
        self.0.end.notified().await;
    }

    /// Takes over the connection. The returned reply never reaches the client.
    pub(crate) fn take(&self, takeover: Takeover) -> Reply {
        *self.0.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
        self.0.mute.store(true, Ordering::Release);
        closing(reply::empty(StatusCode::OK))
    }

    /// What the finished connection goes to.
    pub(crate) fn takeover(&self) -> Option<Takeover> {
        self.0.takeover.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Says that the connection ends with this reply.
pub(crate) fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// The head that dockerd writes before the raw stream: 101 to those who asked for an upgrade, else 200, which never tells of
/// Docker's stream headers.
pub(crate) fn head(headers: &HeaderMap, content_type: &str) -> String {
    if headers.contains_key(UPGRADE) {
        format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n\r\n")
    }
}

/// A client's socket under hyper.
pub(crate) struct ConnectionIo {
    pub(crate) socket: UnixStream,
    hijacker: Hijacker,
}

impl ConnectionIo {
    pub(crate) fn new(socket: UnixStream, hijacker: Hijacker) -> Self {
        Self { socket, hijacker }
    }

    fn is_mute(&self) -> bool {
        self.hijacker.0.mute.load(Ordering::Acquire)
    }
}

impl Read for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // No waker is kept: hyper is woken by the reply, which then ends the connection.
        if self.hijacker.0.deaf.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let mut space = [0; 16 * 1024];
        let room = cursor.remaining().min(space.len());
        let mut buffer = ReadBuf::new(&mut space[..room]);
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() && self.hijacker.0.hides_end.load(Ordering::Acquire) {
            self.hijacker.0.end.notify_one();
            return Poll::Pending;
        }
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_mute() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_mute() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_mute() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }
}
