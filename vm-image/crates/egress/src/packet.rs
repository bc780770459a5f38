//! What is read of held packets.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A held packet that somebody decides on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The first of a connection.
    Syn { from: SocketAddr, to: SocketAddr },
    /// A ping.
    Echo(Echo),
}

/// A ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) identifier: [u8; 2],
    /// What stands behind the identifier: sequence number and data.
    pub(crate) rest: Vec<u8>,
}

impl Packet {
    /// Reads an IP packet; `None` for what the rules do not hold.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (from, to, protocol, payload) = match bytes.first()? >> 4 {
            4 => v4(bytes)?,
            6 => v6(bytes)?,
            _ => return None,
        };
        match protocol {
            TCP => {
                let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
                Some(Self::Syn { from: SocketAddr::new(from, port(0)?), to: SocketAddr::new(to, port(2)?) })
            }
            ICMP | ICMPV6 => {
                let identifier = *payload.get(4..)?.first_chunk()?;
                let rest = payload.get(6..)?.to_vec();
                Some(Self::Echo(Echo { from, to, identifier, rest }))
            }
            _ => None,
        }
    }
}

type Parts<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn v4(bytes: &[u8]) -> Option<Parts<'_>> {
    let header = usize::from(bytes[0] & 15) * 4;
    let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    Some((address(12)?, address(16)?, *bytes.get(9)?, bytes.get(header.max(20)..)?))
}

fn v6(bytes: &[u8]) -> Option<Parts<'_>> {
    let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
    let (mut protocol, mut payload) = (*bytes.get(6)?, bytes.get(40..)?);
    // Extension headers that say their own length (RFC 8200, section 4): hop-by-hop, routing, destination options.
    while let 0 | 43 | 60 = protocol {
        let length = (usize::from(*payload.get(1)?) + 1) * 8;
        (protocol, payload) = (payload[0], payload.get(length..)?);
    }
    Some((address(8)?, address(24)?, protocol, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4_packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn connections_and_pings_are_read() {
        let syn = v4_packet(TCP, &[0x12, 0x34, 0, 80, 0, 0, 0, 0]);
        let (from, to) = ("10.0.0.1:4660".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        assert_eq!(Packet::parse(&syn), Some(Packet::Syn { from, to }));
        let echo = v4_packet(ICMP, &[8, 0, 0, 0, 7, 8, 0, 1, b'x']);
        let Some(Packet::Echo(echo)) = Packet::parse(&echo) else { panic!("a ping") };
        assert_eq!((echo.identifier, echo.rest.as_slice()), ([7, 8], &[0, 1, b'x'][..]));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
        packet.extend_from_slice(&[0; 32]);
        packet.extend_from_slice(&[TCP, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&[0, 1, 0, 2]);
        let (from, to) = ("[::]:1".parse().unwrap(), "[::]:2".parse().unwrap());
        assert_eq!(Packet::parse(&packet), Some(Packet::Syn { from, to }));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 3u8..8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 15;
            }
            let _ = Packet::parse(&bytes);
        }
    }
}
