//! Packets that the kernel holds until they are decided on (`nfnetlink_queue`), in any order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::unix::AsyncFd;

use crate::rules;
use crate::watched::watched;

/// Bursts of held packets wait here for this program.
const BUFFER_BYTES: usize = 8 << 20;
/// The most packets that are held at once: above what the flows' limits let wait.
const MAX_HELD: u32 = 16_384;
/// A whole packet with what stands before it.
const RECEIVE_BYTES: usize = 72 * 1024;

const HEADER: usize = 16;
const NFGEN: usize = 4;
/// `NFNL_SUBSYS_QUEUE`.
const SUBSYSTEM: u16 = 3;
const PACKET: u16 = SUBSYSTEM << 8;
const VERDICT: u16 = SUBSYSTEM << 8 | 1;
const CONFIG: u16 = SUBSYSTEM << 8 | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;

/// What becomes of a held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is gone; whoever sent it may send it again.
    Drop,
    /// It goes on with this mark, one of [`rules`].
    Mark(u32),
}

/// A packet that the kernel holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: u32,
    /// From its IP header on.
    pub(crate) payload: Vec<u8>,
}

/// The queue's one reader.
pub(crate) struct Queue {
    socket: AsyncFd<OwnedFd>,
    number: u16,
    /// Read from the kernel together with the last one.
    waiting: RefCell<VecDeque<Held>>,
}

impl Queue {
    /// Takes a queue of the calling thread's network namespace.
    pub(crate) fn bind(number: u16) -> io::Result<Self> {
        let socket = caisson_sys::netfilter::socket(BUFFER_BYTES)?;
        // A burst that does not fit is lost packets, which are sent again, and no reason to stop.
        caisson_sys::netfilter::no_overrun_errors(&socket)?;
        let (bind, copy_whole) = ([1u8, 0, 0, 0], [0u8, 0, 0xff, 0xff, 2]);
        for (attribute, value) in [(1, &bind[..]), (2, &copy_whole[..]), (3, &MAX_HELD.to_be_bytes()[..])] {
            configure(&socket, number, attribute, value)?;
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: watched(socket)?, number, waiting: RefCell::default() })
    }

    /// The next packet that is to be decided on. May be dropped while waiting.
    pub(crate) async fn next(&self) -> io::Result<Held> {
        loop {
            if let Some(held) = self.waiting.borrow_mut().pop_front() {
                return Ok(held);
            }
            let mut buffer = vec![0; RECEIVE_BYTES];
            let received = |socket: &OwnedFd| {
                recv(socket, &mut buffer[..], RecvFlags::empty())
                    .map(|(_, length)| length)
                    .map_err(Into::into)
            };
            let length = self.socket.async_io(tokio::io::Interest::READABLE, received).await?;
            self.waiting.borrow_mut().extend(packets(&buffer[..length]));
        }
    }

    /// Decides on a packet. One that the kernel no longer holds is nobody's any more.
    pub(crate) fn tell(&self, id: u32, verdict: Verdict) {
        const DROP: u32 = 0;
        const ACCEPT: u32 = 1;
        let (action, mark) = match verdict {
            Verdict::Drop => (DROP, rules::HELD),
            Verdict::Mark(mark) => (ACCEPT, mark),
        };
        let header = [action.to_be_bytes(), id.to_be_bytes()].concat();
        let body = [attribute(2, &header), attribute(3, &mark.to_be_bytes())].concat();
        if let Err(error) =
            send(self.socket.get_ref(), &message(VERDICT, 0, self.number, &body), SendFlags::empty())
        {
            tracing::debug!(%error, id, "a held packet could not be decided on");
        }
    }
}

fn configure(socket: &OwnedFd, number: u16, kind: u16, value: &[u8]) -> io::Result<()> {
    send(socket, &message(CONFIG, ACK, number, &attribute(kind, value)), SendFlags::empty())?;
    let mut answer = [0; 1024];
    loop {
        let (_, length) = recv(socket, &mut answer[..], RecvFlags::empty())?;
        let code = answer[..length].get(HEADER..).and_then(|code| code.first_chunk()).copied();
        // A queue that is bound may bring its first packet before the answer; it is sent again.
        match (u16::from_ne_bytes([answer[4], answer[5]]), code.map(i32::from_ne_bytes)) {
            (NLMSG_ERROR, Some(0)) => return Ok(()),
            (NLMSG_ERROR, Some(code)) => return Err(io::Error::from_raw_os_error(code.wrapping_neg())),
            (NLMSG_ERROR, None) => return Err(Errno::BADMSG.into()),
            _ => {}
        }
    }
}

fn message(kind: u16, flags: u16, queue: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + NFGEN + body.len()).expect("a short message");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&queue.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The packets in what the kernel sent; what is malformed ends the row.
fn packets(mut bytes: &[u8]) -> Vec<Held> {
    let mut all = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else { break };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if u16::from_ne_bytes([message[4], message[5]]) == PACKET {
            all.extend(message.get(HEADER + NFGEN..).and_then(held));
        }
    }
    all
}

/// `NFQA_PACKET_HDR`, which begins with the number, and `NFQA_PAYLOAD`.
fn held(mut attributes: &[u8]) -> Option<Held> {
    let (mut id, mut payload) = (None, Vec::new());
    while let Some(length) = attributes.first_chunk().map(|length| usize::from(u16::from_ne_bytes(*length))) {
        let Some(value) = attributes.get(4..length) else { break };
        match u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff {
            1 => id = value.first_chunk().map(|id| u32::from_be_bytes(*id)),
            10 => payload = value.to_vec(),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Held { id: id?, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(id: u32, payload: &[u8]) -> Vec<u8> {
        let header = [&id.to_be_bytes()[..], &[0x08, 0, 0]].concat();
        message(
            PACKET,
            0,
            0,
            &[attribute(1, &header), attribute(3, &[0; 4]), attribute(10, payload)].concat(),
        )
    }

    #[test]
    fn packets_are_read_one_after_the_other() {
        let bytes = [packet(7, b"one"), packet(8, b"")].concat();
        let expected = [Held { id: 7, payload: b"one".into() }, Held { id: 8, payload: Vec::new() }];
        assert_eq!(packets(&bytes), expected);
        for cut in 0..packet(7, b"one").len() {
            assert!(packets(&packet(7, b"one")[..cut]).len() <= 1);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0u32..320) {
            let mut bytes = bytes;
            if bytes.len() >= 6 {
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
                bytes[4..6].copy_from_slice(&PACKET.to_ne_bytes());
            }
            let _ = packets(&bytes);
        }
    }
}
