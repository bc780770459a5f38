//! A named pipe of messages, as Docker clients know them.
//!
//! A Windows pipe has no half-close. Docker's clients and daemon agree on a substitute (go-winio's `MessageMode`): the
//! pipe is of type message, and a message without any bytes says that no more will follow in that direction. Reading it
//! looks like the end of the stream, which is what it means; writing it is [`Connection`]'s `shutdown()`.

use super::BindError;
use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::windows::named_pipe::{NamedPipeServer, PipeMode, ServerOptions},
};

/// `ERROR_ACCESS_DENIED`: what a second first instance gets.
const ACCESS_DENIED: i32 = 5;

#[derive(Debug)]
pub(crate) struct Listener {
    /// The instance that the next client gets.
    next: NamedPipeServer,
    name: PathBuf,
}

impl Listener {
    pub(crate) async fn bind(name: &Path) -> Result<Self, BindError> {
        let next = instance(name, true).map_err(|error| match error.raw_os_error() {
            Some(ACCESS_DENIED) => BindError::InUse(name.to_owned()),
            _ => BindError::Io(name.to_owned(), error),
        })?;
        Ok(Self { next, name: name.to_owned() })
    }

    /// Puts up the instance for the client after this one before it hands this one out, so that there always is one.
    pub(crate) async fn accept(&mut self) -> io::Result<Connection> {
        self.next.connect().await?;
        let next = instance(&self.name, false)?;
        Ok(Connection { pipe: std::mem::replace(&mut self.next, next), ended: false })
    }
}

/// Remote clients are rejected and, by the pipe's default rights, so are this computer's other users.
fn instance(name: &Path, first: bool) -> io::Result<NamedPipeServer> {
    ServerOptions::new().pipe_mode(PipeMode::Message).first_pipe_instance(first).create(name)
}

/// A client. `shutdown()` is a half-close.
#[derive(Debug)]
pub struct Connection {
    pipe: NamedPipeServer,
    ended: bool,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    /// Nothing is written for nothing: that would be the end.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.pipe).poll_write(cx, &[]))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
