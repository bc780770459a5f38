//! What attached clients type: into the container's stdin.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// How much input waits for a container that does not read; then clients wait.
const ROOM: usize = 64 << 10;

/// The container's stdin.
#[derive(Debug)]
pub(crate) enum Input {
    /// Before the start; clients wait.
    NotYet,
    /// A pipe or a terminal.
    Open {
        /// Does not block.
        to: OwnedFd,
        /// Not yet written.
        waiting: Vec<u8>,
        /// Close when that is written.
        ends: bool,
    },
    /// Never was open, or is no more: what clients send is dropped.
    Closed,
}

impl Input {
    pub(crate) fn open(to: OwnedFd) -> Self {
        Self::Open { to, waiting: Vec::new(), ends: false }
    }

    /// Whether to take more from clients.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::NotYet => false,
            Self::Open { waiting, .. } => waiting.len() < ROOM,
            Self::Closed => true,
        }
    }

    /// The descriptor to wait on for writing, if there is something to write.
    pub(crate) fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Open { to, waiting, .. } if !waiting.is_empty() => Some(to.as_fd()),
            _ => None,
        }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if let Self::Open { waiting, ends: false, .. } = self {
            waiting.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// No more will come.
    pub(crate) fn end(&mut self) {
        if let Self::Open { ends, .. } = self {
            *ends = true;
            self.flush();
        }
    }

    /// Writes what the container takes now.
    pub(crate) fn flush(&mut self) {
        let Self::Open { to, waiting, ends } = self else { return };
        while !waiting.is_empty() {
            match rustix::io::write(&*to, waiting) {
                Ok(length) => drop(waiting.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The container has closed its stdin.
                Err(_) => {
                    *self = Self::Closed;
                    return;
                }
            }
        }
        if *ends {
            *self = Self::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::Read;

    fn pipe() -> (std::fs::File, Input) {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        (from.into(), Input::open(to))
    }

    #[test]
    fn the_end_comes_after_the_last_byte() {
        let (mut from, mut input) = pipe();
        let much = vec![b'x'; 200_000]; // more than a pipe holds
        input.add(&much);
        input.end();
        assert!(matches!(input, Input::Open { .. }) && !input.has_room());
        let (mut chunk, mut total) = ([0; 4096], 0);
        loop {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => total += length,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    input.flush();
                }
            }
        }
        assert_eq!(total, much.len());
        assert!(matches!(input, Input::Closed));
    }

    #[test]
    fn a_container_that_closed_its_stdin_takes_everything() {
        let (from, mut input) = pipe();
        drop(from);
        input.add(b"x");
        assert!(matches!(input, Input::Closed) && input.has_room());
    }
}
