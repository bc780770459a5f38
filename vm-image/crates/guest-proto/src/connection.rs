//! What a [copy](crate::copy) has to know of its sides beside their bytes: whether they are still there.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection that tells when its other side is gone, also while nothing is read from it and nothing written to it.
pub trait Connection: AsyncRead + AsyncWrite + Unpin {
    /// Ready once the other side takes nothing more and sends nothing more; what it sent before can still be read. One task can wait
    /// for it. Where the system does not tell it is never ready: such a side shows it when it is read from or written to, and else not.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl<T: Connection + ?Sized> Connection for Box<T> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_gone(cx)
    }
}

/// Tokio's stream in memory does not tell.
impl Connection for DuplexStream {
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Unix sockets are closed, not reset, and that alone is no sign.
#[cfg(unix)]
impl Connection for tokio::net::UnixStream {
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

type Reset<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A TCP connection through a reference to its socket, so that it can be waited for while it is read and written: gone is one that was
/// reset, or whose other side does not answer any more (keepalive). Windows does not tell.
pub struct Tcp<'a> {
    socket: &'a TcpStream,
    reset: Option<Reset<'a>>,
    gone: bool,
}

impl<'a> Tcp<'a> {
    /// Of this socket, which nobody else reads or writes meanwhile.
    #[must_use]
    pub fn new(socket: &'a TcpStream) -> Self {
        Self { socket, reset: None, gone: false }
    }

    /// Transfers bytes at once, if it can be, out of `room`. Fewer than that were all for now: the next ones are waited for, and not tried.
    fn transfer(
        &self,
        interest: Interest,
        room: usize,
        transfer: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut fewer = None;
        let tried = self.socket.try_io(interest, || match transfer() {
            Ok(count) if 0 < count && count < room => {
                fewer = Some(count);
                Err(io::ErrorKind::WouldBlock.into())
            }
            tried => tried,
        });
        fewer.map_or(tried, Ok)
    }
}

impl AsyncRead for Tcp<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let into = buf.initialize_unfilled();
            let room = into.len();
            let read = || (&*SockRef::from(self.socket)).read(into);
            match self.transfer(Interest::READABLE, room, read) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|read| buf.advance(read))),
            }
        }
    }
}

impl AsyncWrite for Tcp<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let write = || (&*SockRef::from(self.socket)).write(data);
            match self.transfer(Interest::WRITABLE, data.len(), write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(self.socket).shutdown(Shutdown::Write) {
            // One that was reset: what it sent before can still be read, and says so in the end.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

impl Connection for Tcp<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = self.socket;
        let wait = async move {
            // An error is the end of the event loop.
            let _ = socket.ready(Interest::ERROR).await;
        };
        if !self.gone {
            ready!(self.reset.get_or_insert_with(|| Box::pin(wait)).as_mut().poll(cx));
            self.gone = true;
        }
        Poll::Ready(())
    }
}
