//! What the container writes: to the log, and to whoever is attached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caisson_shim::ShimConfig;
use rustix::io::Errno;

use crate::log::{Lines, Log};

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Which stream bytes are of, by its number in Docker's multiplexed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StreamName {
    Stdout = 1,
    Stderr = 2,
}

/// One stream of the container's: a pipe or its terminal.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: StreamName,
    from: OwnedFd,
    lines: Lines,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    NothingYet,
    Ended,
}

impl Output {
    /// `from` must not block.
    pub(crate) fn new(name: StreamName, from: OwnedFd) -> Self {
        let lines = Lines::new(match name {
            StreamName::Stdout => "stdout",
            StreamName::Stderr => "stderr",
        });
        Self { name, from, lines }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    fn read(&self, into: &mut [u8]) -> Read {
        match rustix::io::read(&self.from, into) {
            Ok(0) => Read::Ended,
            Ok(length) => Read::Bytes(length),
            Err(Errno::AGAIN | Errno::INTR) => Read::NothingYet,
            // A terminal that nobody holds any more says EIO.
            Err(_) => Read::Ended,
        }
    }
}

/// All of the container's output and its log.
#[derive(Debug)]
pub(crate) struct Outputs {
    open: Vec<Output>,
    log: Option<Log>,
}

impl Outputs {
    /// None yet.
    pub(crate) fn new(config: &ShimConfig) -> io::Result<Self> {
        Ok(Self { open: Vec::new(), log: Log::open(&config.log)? })
    }

    /// None yet, and never in a log.
    pub(crate) fn unlogged() -> Self {
        Self { open: Vec::new(), log: None }
    }

    pub(crate) fn add(&mut self, output: Output) {
        self.open.push(output);
    }

    pub(crate) fn open(&self) -> &[Output] {
        &self.open
    }

    pub(crate) fn are_all_ended(&self) -> bool {
        self.open.is_empty()
    }

    /// Reads once from a stream, logs it, and gives it to `deliver`. An ended stream is finished and forgotten.
    pub(crate) fn pump(&mut self, name: StreamName, deliver: impl FnOnce(StreamName, &[u8])) -> Read {
        let Some(at) = self.open.iter().position(|output| output.name == name) else { return Read::Ended };
        let mut chunk = [0; CHUNK];
        let read = self.open[at].read(&mut chunk);
        match read {
            Read::Bytes(length) => {
                let bytes = &chunk[..length];
                if let Some(log) = &mut self.log {
                    self.open[at].lines.write(bytes, log);
                }
                deliver(name, bytes);
            }
            Read::NothingYet => {}
            Read::Ended => self.finish(at),
        }
        read
    }

    /// Gives up on streams that somebody outside the container still holds.
    pub(crate) fn abandon(&mut self) {
        while !self.open.is_empty() {
            self.finish(0);
        }
    }

    fn finish(&mut self, at: usize) {
        let mut ended = self.open.remove(at);
        if let Some(log) = &mut self.log {
            ended.lines.finish(log);
        }
    }
}
