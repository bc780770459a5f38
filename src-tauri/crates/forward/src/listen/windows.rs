//! A named pipe of messages, as Docker clients know them.
//!
//! A Windows pipe has no half-close. Docker's clients and daemon agree on a substitute (go-winio's `MessageMode`): the
//! pipe is of type message, and a message without any bytes says that no more will follow in that direction. Reading it
//! looks like the end of the stream, which is what it means; writing it is [`Connection`]'s `shutdown()`.

#[path = "windows/rights.rs"]
mod rights;

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
/// `ERROR_PIPE_BUSY`: what a client gets between two instances.
#[cfg(test)]
const PIPE_BUSY: i32 = 231;

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
        Ok(MessagePipe { pipe: std::mem::replace(&mut self.next, next), ended: false })
    }
}

/// Remote clients are rejected, and so are this computer's other users.
fn instance(name: &Path, first: bool) -> io::Result<NamedPipeServer> {
    rights::create(ServerOptions::new().pipe_mode(PipeMode::Message).first_pipe_instance(first), name)
}

/// A client. `shutdown()` is a half-close.
pub type Connection = MessagePipe<NamedPipeServer>;

/// One end of a pipe of messages, with the substitute for a half-close.
#[derive(Debug)]
pub struct MessagePipe<P> {
    pipe: P,
    ended: bool,
}

impl<P: AsyncRead + Unpin> AsyncRead for MessagePipe<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for MessagePipe<P> {
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

/// The client's side, for tests of what is served: as go-winio is one.
#[cfg(test)]
pub(crate) mod testing {
    use super::{MessagePipe, PIPE_BUSY};
    use caisson_os::Endpoint;
    use std::path::Path;
    use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};

    /// An endpoint that no other test has.
    pub(crate) fn endpoint(dir: &Path) -> Endpoint {
        let unique = dir.file_name().unwrap().to_string_lossy();
        Endpoint::new(format!(r"\\.\pipe\caisson-test-{unique}"))
    }

    pub(crate) async fn connect(to: &Endpoint) -> MessagePipe<NamedPipeClient> {
        loop {
            match ClientOptions::new().open(to.path()) {
                Ok(pipe) => return MessagePipe { pipe, ended: false },
                Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BindError, testing};

    #[tokio::test]
    #[ignore = "wine 8 does not know FILE_FLAG_FIRST_PIPE_INSTANCE; to be run on Windows"]
    async fn a_living_pipe_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = testing::endpoint(dir.path());
        let first = crate::Listener::bind(&at).await.unwrap();
        let second = crate::Listener::bind(&at).await;
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
        drop(first);
        crate::Listener::bind(&at).await.unwrap();
    }
}
