//! What is told in the name of those who were asked: answers to pings, and that nobody takes a datagram. Whole IP packets,
//! from the address that was asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use caisson_guest_proto::EgressRefusal;
use socket2::{Domain, Protocol, Socket, Type};

const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;
/// Destination unreachable (RFC 792; RFC 4443, section 3.1).
const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;

/// Sockets that send them.
pub(crate) struct Raw {
    v4: Socket,
    v6: Option<Socket>,
}

impl Raw {
    pub(crate) fn open() -> io::Result<Self> {
        let raw = |domain| {
            // IPPROTO_RAW: the header is ours.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let v6 = raw(Domain::IPV6).inspect_err(|error| tracing::warn!(%error, "no IPv6 ping is answered"));
        Ok(Self { v4: raw(Domain::IPV4)?, v6: v6.ok() })
    }

    /// Answers a ping with what the host got.
    pub(crate) fn pong(&self, from: IpAddr, to: IpAddr, identifier: [u8; 2], rest: &[u8]) {
        let kind = if from.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
        self.send(from, to, icmp(kind, 0, &[&identifier[..], rest].concat()));
    }

    /// Tells the sender of a datagram that it does not arrive, unless it is to find out by waiting.
    pub(crate) fn not_delivered(&self, (sender, to): (SocketAddr, SocketAddr), why: EgressRefusal) {
        let Some(code) = code(to.is_ipv4(), why) else { return };
        let kind = if to.is_ipv4() { UNREACHABLE } else { UNREACHABLE_V6 };
        self.send(to.ip(), sender.ip(), icmp(kind, code, &[&[0; 4][..], &quoted(sender, to)].concat()));
    }

    /// What cannot be sent is lost, as it may be.
    fn send(&self, from: IpAddr, to: IpAddr, message: Vec<u8>) {
        let at = SocketAddr::new(to, 0).into();
        let sent = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.v4.send_to(&v4(from, to, message), &at),
            (IpAddr::V6(from), IpAddr::V6(to)) => match &self.v6 {
                Some(socket) => socket.send_to(&v6(from, to, message), &at),
                None => return,
            },
            _ => return,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %to, "an answer could not be sent");
        }
    }
}

/// What a datagram's sender is told; nothing of a silence that it is to wait for.
fn code(ipv4: bool, why: EgressRefusal) -> Option<u8> {
    match (why, ipv4) {
        (EgressRefusal::TimedOut, _) => None,
        (EgressRefusal::Refused, true) => Some(3),
        (EgressRefusal::Refused, false) => Some(4),
        (EgressRefusal::NetworkUnreachable, _) => Some(0),
        (EgressRefusal::HostUnreachable | EgressRefusal::Other, true) => Some(1),
        (EgressRefusal::HostUnreachable | EgressRefusal::Other, false) => Some(3),
        (EgressRefusal::Prohibited, true) => Some(13),
        (EgressRefusal::Prohibited, false) => Some(1),
    }
}

/// The headers of a datagram, by which its sender's kernel finds the socket that sent it.
fn quoted(sender: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const LENGTH: [u8; 2] = [0, 8];
    let udp = [&sender.port().to_be_bytes()[..], &to.port().to_be_bytes(), &LENGTH, &[0, 0]].concat();
    match (sender.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0], &from.octets()[..], &to.octets(), &udp].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&[0x60, 0, 0, 0, 0, 8, UDP, 64], &from.octets()[..], &to.octets(), &udp].concat()
        }
        _ => udp,
    }
}

fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], body].concat()
}

/// An IPv4 packet; the kernel fills in the header's checksum, length and identification (raw(7)).
fn v4(from: Ipv4Addr, to: Ipv4Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0], &from.octets()[..], &to.octets(), &message].concat()
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let (from, to) = (from.octets(), to.octets());
    // The checksum also counts the addresses, the length and the protocol (RFC 4443, section 2.3).
    let counted = [&from[..], &to, &[0, 0], &length, &[0, 0, 0, ICMPV6], &message].concat();
    let sum = checksum(&counted).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    [&[0x60, 0, 0, 0], &length[..], &[ICMPV6, 64], &from, &to, &message].concat()
}

/// The internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_add_up() {
        let packet = v4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, icmp(ECHO_REPLY, 0, &[1, 2, 0, 1, 7]));
        assert_eq!(checksum(&packet[20..]), 0);
        let (from, to) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let packet = v6(from, to, icmp(ECHO_REPLY_V6, 0, &[1, 2, 0, 1, 7]));
        let length = [0, 9];
        let counted =
            [&from.octets()[..], &to.octets(), &[0, 0], &length, &[0, 0, 0, ICMPV6], &packet[40..]].concat();
        assert_eq!((checksum(&counted), &packet[4..6]), (0, &length[..]));
    }
}
