//! The host's end of a stream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use caisson_hypervisor::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vmm_sys_util::eventfd::EventFd;

use super::mux::{Mux, StreamId};

/// What the ends of all streams and the device share.
pub(super) struct Shared {
    mux: Mutex<Mux>,
    /// Wakes the device: there is something for the guest.
    kick: EventFd,
}

impl Shared {
    pub(super) fn new(kick: EventFd) -> Self {
        Self { mux: Mutex::default(), kick }
    }

    /// Held for as long as bytes are copied, never while anything is waited for.
    pub(super) fn mux(&self) -> MutexGuard<'_, Mux> {
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the device.
    pub(super) fn kick(&self) {
        if let Err(error) = self.kick.write(1) {
            tracing::debug!(%error, "cannot wake the vsock device");
        }
    }
}

/// The host's end of a stream. Dropping it closes the stream; what was written still goes to the guest.
pub(super) struct HostEnd {
    pub(super) shared: Arc<Shared>,
    pub(super) id: StreamId,
}

impl AsyncRead for HostEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.shared.mux().poll_read(self.id, cx, buf.initialize_unfilled());
        let (size, tell) = ready!(read)?;
        buf.advance(size);
        if tell {
            self.shared.kick();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.shared.mux().poll_write(self.id, cx, parts))?;
        self.shared.kick();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.mux().shut(self.id);
        self.shared.kick();
        Poll::Ready(Ok(()))
    }
}

impl Connection for HostEnd {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.mux().poll_gone(self.id, cx)
    }
}

impl Drop for HostEnd {
    fn drop(&mut self) {
        self.shared.mux().abandon(self.id);
        self.shared.kick();
    }
}
