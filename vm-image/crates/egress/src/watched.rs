//! Descriptors in the event loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Puts a non-blocking socket into the event loop.
#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
pub(crate) fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, which only the AsyncFd can do.
    Ok(unsafe { AsyncFd::register(socket) }?)
}
