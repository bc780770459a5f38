//! Addresses of devices.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Request;
use crate::Subnet;

/// Gives a device an address in a range; the kernel adds the route to the range.
///
/// Who else might have an IPv6 address is not asked for: we grant them, and the answer takes a second.
pub(crate) fn add_address(index: u32, address: IpAddr, range: Subnet) -> Request {
    let mut message = AddressMessage::default();
    message.header.prefix_len = range.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Local(address));
    match range.last() {
        IpAddr::V4(last) => {
            message.header.family = AddressFamily::Inet;
            message.attributes.push(AddressAttribute::Broadcast(last));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    Request {
        doing: format!("give device {index} the address {address}/{}", range.prefix()),
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}
