//! Copying a connection, both ways at once.
//!
//! The bytes go through a pipe by splice(2), not through this process's memory. An end of stream is passed on as a
//! half-close, a failure as a reset. What a side said before it failed still arrives: a server that refuses a request in
//! the middle of its body has closed its ear, and its answer is to be carried. A slow reader slows down its writer: nothing more is read before what was read is
//! written. A pipe is held only while bytes are in it, so an idle connection costs its two sockets.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What one splice moves at most, in bytes, and the size of a pipe.
const CHUNK: usize = 256 * 1024;

/// So many pipes are kept for the next connection with something to say.
const SPARE_PIPES: usize = 16;

static SPARE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Copies until both directions have ended, or one has failed.
pub(super) async fn run(a: &TcpStream, b: &TcpStream) -> io::Result<()> {
    let cut = AtomicBool::new(false);
    for stream in [a, b] {
        stream.set_nodelay(true)?;
    }
    let copied = tokio::try_join!(copy(a, b, &cut), copy(b, a, &cut));
    if copied.is_err() {
        reset(a);
        reset(b);
    }
    copied.map(drop)
}

/// Makes the end of a connection look to its peer as the failure that it is: no orderly close, but a reset.
pub(super) fn reset(stream: &TcpStream) {
    // A socket that takes no option is closed anyway.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Copies one direction to its end. A side that takes no more is gone; `cut` says so to the other direction, which brings
/// what that side has said, and then fails.
async fn copy(from: &TcpStream, to: &TcpStream, cut: &AtomicBool) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = Pipe::take()?;
        match pipe.fill(from) {
            Ok(0) => {
                pipe.put_back();
                break;
            }
            Ok(filled) => match pipe.drain(to, filled).await {
                Err(error) if is_gone(&error) => {
                    cut.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                drained => drained?,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        pipe.put_back();
    }
    if cut.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    match shutdown(to, Shutdown::Write) {
        // The peer has closed already.
        Err(rustix::io::Errno::NOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether the other side has closed or reset the connection, so that reading from it ends, too.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// An empty pipe whenever nobody uses it.
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user's quota of pipe memory may be used up; a pipe of the default size does as well.
        let _ = fcntl_setpipe_size(&writer, CHUNK);
        Ok(Self { reader, writer })
    }

    /// For the next one. Only for an empty pipe: what is in a pipe that is dropped is lost with it, as it must be.
    fn put_back(self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_PIPES {
            spare.push(self);
        }
    }

    /// Moves what has arrived into the pipe; 0 is the end of the stream.
    fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        // The pipe is empty: if this would block, then for want of bytes.
        from.try_io(Interest::READABLE, || Ok(splice(from, None, &self.writer, None, CHUNK, flags)?))
    }

    async fn drain(&self, to: &TcpStream, mut filled: usize) -> io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while filled > 0 {
            to.writable().await?;
            // The pipe is not empty: if this would block, then for want of room.
            match to.try_io(Interest::WRITABLE, || Ok(splice(&self.reader, None, to, None, filled, flags)?)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => filled -= written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
