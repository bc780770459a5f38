//! Waiting for a descriptor that is neither a socket nor a pipe: a pidfd, an inotify queue.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// The descriptor, to be waited for. It must be non-blocking if it is read.
#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, which only the AsyncFd can do.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
