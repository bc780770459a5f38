//! Devices: bridges, veth pairs, and what is known of each.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, InfoVxlan, IpVlanFlags, IpVlanMode,
    LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage, LinkProtoInfoBridge, MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Netlink, NetlinkError, Request};
use crate::Mac;

// linux/if_link.h and linux/if_bridge.h
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_FLUSH: u16 = 24;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const BR_STATE_DISABLED: u8 = 0;
const IF_OPER_UP: u8 = 6;

/// Attribute types carry flags in their two highest bits.
const TYPE_MASK: u16 = 0x3fff;

/// `struct ifinfomsg` in bytes.
const HEADER: usize = 16;

/// How long a kernel may take to notice that a cable was plugged in, and how often it is asked.
const CARRIER_PATIENCE: Duration = Duration::from_millis(200);
const CARRIER_PAUSE: Duration = Duration::from_millis(1);

/// What this crate wants to know of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Free text that the owner of a device may leave on it.
    pub(crate) alias: Option<String>,
    /// `bridge`, `veth`; `None` for hardware.
    pub(crate) kind: Option<String>,
}

impl Link {
    /// Whether exactly this is written on it.
    pub(crate) fn is_marked(&self, mark: &str) -> bool {
        self.alias.as_deref() == Some(mark)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let index = LinkHeader::parse(payload).ok()?.index;
        let mut link = Self { index, name: String::new(), alias: None, kind: None };
        for attribute in NlasIterator::new(payload.get(HEADER..)?).flatten() {
            match attribute.kind() & TYPE_MASK {
                IFLA_IFNAME => link.name = text(attribute.value()),
                IFLA_IFALIAS => link.alias = Some(text(attribute.value())),
                IFLA_LINKINFO => link.kind = kind(attribute.value()),
                _ => {}
            }
        }
        Some(link)
    }
}

fn kind(info: &[u8]) -> Option<String> {
    find(info, IFLA_INFO_KIND).map(|kind| text(&kind))
}

/// The value of an attribute.
fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    attributes.find(|attribute| attribute.kind() & TYPE_MASK == kind).map(|found| found.value().to_vec())
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// All devices of the socket's namespace.
pub(crate) fn links(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), Link::read)
}

/// The numbers of the VXLANs of the socket's namespace.
pub(crate) fn vnis(netlink: &mut Netlink) -> io::Result<Vec<u32>> {
    netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), |payload| {
        let info = find(payload.get(HEADER..)?, IFLA_LINKINFO)?;
        if kind(&info).as_deref() != Some("vxlan") {
            return None;
        }
        let id = find(&find(&info, IFLA_INFO_DATA)?, IFLA_VXLAN_ID)?;
        Some(u32::from_ne_bytes(*id.first_chunk()?))
    })
}

/// The device of this name, if there is one.
pub(crate) fn find_link(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    match netlink.get(RouteNetlinkMessage::GetLink(named(name)), Link::read) {
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        other => other,
    }
}

/// A bridge with this hardware address, down.
///
/// Without an address of its own a bridge takes that of its ports, and its neighbours lose it whenever a container
/// comes or goes.
pub(crate) fn create_bridge(name: &str, mac: Mac, mtu: u32) -> Request {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    Request {
        doing: format!("create the bridge {name}"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Two devices that are one cable: one end on a bridge, the other in a container.
pub(crate) struct Veth<'a> {
    /// The name of the end on the bridge.
    pub(crate) name: &'a str,
    /// The index of the bridge.
    pub(crate) bridge: u32,
    /// The other end's namespace.
    pub(crate) netns: BorrowedFd<'a>,
    /// The other end's name.
    pub(crate) peer: &'a str,
    /// The other end's hardware address.
    pub(crate) mac: Mac,
    /// The size of the largest packet of both ends, in bytes.
    pub(crate) mtu: u32,
}

/// A veth pair with both ends where they belong. The other end is down: the kernel refuses to bring it up before there
/// is a pair.
pub(crate) fn create_veth(veth: &Veth<'_>) -> Request {
    let mut peer = named(veth.peer);
    peer.attributes.push(LinkAttribute::NetNsFd(veth.netns.as_raw_fd()));
    peer.attributes.push(LinkAttribute::Address(veth.mac.0.to_vec()));
    peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
    let mut message = named(veth.name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(veth.mtu));
    message.attributes.push(LinkAttribute::Controller(veth.bridge));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request {
        doing: format!("create the veth pair {} and {}", veth.name, veth.peer),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// A device on top of another one: it sends and receives through that one's wire, with an address of its own.
pub(crate) struct Sublink<'a> {
    /// The index of the device below.
    pub(crate) parent: u32,
    /// The namespace in which it is born.
    pub(crate) netns: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a str,
    pub(crate) kind: SublinkKind,
    /// The size of the largest packet, in bytes; that of the device below, if none is given.
    pub(crate) mtu: Option<u32>,
}

/// How a [`Sublink`] shares the device below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SublinkKind {
    /// With a hardware address of its own; the mode is one of `linux/if_link.h`'s `MACVLAN_MODE`.
    Macvlan { mode: MacVlanMode, mac: Mac },
    /// With the parent's hardware address.
    Ipvlan { mode: IpVlanMode, flags: IpVlanFlags },
}

/// Makes a [`Sublink`], down.
pub(crate) fn create_sublink(link: &Sublink<'_>) -> Request {
    let mut message = named(link.name);
    message.attributes.push(LinkAttribute::Link(link.parent));
    message.attributes.push(LinkAttribute::NetNsFd(link.netns.as_raw_fd()));
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    let info = match link.kind {
        SublinkKind::Macvlan { mode, mac } => {
            message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
            let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
            vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(data)]
        }
        SublinkKind::Ipvlan { mode, flags } => {
            let data = InfoData::IpVlan(vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)]);
            vec![LinkInfo::Kind(InfoKind::IpVlan), LinkInfo::Data(data)]
        }
    };
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Request {
        doing: format!("create the device {} on top of device {}", link.name, link.parent),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// A device that leads nowhere, down.
pub(crate) fn create_dummy(name: &str) -> Request {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
    Request {
        doing: format!("create the device {name}"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// A VLAN of a device, down: packets with this tag (802.1Q) are its own.
pub(crate) fn create_vlan(name: &str, parent: u32, tag: u16) -> Request {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Link(parent));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(tag)])),
    ]));
    Request {
        doing: format!("create the VLAN device {name}"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// A port of a bridge that leads to other systems, in UDP.
pub(crate) struct Vxlan<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The index of the bridge.
    pub(crate) bridge: u32,
    /// Its number, which packets carry.
    pub(crate) vni: u32,
    /// The UDP port at which it listens.
    pub(crate) port: u16,
    /// The size of the largest packet in it, in bytes.
    pub(crate) mtu: u32,
}

/// A VXLAN without peers, which learns of none, up.
pub(crate) fn create_vxlan(vxlan: &Vxlan<'_>) -> Request {
    let mut message = named(vxlan.name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(vxlan.mtu));
    message.attributes.push(LinkAttribute::Controller(vxlan.bridge));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(vec![
            InfoVxlan::Id(vxlan.vni),
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(false),
        ])),
    ]));
    Request {
        doing: format!("create the VXLAN {}", vxlan.name),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Waits until a device that was brought up carries packets: its other end is up, too, and a bridge forwards.
///
/// The kernel notices such a change some time later, up to a second, and drops what is sent before. Asking after a
/// device makes it notice at once (since Linux 6.8; `rtnl_getlink` and `linkwatch_sync_dev` of its sources). An older
/// one is asked until it has noticed, or [`CARRIER_PATIENCE`] is over: then the first packets may be late.
pub(crate) fn await_carrier(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let give_up = Instant::now() + CARRIER_PATIENCE;
    let mut message = LinkMessage::default();
    message.header.index = index;
    while netlink.get(RouteNetlinkMessage::GetLink(message.clone()), operates)? == Some(false)
        && Instant::now() < give_up
    {
        thread::sleep(CARRIER_PAUSE);
    }
    Ok(())
}

fn operates(payload: &[u8]) -> Option<bool> {
    find(payload.get(HEADER..)?, IFLA_OPERSTATE).map(|state| state == [IF_OPER_UP])
}

/// Leaves a text on a device, which says whose it is.
pub(crate) fn set_alias(name: &str, alias: &str) -> Request {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    let doing = format!("mark the device {name}");
    Request { doing, message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Gives a device that is down another name.
pub(crate) fn rename(index: u32, name: &str) -> Request {
    let mut message = named(name);
    message.header.index = index;
    let doing = format!("name a device {name}");
    Request { doing, message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Brings a device up.
pub(crate) fn set_up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let doing = format!("bring up device {index}");
    Request { doing, message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Makes a port of a bridge deaf and mute at once and forgets the addresses that were seen behind it.
///
/// Deleting a device waits for the kernel's grace periods; this does not. So the address behind the port can be given
/// to another port before the device is gone.
pub(crate) fn isolate_port(index: u32) -> Request {
    let state = DefaultNla::new(IFLA_BRPORT_STATE, vec![BR_STATE_DISABLED]);
    let flush = DefaultNla::new(IFLA_BRPORT_FLUSH, Vec::new());
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes.push(LinkAttribute::ProtoInfoBridge(vec![
        LinkProtoInfoBridge::Other(state),
        LinkProtoInfoBridge::Other(flush),
    ]));
    let doing = format!("disable the bridge port {index}");
    Request { doing, message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Lets a port of a bridge talk with the system that has the bridge only, not with other ports of this kind.
pub(crate) fn isolate_from_neighbours(index: u32) -> Request {
    let isolated = DefaultNla::new(IFLA_BRPORT_ISOLATED, vec![1]);
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes.push(LinkAttribute::ProtoInfoBridge(vec![LinkProtoInfoBridge::Other(isolated)]));
    let doing = format!("isolate the bridge port {index} from its neighbours");
    Request { doing, message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Deletes a device (of a veth pair: both ends); one that is gone is deleted already.
pub(crate) fn delete_link(netlink: &mut Netlink, name: &str) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelLink(named(name));
    let doing = format!("delete the device {name}");
    match netlink.batch(vec![Request { doing, message, flags: 0 }]) {
        Err(error) if error.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}
