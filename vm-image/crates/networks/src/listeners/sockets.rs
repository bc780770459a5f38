//! The sockets of this system that wait for others, and whose they are (sock_diag(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use caisson_guest_proto::PortProtocol;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_msg` of `linux/inet_diag.h`, in bytes, and where its fields are.
const MESSAGE: usize = 72;
const FAMILY: usize = 0;
const PORT: usize = 4;
const ADDRESS: usize = 8;
/// Attributes (`INET_DIAG_*`).
const V6_ONLY: u16 = 11;
const CGROUP: u16 = 21;
/// States of TCP; a UDP socket that no one address is connected to has the second.
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;

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
pub(super) struct Socket {
    pub(super) protocol: PortProtocol,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// Whether one of IPv6 takes IPv6 only.
    pub(super) v6_only: bool,
    /// The id of the cgroup in which it was made.
    pub(super) cgroup: u64,
}

/// All of them, in the calling thread's network namespace.
///
/// A UDP socket under a number of the kernel's own choice asks others rather than waits for them, and is left out.
pub(super) fn waiting() -> io::Result<Vec<Socket>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
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

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(family: u8, protocol: u8, states: u32) -> Vec<u8> {
    const LENGTH: usize = 16 + 56;
    let mut bytes = u32::try_from(LENGTH).expect("it is short").to_ne_bytes().to_vec();
    bytes.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, protocol, 0, 0]);
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.resize(LENGTH, 0);
    bytes
}

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

/// A kernel without this family or protocol has no such sockets.
fn refused(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    let error = io::Error::from_raw_os_error(code.wrapping_neg());
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn read(message: &[u8], protocol: PortProtocol) -> Option<Socket> {
    let port = u16::from_be_bytes(*message.get(PORT..)?.first_chunk()?);
    let address = message.get(ADDRESS..)?;
    let address = match *message.get(FAMILY)? {
        INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        INET6 => IpAddr::from(Ipv6Addr::from(*address.first_chunk::<16>()?)),
        _ => return None,
    };
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

/// Linux' own default, where it does not tell.
fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string(EPHEMERAL).unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}
