//! Routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Netlink, NetlinkError, Request};
use crate::Subnet;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;

/// `struct rtmsg` in bytes.
const HEADER: usize = 12;

/// Sends everything of one family that has no better route to `gateway`, or straight to the device, instead of where it was
/// sent before.
pub(crate) fn set_default_route(index: u32, gateway: Option<IpAddr>, ipv4: bool) -> Request {
    let mut message = route(ipv4);
    match gateway {
        Some(IpAddr::V4(gateway)) => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        }
        Some(IpAddr::V6(gateway)) => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6(gateway)));
        }
        None if ipv4 => message.header.scope = RouteScope::Link,
        None => {}
    }
    message.attributes.push(RouteAttribute::Oif(index));
    Request {
        doing: match gateway {
            Some(gateway) => format!("route everything to {gateway}"),
            None => format!("route everything to device {index}"),
        },
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Sends what goes to a range straight to the device.
pub(crate) fn add_route(index: u32, range: Subnet) -> Request {
    let mut message = route(range.is_ipv4());
    message.header.destination_prefix_length = range.prefix();
    message.attributes.push(RouteAttribute::Destination(match range.base() {
        IpAddr::V4(base) => {
            message.header.scope = RouteScope::Link;
            RouteAddress::Inet(base)
        }
        IpAddr::V6(base) => RouteAddress::Inet6(base),
    }));
    message.attributes.push(RouteAttribute::Oif(index));
    Request {
        doing: format!("route {range} to device {index}"),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Takes the route away that everything goes which has no better one, if there is one.
pub(crate) fn delete_default_route(netlink: &mut Netlink, ipv4: bool) -> Result<(), NetlinkError> {
    let mut message = route(ipv4);
    // One of either scope: to a gateway, or straight to a device.
    message.header.scope = RouteScope::NoWhere;
    let message = RouteNetlinkMessage::DelRoute(message);
    match netlink.batch(vec![Request { doing: "take a default route away".into(), message, flags: 0 }]) {
        Err(error) if error.is(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// To everything of a family.
fn route(ipv4: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}

/// The ranges that this system reaches by some route other than the default ones. Single addresses and link-local
/// ranges, which every device has, are none.
pub(crate) fn connected_ranges(netlink: &mut Netlink) -> io::Result<Vec<Subnet>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        match netlink.dump(&RouteNetlinkMessage::GetRoute(message), |payload| read(payload, family)) {
            Ok(ranges) => all.extend(ranges),
            // A kernel without IPv6 has no such routes.
            Err(_) if family == AddressFamily::Inet6 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn read(payload: &[u8], family: AddressFamily) -> Option<Subnet> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.destination_prefix_length == 0 || header.kind != RouteType::Unicast {
        return None;
    }
    let mut attributes = NlasIterator::new(payload.get(HEADER..)?).flatten();
    let destination = attributes.find(|attribute| attribute.kind() == RTA_DST)?;
    let bytes = destination.value();
    let address = match family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
    };
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    (!link_local).then(|| Subnet::containing(address, header.destination_prefix_length))
}
