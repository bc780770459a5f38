//! Talking to the kernel's network configuration (rtnetlink(7)) without an `ip` program.
//!
//! Blocking on purpose: the kernel has done the work by the time `send` returns, so there is nothing to wait for, and
//! one `send` carries a whole batch of requests. A socket stays in the namespace in which it was opened, whichever
//! thread uses it; so one that was opened in a container's namespace configures it from outside.
//!
//! Requests are built with `netlink-packet-route`. Answers are read attribute by attribute: its full decoder refuses a
//! whole dump for one attribute of a device that it does not know.

mod address;
mod link;
mod route;

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

pub(crate) use address::add_address;
pub(crate) use link::{
    Link, Sublink, SublinkKind, Veth, Vxlan, await_carrier, create_bridge, create_dummy, create_sublink,
    create_veth, create_vlan, create_vxlan, delete_link, find_link, isolate_from_neighbours, isolate_port,
    links, rename, set_alias, set_up, vnis,
};
pub(crate) use route::{add_route, connected_ranges, delete_default_route, set_default_route};

/// The kernel never sends more in one message (`NLMSG_GOODSIZE` is 8 KiB, dumps use up to 32 KiB).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A dump that changes under the reader is read again; so often at most.
const DUMP_ATTEMPTS: usize = 8;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}")]
pub(crate) struct NetlinkError {
    pub(crate) doing: String,
    pub(crate) source: io::Error,
}

impl NetlinkError {
    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

/// One change, with the words for the message if it fails.
pub(crate) struct Request {
    doing: String,
    message: RouteNetlinkMessage,
    flags: u16,
}

/// A socket for one namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Makes all changes with one system call, in this order; a failed one does not hold up those after it.
    ///
    /// The error is that of the first one that failed.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        // The kernel refuses a message of nothing.
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut doing = Vec::with_capacity(requests.len());
        for request in requests {
            self.append(&mut bytes, request.message, request.flags | NLM_F_ACK);
            doing.push(request.doing);
        }
        let mut failures: Vec<Option<io::Error>> = doing.iter().map(|_| None).collect();
        let mut waiting = doing.len();
        let name = |doing: &[String]| doing.join(", ");
        self.send(&bytes).map_err(|source| NetlinkError { doing: name(&doing), source })?;
        while waiting > 0 {
            self.receive(&mut |message| {
                let position = message.sequence_number().wrapping_sub(first) as usize;
                if let (Some(slot), NLMSG_ERROR) = (failures.get_mut(position), message.message_type()) {
                    waiting -= 1;
                    *slot = acknowledged(message.payload()).err();
                }
                Ok(())
            })
            .map_err(|source| NetlinkError { doing: name(&doing), source })?;
        }
        let failed = doing.into_iter().zip(failures).find_map(|(doing, failure)| Some((doing, failure?)));
        failed.map_or(Ok(()), |(doing, source)| Err(NetlinkError { doing, source }))
    }

    /// Reads all objects that `message` asks for; `read` picks what it wants of each.
    fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(message.clone(), &read)? {
                return Ok(all);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the network configuration does not stop changing"))
    }

    /// `None` when the objects changed while they were read.
    fn dump_once<T>(
        &mut self,
        message: RouteNetlinkMessage,
        read: &impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.ask(message, NLM_F_DUMP)?;
        let (mut all, mut done, mut consistent) = (Vec::new(), false, true);
        while !done {
            self.receive(&mut |message| {
                if message.sequence_number() != sequence {
                    return Ok(());
                }
                consistent &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => acknowledged(message.payload())?,
                    _ => all.extend(read(message.payload())),
                }
                Ok(())
            })?;
        }
        Ok(consistent.then_some(all))
    }

    /// Reads the one object that `message` asks for.
    fn get<T>(
        &mut self,
        message: RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let sequence = self.ask(message, 0)?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(&mut |message| {
                if message.sequence_number() == sequence {
                    answer = Some(match message.message_type() {
                        NLMSG_ERROR => acknowledged(message.payload()).map(|()| None)?,
                        _ => read(message.payload()),
                    });
                }
                Ok(())
            })?;
        }
        Ok(answer.flatten())
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        self.send(&bytes)?;
        Ok(self.sequence)
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.socket, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Waits for one datagram and hands over each message in it.
    fn receive(&mut self, handle: &mut dyn FnMut(&NetlinkBuffer<&[u8]>) -> io::Result<()>) -> io::Result<()> {
        let (_, length) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            handle(&message)?;
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The kernel's verdict: a native-endian negative errno, or 0.
fn acknowledged(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a verdict without a code")),
    }
}
