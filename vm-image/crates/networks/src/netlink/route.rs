//! Routes.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, Request};
use crate::Subnet;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;

/// `struct rtmsg` in bytes.
const HEADER: usize = 12;

/// Sends everything that has no better route to `gateway`.
pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    message.attributes.push(RouteAttribute::Oif(index));
    Request {
        doing: format!("route everything to {gateway}"),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// The IPv4 ranges that this system reaches by some route other than the default one.
pub(crate) fn connected_ranges(netlink: &mut Netlink) -> io::Result<Vec<Subnet>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    netlink.dump(&RouteNetlinkMessage::GetRoute(message), read)
}

fn read(payload: &[u8]) -> Option<Subnet> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.destination_prefix_length == 0 || header.kind != RouteType::Unicast {
        return None;
    }
    let mut attributes = NlasIterator::new(payload.get(HEADER..)?).flatten();
    let destination = attributes.find(|attribute| attribute.kind() == RTA_DST)?;
    let octets = destination.value().first_chunk::<4>()?;
    Some(Subnet::containing(Ipv4Addr::from(*octets), header.destination_prefix_length))
}
