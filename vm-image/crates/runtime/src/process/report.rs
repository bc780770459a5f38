//! What the container's process tells its shim before it becomes the container's program.
//!
//! A sequenced-packet socket that closes on `execve`: another process that goes on in this one's place if there is one, the terminal's
//! descriptor if there is one, how long its steps took if that was asked for, then either a failure, or the word that it is about to execute
//! its program. The end without either is that of a process that was killed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use rustix::process::Pid;

use crate::failure::Failure;
use crate::steps::Step;

/// The first byte of a packet with a terminal.
pub(crate) const TERMINAL: u8 = b'T';
/// The first byte of a packet with a failure, as JSON.
const FAILURE: u8 = b'F';
/// The first byte of a packet with the number of the process that goes on.
const PROCESS: u8 = b'P';

/// The first byte of a packet with steps, as JSON.
const STEPS: u8 = b'S';

/// The packet right before `execve`.
const READY: u8 = b'R';

/// The longest failure that is told whole.
const MAX_PACKET: usize = 16 << 10;

/// What was told.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The process that went on in the first one's place, which has ended or is about to.
    pub(crate) introduced: Option<Pid>,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) end: End,
    /// What it has done, if that was asked for.
    pub(crate) steps: Vec<Step>,
}

/// How a report ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// The program runs.
    Runs,
    /// The process has said why it does not, and exits.
    Failed(Failure),
    /// The process was ended before it could say anything.
    #[default]
    Untold,
}

/// The shim's end and the process' end.
pub(crate) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// In the process: says why it ends.
pub(crate) fn tell(shim: BorrowedFd<'_>, failure: &Failure) {
    let mut packet = vec![FAILURE];
    // A shim that cannot be told sees the process end, which says enough.
    if serde_json::to_writer(&mut packet, failure).is_ok() {
        packet.truncate(MAX_PACKET);
        let _ = send(shim, &packet, SendFlags::NOSIGNAL);
    }
}

/// In the process: says that nothing but `execve` is left. What fails after this is the container's own.
///
/// By `write(2)`: of all calls that send, the one that no filter of system calls forbids.
pub(crate) fn announce(shim: BorrowedFd<'_>) {
    // A shim that cannot be told is gone, and this process with it.
    let _ = rustix::io::write(shim, &[READY]);
}

/// In the process: says which one goes on in its place, a child of the shim's.
pub(crate) fn introduce(shim: BorrowedFd<'_>, process: Pid) -> io::Result<()> {
    let number = process.as_raw_nonzero().get().to_le_bytes();
    send(shim, &[&[PROCESS][..], &number].concat(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// In the process: says how long what it has done took.
pub(crate) fn tell_steps(shim: BorrowedFd<'_>, steps: &[Step]) {
    let mut packet = vec![STEPS];
    // A trace that cannot be told is one less to read.
    if serde_json::to_writer(&mut packet, steps).is_ok() {
        let _ = send(shim, &packet, SendFlags::NOSIGNAL);
    }
}

/// In the shim: waits until the program runs or has failed to.
pub(crate) fn listen(process: &OwnedFd) -> io::Result<Outcome> {
    let mut report = Report::default();
    loop {
        if let Some(outcome) = report.hear(process, RecvFlags::empty())? {
            return Ok(outcome);
        }
    }
}

/// A report as far as it was told.
#[derive(Debug, Default)]
pub(crate) struct Report {
    introduced: Option<Pid>,
    terminal: Option<OwnedFd>,
    end: End,
    steps: Vec<Step>,
}

impl Report {
    /// Takes what was told; the whole report once that has ended, nothing if there is more to come.
    pub(crate) fn listen(&mut self, process: &OwnedFd) -> io::Result<Option<Outcome>> {
        loop {
            match self.hear(process, RecvFlags::DONTWAIT) {
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => return other,
            }
        }
    }

    /// Receives one packet.
    fn hear(&mut self, process: &OwnedFd, flags: RecvFlags) -> io::Result<Option<Outcome>> {
        let mut packet = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [io::IoSliceMut::new(&mut packet)];
        let received = match recvmsg(process, &mut into, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => return Ok(None),
            received => received?,
        };
        let length = received.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.terminal = descriptors.last();
            }
        }
        match packet[..length].split_first() {
            None => {
                let Self { introduced, terminal, end, steps } = std::mem::take(self);
                return Ok(Some(Outcome { introduced, terminal, end, steps }));
            }
            Some((&PROCESS, number)) => {
                let number = number.try_into().map(i32::from_le_bytes).ok();
                self.introduced = number.and_then(Pid::from_raw);
            }
            Some((&FAILURE, text)) => {
                let said = serde_json::from_slice(text);
                let unreadable = |_| Failure::other("the container's process failed and could not say why");
                self.end = End::Failed(said.unwrap_or_else(unreadable));
            }
            Some((&READY, _)) => self.end = End::Runs,
            Some((&STEPS, text)) => self.steps = serde_json::from_slice(text).unwrap_or_default(),
            Some(_) => {}
        }
        Ok(None)
    }
}

/// In the process: whether the shim is gone.
pub(crate) fn is_abandoned(shim: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut watched = [PollFd::new(&shim, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(watched[0].revents().intersects(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;
    use std::os::fd::AsFd;

    #[test]
    fn a_failure_is_told_and_the_end_means_success_only_after_its_word() {
        let (shim, process) = channel().unwrap();
        let failure = Failure::new(FailureKind::NotFound, "exec: \"x\"");
        tell(process.as_fd(), &failure);
        assert!(!is_abandoned(process.as_fd()).unwrap());
        drop(process);
        assert_eq!(listen(&shim).unwrap().end, End::Failed(failure));
        let (shim, process) = channel().unwrap();
        let step = Step { name: "root".into(), micros: 5 };
        introduce(process.as_fd(), Pid::INIT).unwrap();
        tell_steps(process.as_fd(), std::slice::from_ref(&step));
        announce(process.as_fd());
        drop(process);
        let outcome = listen(&shim).unwrap();
        let told = (outcome.end, outcome.introduced, outcome.steps);
        assert_eq!(told, (End::Runs, Some(Pid::INIT), vec![step]));
        let (shim, process) = channel().unwrap();
        drop(process);
        assert_eq!(listen(&shim).unwrap().end, End::Untold, "it was killed");
        let (shim, process) = channel().unwrap();
        drop(shim);
        assert!(is_abandoned(process.as_fd()).unwrap());
    }
}
