//! What the container writes: to the log, and to whoever is attached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caisson_shim::ShimConfig;
use rustix::event::PollFd;
use rustix::io::{Errno, ioctl_fionread};

use crate::log::{About, Lines, Log};

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// What a terminal may hold beyond what it tells of: the kernel lets 8 KiB wait before it counts them (`pty_common_install`), and
/// counts 4 KiB.
const UNTOLD: usize = 16 << 10;

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
enum Read {
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

    /// How many bytes can be read at this moment, or a few more.
    fn holds(&self) -> usize {
        let told = ioctl_fionread(&self.from).ok().and_then(|length| usize::try_from(length).ok());
        told.unwrap_or(0).max(UNTOLD)
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
    pub(crate) fn pump(&mut self, name: StreamName, deliver: impl FnOnce(StreamName, &[u8])) {
        self.read(name, deliver);
    }

    /// Reads what a stream holds when its process has ended, to its end if that is reached, and no more: somebody else may have it, and fill it
    /// as fast as it is read.
    pub(crate) fn drain(&mut self, name: StreamName, mut deliver: impl FnMut(StreamName, &[u8])) {
        let Some(mut left) = self.find(name).map(|at| self.open[at].holds()) else { return };
        while let Read::Bytes(length) = self.read(name, &mut deliver) {
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    }

    fn find(&self, name: StreamName) -> Option<usize> {
        self.open.iter().position(|output| output.name == name)
    }

    fn read(&mut self, name: StreamName, deliver: impl FnOnce(StreamName, &[u8])) -> Read {
        let Some(at) = self.find(name) else { return Read::Ended };
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

    /// Gives up on streams that somebody outside the container still holds, and ends the log. Once is enough.
    pub(crate) fn end(&mut self) {
        while !self.open.is_empty() {
            self.finish(0);
        }
        if let Some(log) = &mut self.log {
            log.end();
        }
    }

    /// What to watch of the log, and for what.
    pub(crate) fn log_interests<'a>(&'a self, watch: impl FnMut(About, PollFd<'a>)) {
        if let Some(log) = &self.log {
            log.interests(watch);
        }
    }

    /// Does what a wait for the log was about.
    pub(crate) fn attend_log(&mut self, about: About) {
        if let Some(log) = &mut self.log {
            log.attend(about);
        }
    }

    /// What is not in the log by now is lost.
    pub(crate) fn give_up_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.give_up();
        }
    }

    /// Whether all that came is in the log; to be asked after the end.
    pub(crate) fn are_written(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_written)
    }

    fn finish(&mut self, at: usize) {
        let mut ended = self.open.remove(at);
        if let Some(log) = &mut self.log {
            ended.lines.finish(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn output() -> (OwnedFd, Outputs) {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut outputs = Outputs::unlogged();
        outputs.add(Output::new(StreamName::Stdout, from));
        (to, outputs)
    }

    #[test]
    fn what_is_held_is_read_to_the_end() {
        let (to, mut outputs) = output();
        let written = rustix::io::write(&to, &[b'x'; 65_536]).unwrap();
        drop(to);
        let mut read = 0;
        outputs.drain(StreamName::Stdout, |_, bytes| read += bytes.len());
        assert_eq!(read, written);
        assert!(outputs.are_all_ended());
    }

    #[test]
    fn who_fills_it_as_fast_as_it_is_read_is_left() {
        let (to, mut outputs) = output();
        let held = rustix::io::write(&to, &[b'x'; 65_536]).unwrap();
        let mut read = 0;
        outputs.drain(StreamName::Stdout, |_, bytes| {
            read += bytes.len();
            assert!(read <= held + 2 * CHUNK, "it goes on");
            rustix::io::write(&to, bytes).unwrap();
        });
        assert!(read >= held && !outputs.are_all_ended());
    }
}
