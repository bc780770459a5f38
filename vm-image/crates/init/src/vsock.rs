//! Asynchronous vsock streams.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use caisson_guest_proto::{Connection, GuestVsockPort, HostVsockPort};
use caisson_sys::vsock;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream to or from the host.
pub(crate) struct VsockStream(AsyncFd<OwnedFd>);

impl VsockStream {
    /// Connects to a port of the host.
    pub(crate) async fn connect(port: HostVsockPort) -> io::Result<Self> {
        let stream = Self(watched(vsock::connect(port.0)?)?);
        stream.0.writable().await?.retain_ready();
        vsock::connected(stream.0.get_ref())?;
        Ok(stream)
    }
}

/// Takes the host's connections to a port of this machine.
pub(crate) struct VsockListener(AsyncFd<OwnedFd>);

impl VsockListener {
    pub(crate) fn bind(port: GuestVsockPort) -> io::Result<Self> {
        Ok(Self(watched(vsock::listen(port.0)?)?))
    }

    pub(crate) async fn accept(&self) -> io::Result<VsockStream> {
        let accepted =
            self.0.async_io(tokio::io::Interest::READABLE, |listener| vsock::accept(listener)).await?;
        Ok(VsockStream(watched(accepted)?))
    }
}

/// Puts a socket into the event loop.
#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, which only the AsyncFd can do.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

impl AsyncRead for VsockStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = |fd: &AsyncFd<OwnedFd>| {
                rustix::io::read(fd.get_ref(), buf.initialize_unfilled()).map_err(io::Error::from)
            };
            match guard.try_io(read) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl VsockStream {
    /// Sends what `parts` hold as one, as far as it goes.
    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            // Not `write`, which would raise SIGPIPE if that were not ignored.
            let send = |fd: &AsyncFd<OwnedFd>| {
                let no_ancillary = &mut SendAncillaryBuffer::default();
                rustix::net::sendmsg(fd.get_ref(), parts, no_ancillary, SendFlags::NOSIGNAL)
                    .map_err(io::Error::from)
            };
            match guard.try_io(send) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for VsockStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(data)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(self.0.get_ref(), Shutdown::Write) {
            // The other side was faster.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

/// The host shows it by what it sends, and takes.
impl Connection for VsockStream {
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
