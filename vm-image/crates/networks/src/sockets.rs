//! The sockets of this system (sock_diag(7)): those that wait for others, and the connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use caisson_guest_proto::PortProtocol;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `struct inet_diag_msg` of `linux/inet_diag.h`, in bytes, and where its fields are.
const MESSAGE: usize = 72;
const FAMILY: usize = 0;
const ID: std::ops::Range<usize> = 4..52;
const PORT: usize = 4;
const PEER_PORT: usize = 6;
const ADDRESS: usize = 8;
const PEER_ADDRESS: usize = 24;
/// Attributes (`INET_DIAG_*`).
const V6_ONLY: u16 = 11;
const CGROUP: u16 = 21;
/// States of TCP; a UDP socket that no one address is connected to has the second.
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;
/// Those of TCP in which a socket has a peer and a process.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The kernel fills no larger buffer in a dump.
const RECEIVE_BYTES: usize = 32 * 1024;

/// The ports that the kernel gives to sockets which name none.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A socket that waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) protocol: PortProtocol,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Whether one of IPv6 takes IPv6 only.
    pub(crate) v6_only: bool,
    /// The id of the cgroup in which it was made.
    pub(crate) cgroup: u64,
}

/// All of them, in the calling thread's network namespace.
///
/// A UDP socket under a number of the kernel's own choice asks others rather than waits for them, and is left out.
pub(crate) fn waiting() -> io::Result<Vec<Socket>> {
    let socket = open()?;
    let mut all = Vec::new();
    for (protocol, number, states) in [(PortProtocol::Tcp, TCP, LISTEN), (PortProtocol::Udp, UDP, CLOSE)] {
        for family in [INET, INET6] {
            dump(&socket, &request(family, number, states), |message| {
                all.extend(read(message, protocol));
            })?;
        }
    }
    let ephemeral = ephemeral();
    all.retain(|socket| socket.protocol == PortProtocol::Tcp || !ephemeral.contains(&socket.port));
    Ok(all)
}

/// Ends the TCP connections of this system's own, to their processes and their peers, that `is_one` says of their own
/// address and their peer's. In the calling thread's network namespace; the kernel needs `CONFIG_INET_DIAG_DESTROY`.
pub(crate) fn end_connections(is_one: impl Fn(SocketAddr, SocketAddr) -> bool) -> io::Result<()> {
    let socket = open()?;
    // One that cannot be ended is no reason to leave the others.
    let mut outcome = Ok(());
    for family in [INET, INET6] {
        let mut ids = Vec::new();
        dump(&socket, &request(family, TCP, CONNECTED), |message| {
            // A socket of IPv6 may speak IPv4.
            let plain = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
            let ends = address(message, PORT, ADDRESS).zip(address(message, PEER_PORT, PEER_ADDRESS));
            let is_wanted = ends.is_some_and(|(local, remote)| is_one(plain(local), plain(remote)));
            ids.extend(message.get(ID).filter(|_| is_wanted).map(<[u8]>::to_vec));
        })?;
        for id in ids {
            let request = message(DESTROY, NLM_F_REQUEST | NLM_F_ACK, [family, TCP], CONNECTED, &id);
            outcome = outcome.and(dump(&socket, &request, |_| {}));
        }
    }
    outcome
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
}

fn request(family: u8, protocol: u8, states: u32) -> Vec<u8> {
    message(BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, [family, protocol], states, &[])
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn message(kind: u16, flags: u16, [family, protocol]: [u8; 2], states: u32, id: &[u8]) -> Vec<u8> {
    const LENGTH: usize = 16 + 56;
    let mut bytes = u32::try_from(LENGTH).expect("it is short").to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, protocol, 0, 0]);
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.extend_from_slice(id);
    bytes.resize(LENGTH, 0);
    bytes
}

/// Asks for something, and reads the answers to their end.
fn dump(socket: &OwnedFd, request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    send(socket, request, SendFlags::empty())?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let (_, length) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return refused(message.payload()),
                _ => each(message.payload()),
            }
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A kernel without this family or protocol has no such sockets, and one that is gone has ended.
fn refused(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(code.wrapping_neg());
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn read(message: &[u8], protocol: PortProtocol) -> Option<Socket> {
    let (address, port) = address(message, PORT, ADDRESS)?;
    let (mut v6_only, mut cgroup) = (false, None);
    for attribute in NlasIterator::new(message.get(MESSAGE..)?).flatten() {
        match attribute.kind() {
            V6_ONLY => v6_only = attribute.value().first() == Some(&1),
            CGROUP => cgroup = attribute.value().first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
            _ => {}
        }
    }
    (port != 0).then_some(Socket { protocol, address, port, v6_only, cgroup: cgroup? })
}

/// An address and a port of a socket, at these places of the message.
fn address(message: &[u8], port: usize, address: usize) -> Option<(IpAddr, u16)> {
    let port = u16::from_be_bytes(*message.get(port..)?.first_chunk()?);
    let address = message.get(address..)?;
    let address = match *message.get(FAMILY)? {
        INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        INET6 => IpAddr::from(Ipv6Addr::from(*address.first_chunk::<16>()?)),
        _ => return None,
    };
    Some((address, port))
}

/// Linux' own default, where it does not tell.
fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string(EPHEMERAL).unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}
