//! What the container's process tells its shim before it becomes the container's program.
//!
//! A sequenced-packet socket that closes on `execve`: the terminal's descriptor if there is one, then either a failure or the end.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use crate::failure::Failure;

/// The first byte of a packet with a terminal.
pub(crate) const TERMINAL: u8 = b'T';
/// The first byte of a packet with a failure, as JSON.
const FAILURE: u8 = b'F';

/// The longest failure that is told whole.
const MAX_PACKET: usize = 16 << 10;

/// What was told.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) terminal: Option<OwnedFd>,
    /// `None`: the program runs.
    pub(crate) failure: Option<Failure>,
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

/// In the shim: waits until the program runs or has failed to.
pub(crate) fn listen(process: &OwnedFd) -> io::Result<Outcome> {
    let mut outcome = Outcome { terminal: None, failure: None };
    let mut packet = vec![0; MAX_PACKET];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [io::IoSliceMut::new(&mut packet)];
        let received = match recvmsg(process, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        let length = received.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                outcome.terminal = descriptors.last();
            }
        }
        match packet[..length].split_first() {
            None => return Ok(outcome),
            Some((&FAILURE, text)) => {
                let said = serde_json::from_slice(text);
                let unreadable = |_| Failure::other("the container's process failed and could not say why");
                outcome.failure = Some(said.unwrap_or_else(unreadable));
            }
            Some(_) => {}
        }
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
    fn a_failure_is_told_and_the_end_means_success() {
        let (shim, process) = channel().unwrap();
        let failure = Failure::new(FailureKind::NotFound, "exec: \"x\"");
        tell(process.as_fd(), &failure);
        assert!(!is_abandoned(process.as_fd()).unwrap());
        drop(process);
        assert_eq!(listen(&shim).unwrap().failure, Some(failure));
        let (shim, process) = channel().unwrap();
        drop(process);
        assert!(listen(&shim).unwrap().failure.is_none());
        let (shim, process) = channel().unwrap();
        drop(shim);
        assert!(is_abandoned(process.as_fd()).unwrap());
    }
}
