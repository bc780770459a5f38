//! The kernel's tables, all of them, by rtnetlink(7): VPNs keep theirs beside the main one.

use super::Route;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// `sizeof(struct nlmsghdr)` and `sizeof(struct rtmsg)` (linux/netlink.h, linux/rtnetlink.h).
const HEADER: usize = 16;
const ROUTE: usize = 12;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;
/// `RTN_UNICAST`: leads to others, not to this computer itself and not nowhere.
const UNICAST: u8 = 1;
/// `RTM_F_CLONED`: not of the table, but made from it.
const CLONED: u32 = 0x200;
const RTA_DST: u16 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;

/// More than the kernel ever sends at once in a dump (32 KiB).
const RECEIVE_BYTES: usize = 64 << 10;

pub(super) fn routes() -> io::Result<Vec<Route>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut routes = Vec::new();
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if read(&buffer[..length], &mut routes)? {
            return Ok(routes);
        }
    }
}

/// Asks for all routes of all families.
fn request() -> [u8; HEADER + ROUTE] {
    let mut request = [0; HEADER + ROUTE];
    request[..4].copy_from_slice(&((HEADER + ROUTE) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request
}

/// Takes the routes of what came; whether that was the last.
fn read(mut bytes: &[u8], routes: &mut Vec<Route>) -> io::Result<bool> {
    while let Some(header) = bytes.get(..HEADER) {
        let length = u32::from_ne_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let Some(body) = bytes.get(HEADER..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code =
                    body.get(..4).map_or(0, |code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
                return Err(io::Error::from_raw_os_error(-code));
            }
            RTM_NEWROUTE => routes.extend(route(body)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct rtmsg`: family, bits of the destination, …, type at 7, flags at 8; attributes follow.
fn route(body: &[u8]) -> Option<Route> {
    let (family, prefix, kind) = (*body.first()?, *body.get(1)?, *body.get(7)?);
    let flags = u32::from_ne_bytes(body.get(8..ROUTE)?.try_into().ok()?);
    if kind != UNICAST || flags & CLONED != 0 {
        return None;
    }
    let destination = attribute(body.get(ROUTE..)?, RTA_DST);
    let address: IpAddr = match (family, destination) {
        (INET, Some(bytes)) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        (INET6, Some(bytes)) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        // That of a default route is not written out, nor is any other family's a concern here.
        _ => return None,
    };
    Route::of(address, prefix)
}

/// An attribute (`struct rtattr`: length, type, value), if it is there.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (attributes.get(..2)?, attributes.get(2..4)?);
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([kind[0], kind[1]]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn body(prefix: u8, kind: u8, destination: [u8; 4]) -> Vec<u8> {
        let mut body = vec![INET, prefix, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        for (attribute, value) in [(15u16, [254, 0, 0, 0]), (RTA_DST, destination)] {
            body.extend_from_slice(&8u16.to_ne_bytes());
            body.extend_from_slice(&attribute.to_ne_bytes());
            body.extend_from_slice(&value);
        }
        body
    }

    #[test]
    fn a_dump_is_read_up_to_its_end_and_an_error_is_told() {
        let mut routes = Vec::new();
        let first = [
            message(RTM_NEWROUTE, &body(12, UNICAST, [172, 16, 0, 0])),
            message(RTM_NEWROUTE, &body(32, 2, [10, 0, 0, 1])),
        ];
        assert!(!read(&first.concat(), &mut routes).unwrap());
        assert!(read(&message(NLMSG_DONE, &[0; 4]), &mut routes).unwrap());
        assert_eq!(routes, [Route { address: "172.16.0.0".parse().unwrap(), prefix: 12 }]);
        let error = read(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes()), &mut routes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let whole = first.concat();
        for end in 0..whole.len() {
            // Whatever is said of what is cut off, nothing breaks.
            let _ = read(&whole[..end], &mut routes);
        }
    }
}
