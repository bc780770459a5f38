//! Asynchronous vsock streams.
//!
//! A stream that brings much may hold more than the kernel's 256 KiB. Linux tells the host of what was read when little room is left or
//! everything was read; of a reader that lags it does so late, and the host stands still until it hears of it. It is for transfers, a few at a
//! time: whoever has a place keeps it, since a stream that may hold less than the host was told is reset.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use caisson_guest_proto::{Connection, GuestVsockPort, HostVsockPort};
use caisson_sys::vsock;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How much a stream brings within [`SOON`] before it may hold more.
const MUCH: usize = 256 << 10;
const SOON: Duration = Duration::from_secs(1);
/// How much more: so many bytes in all.
const HELD_OF_MUCH: u64 = 1 << 20;
/// How many streams may at a time.
static PLACES: Semaphore = Semaphore::const_new(64);

/// A stream to or from the host.
pub(crate) struct VsockStream {
    socket: AsyncFd<OwnedFd>,
    width: Width,
}

/// Whether a stream may hold more, which it then may for as long as it lives.
struct Width {
    /// What it has brought `since` it was last considered, in bytes.
    brought: usize,
    since: Instant,
    place: Option<SemaphorePermit<'static>>,
}

impl Width {
    fn new() -> Self {
        Self { brought: 0, since: Instant::now(), place: None }
    }

    /// Counts what was read; whether that gets it one of the places.
    fn grows(&mut self, read: usize, places: &'static Semaphore) -> bool {
        self.brought += read;
        if self.place.is_some() || self.brought < MUCH {
            return false;
        }
        if self.since.elapsed() <= SOON {
            self.place = places.try_acquire().ok();
        }
        (self.brought, self.since) = (0, Instant::now());
        self.place.is_some()
    }
}

impl VsockStream {
    fn new(socket: AsyncFd<OwnedFd>) -> Self {
        Self { socket, width: Width::new() }
    }

    /// Connects to a port of the host.
    pub(crate) async fn connect(port: HostVsockPort) -> io::Result<Self> {
        let socket = watched(vsock::connect(port.0)?)?;
        socket.writable().await?.retain_ready();
        vsock::connected(socket.get_ref())?;
        Ok(Self::new(socket))
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
        Ok(VsockStream::new(watched(accepted)?))
    }
}

/// Puts a socket into the event loop.
#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, which only the AsyncFd can do.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

impl AsyncRead for VsockStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            let read = |fd: &AsyncFd<OwnedFd>| {
                rustix::io::read(fd.get_ref(), buf.initialize_unfilled()).map_err(io::Error::from)
            };
            match guard.try_io(read) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    if self.width.grows(read, &PLACES) {
                        // One that cannot be set goes on as it is.
                        let _ = vsock::hold(self.socket.get_ref(), HELD_OF_MUCH);
                    }
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
            let mut guard = ready!(self.socket.poll_write_ready(cx))?;
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
        match rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_brings_much_soon_may_hold_more_while_there_is_a_place() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let [mut first, mut second] = [(); 2].map(|()| Width::new());
        tokio::time::advance(SOON * 2).await;
        assert!(!first.grows(MUCH, &ONE), "it took its time");
        assert!(!first.grows(MUCH - 1, &ONE), "not yet");
        assert!(first.grows(1, &ONE));
        assert!(!first.grows(MUCH, &ONE), "it does already");
        second.grows(MUCH, &ONE);
        assert!(!second.grows(MUCH, &ONE), "nobody more");
        drop(first);
        assert!(!second.grows(MUCH - 1, &ONE));
        assert!(second.grows(1, &ONE));
    }
}
