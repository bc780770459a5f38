//! The routing table as BSD's kernels write it (route(4)): messages of one route each, with addresses behind.

use super::Route;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `sizeof(struct rt_msghdr)` of macOS (net/route.h), and where its fields are.
const HEADER: usize = 92;
const FLAGS: usize = 8;
const ADDRESSES: usize = 12;

/// `RTF_HOST`: to one address.
const HOST: u32 = 0x4;
/// `RTF_LLINFO`, `RTF_WASCLONED`: a neighbour, not a route.
const NEIGHBOUR: u32 = 0x400 | 0x2_0000;
/// `RTF_REJECT`, `RTF_BLACKHOLE`: leads nowhere.
const NOWHERE: u32 = 0x8 | 0x1000;

/// `RTA_DST`, `RTA_GATEWAY`, `RTA_NETMASK`: which addresses stand behind the header, in the order of their bits.
const DESTINATION: u32 = 1;
const GATEWAY: u32 = 2;
const NETMASK: u32 = 4;

/// `AF_INET` and `AF_INET6` of macOS, and where each has its address.
const INET: u8 = 2;
const INET_AT: usize = 4;
const INET6: u8 = 30;
const INET6_AT: usize = 8;

/// The routes of a dump (`NET_RT_DUMP`).
pub(super) fn routes(mut dump: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some(length) = dump.get(..2).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])))
    {
        let Some((message, rest)) = dump.split_at_checked(length).filter(|_| length >= HEADER) else { break };
        routes.extend(route(message));
        dump = rest;
    }
    routes
}

fn route(message: &[u8]) -> Option<Route> {
    let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let (flags, addresses) = (word(FLAGS)?, word(ADDRESSES)?);
    if flags & (NEIGHBOUR | NOWHERE) != 0 || addresses & DESTINATION == 0 {
        return None;
    }
    let mut rest = message.get(HEADER..)?;
    let destination = address(next(&mut rest)?)?;
    if flags & HOST != 0 {
        return Route::of(destination, if destination.is_ipv4() { 32 } else { 128 });
    }
    if addresses & GATEWAY != 0 {
        next(&mut rest)?;
    }
    // No mask is that of a default route.
    let mask = if addresses & NETMASK != 0 { next(&mut rest)? } else { &[] };
    Route::of(destination, prefix(mask, destination))
}

/// The next `struct sockaddr`. Each begins with its length and takes up a multiple of four bytes, an empty one four.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(*rest.first()?);
    let address = rest.get(..length)?;
    *rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    Some(address)
}

fn address(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        INET => Some(Ipv4Addr::from(padded::<4>(sockaddr, INET_AT)).into()),
        INET6 => Some(Ipv6Addr::from(padded::<16>(sockaddr, INET6_AT)).into()),
        _ => None,
    }
}

/// How many bits count. Masks are cut off behind their last byte that is not zero, and have no family.
fn prefix(mask: &[u8], destination: IpAddr) -> u8 {
    let ones = match destination {
        IpAddr::V4(_) => u32::from_be_bytes(padded(mask, INET_AT)).leading_ones(),
        IpAddr::V6(_) => u128::from_be_bytes(padded(mask, INET6_AT)).leading_ones(),
    };
    u8::try_from(ones).expect("there are 128 at most")
}

/// Some bytes, with zeros for those that are not there.
fn padded<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let there = from.get(at..).unwrap_or_default();
    let count = there.len().min(N);
    bytes[..count].copy_from_slice(&there[..count]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u32, sockaddrs: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        let mut which = 0;
        for (bit, sockaddr) in sockaddrs {
            which |= bit;
            message.extend_from_slice(sockaddr);
            message.resize(message.len().next_multiple_of(4), 0);
            if sockaddr.is_empty() || sockaddr[0] == 0 {
                message.resize(message.len().max(HEADER + 4), 0);
            }
        }
        let length = u16::try_from(message.len()).unwrap();
        message[..2].copy_from_slice(&length.to_ne_bytes());
        message[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
        message[ADDRESSES..ADDRESSES + 4].copy_from_slice(&which.to_ne_bytes());
        message
    }

    fn v4(octets: [u8; 4]) -> Vec<u8> {
        [&[16, INET, 0, 0][..], &octets, &[0; 8]].concat()
    }

    fn v6(address: &str) -> Vec<u8> {
        let octets = address.parse::<Ipv6Addr>().unwrap().octets();
        [&[28, INET6, 0, 0, 0, 0, 0, 0][..], &octets, &[0; 4]].concat()
    }

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let gateway: &[u8] = &[20, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let dump = [
            // default via a gateway: the mask is one byte, which is its length, zero
            message(0x3, &[(DESTINATION, &v4([0; 4])), (GATEWAY, gateway), (NETMASK, &[0])]),
            // 10.8/16: the mask is cut off behind its last byte
            message(
                0x1,
                &[(DESTINATION, &v4([10, 8, 0, 0])), (GATEWAY, gateway), (NETMASK, &[6, 0, 0, 0, 255, 255])],
            ),
            message(
                0x1,
                &[
                    (DESTINATION, &v4([192, 168, 1, 128])),
                    (GATEWAY, gateway),
                    (NETMASK, &[8, 0, 0, 0, 255, 255, 255, 128]),
                ],
            ),
            // to one address, and a neighbour
            message(0x1 | HOST, &[(DESTINATION, &v4([172, 17, 0, 9])), (GATEWAY, gateway)]),
            message(0x1 | HOST | 0x400, &[(DESTINATION, &v4([192, 168, 1, 129])), (GATEWAY, gateway)]),
            message(
                0x1,
                &[
                    (DESTINATION, &v6("fd12:3::")),
                    (GATEWAY, gateway),
                    (NETMASK, &[14, 30, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]),
                ],
            ),
            // a link's own address is of another family
            message(0x1, &[(DESTINATION, gateway)]),
        ];
        let found: Vec<String> = routes(&dump.concat())
            .iter()
            .map(|route| format!("{}/{}", route.address, route.prefix))
            .collect();
        assert_eq!(found, ["0.0.0.0/0", "10.8.0.0/16", "192.168.1.128/25", "172.17.0.9/32", "fd12:3::/48"]);
    }

    #[test]
    fn a_dump_that_is_cut_off_anywhere_harms_nobody() {
        let whole = message(0x1, &[(DESTINATION, &v4([10, 8, 0, 0])), (NETMASK, &[6, 0, 0, 0, 255, 255])]);
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            assert_eq!(routes(&cut), [], "{end}");
            if let Some(length) = cut.get_mut(..2) {
                length.copy_from_slice(&u16::try_from(end).unwrap().to_ne_bytes());
                routes(&cut);
            }
        }
    }
}
