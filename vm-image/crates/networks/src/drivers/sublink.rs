//! `macvlan` and `ipvlan`: the container's device lies on top of one of this system's (the parent), so that the container
//! is a neighbour of this system on the parent's wire.
//!
//! The parent is one that is there, or a VLAN of one (`eth0.10`), which is made; where none is named it is a dummy, which
//! is made, too: containers of such a network reach each other and nobody else. In the machine there is no wire, so
//! there a parent can only be a device that somebody made inside it.
//!
//! In ipvlan's modes l3 and l3s nobody answers for a gateway: everything is sent straight to the device, and the kernel
//! routes it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use caisson_sys::netns::{self, Netns};
use netlink_packet_route::link::{IpVlanFlags, IpVlanMode, MacVlanMode};
use rustix::io::Errno;

use super::bridge::index_of;
use super::interface::configure;
use super::{Driver, DriverError, Features, Reason, Unfit, mark, options};
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::{self, Netlink, NetlinkError, Sublink, SublinkKind};

const PARENT: &str = "parent";
const IPVLAN_FLAG: &str = "ipvlan_flag";

/// One of the two.
#[derive(Debug)]
pub(super) struct OnParent {
    name: &'static str,
    mode_option: &'static str,
    default_mode: &'static str,
    /// Whether this system is a machine on somebody's computer, whose cards are not here.
    in_machine: bool,
}

pub(super) const MACVLAN: OnParent =
    OnParent { name: "macvlan", mode_option: "macvlan_mode", default_mode: "bridge", in_machine: false };
pub(super) const IPVLAN: OnParent =
    OnParent { name: "ipvlan", mode_option: "ipvlan_mode", default_mode: "l2", in_machine: false };

/// The device below a network's endpoints.
enum Parent {
    /// One that is there, or a VLAN of another one.
    Named(String),
    /// One that leads nowhere.
    Dummy(String),
}

impl Parent {
    fn of(network: &NetworkRecord) -> Self {
        match network.options.get(PARENT).map(String::as_str) {
            None | Some("") => Self::Dummy(dummy_name(network)),
            Some(name) if name == dummy_name(network) => Self::Dummy(name.to_owned()),
            Some(name) => Self::Named(name.to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Named(name) | Self::Dummy(name) => name,
        }
    }
}

/// The device and the number in a VLAN's name, or dockerd's words for what is none.
fn vlan(name: &str) -> Result<(&str, i64), Reason> {
    let Some((of, tag)) = name.split_once('.').filter(|(_, tag)| !tag.contains('.')) else {
        let message = format!("invalid subinterface vlan name {name}, example formatting is eth0.10");
        return Err(Reason::Refused(message));
    };
    let number = tag.parse().map_err(|_| {
        Reason::Refused(format!("unable to parse a valid vlan id from: {tag} (ex. eth0.10 for vlan 10)"))
    })?;
    Ok((of, number))
}

/// The tag that a number is, if it is one (802.1Q).
fn tag(number: i64) -> Result<u16, Reason> {
    match u16::try_from(number) {
        Ok(tag @ 1..=4094) => Ok(tag),
        _ => Err(Reason::Refused(format!("vlan id must be between 1-4094, received: {number}"))),
    }
}

fn dummy_name(network: &NetworkRecord) -> String {
    format!("dm-{}", &network.id[..12])
}

impl OnParent {
    fn kind(&self, network: &NetworkRecord, mac: crate::Mac) -> Result<SublinkKind, Unfit> {
        let asked = network.options.get(self.mode_option).map(String::as_str).filter(|mode| !mode.is_empty());
        match (self.name, asked.unwrap_or(self.default_mode)) {
            ("macvlan", mode) => {
                let mode = match mode {
                    "bridge" => MacVlanMode::Bridge,
                    "private" => MacVlanMode::Private,
                    "vepa" => MacVlanMode::Vepa,
                    "passthru" => MacVlanMode::Passthrough,
                    other => return Err(self.not_a_mode(other)),
                };
                Ok(SublinkKind::Macvlan { mode, mac })
            }
            (_, mode) => {
                let mode = match mode {
                    "l2" => IpVlanMode::L2,
                    "l3" => IpVlanMode::L3,
                    "l3s" => IpVlanMode::L3S,
                    other => return Err(self.not_a_mode(other)),
                };
                Ok(SublinkKind::Ipvlan { mode, flags: flags(network)? })
            }
        }
    }

    fn not_a_mode(&self, mode: &str) -> Unfit {
        Unfit::Internal(format!(
            "requested {} mode '{mode}' is not valid, '{}' mode is the {} driver default",
            self.name, self.default_mode, self.name
        ))
    }

    /// The same driver in a machine on somebody's computer.
    pub(super) fn in_machine(self, in_machine: bool) -> Self {
        Self { in_machine, ..self }
    }

    /// The device of which a parent is to be made a VLAN, and the VLAN's number.
    fn parent_of_vlan(netlink: &mut Netlink, name: &str) -> Result<(u32, u16), Reason> {
        let (of, number) = vlan(name)?;
        let of = netlink::find_link(netlink, of)?
            .ok_or_else(|| Reason::Refused(format!("-o parent interface was not found on the host: {of}")))?;
        Ok((of.index, tag(number)?))
    }

    /// Who names one of their computer's cards is told where those are, and what there is instead.
    fn explain(&self, reason: Reason) -> Reason {
        match reason {
            Reason::Refused(why) if self.in_machine => Reason::Refused(format!(
                "{why} (a parent is a device of Caisson's machine, which has none of this computer's network cards; a network without a \
                 parent connects its containers with each other, one of the driver bridge with the rest of the world)"
            )),
            other => other,
        }
    }

    fn make_parent(&self, netlink: &mut Netlink, network: &NetworkRecord) -> Result<(), DriverError> {
        let parent = Parent::of(network);
        let name = parent.name();
        if netlink::find_link(netlink, name)?.is_none() {
            let create = match &parent {
                Parent::Dummy(_) => netlink::create_dummy(name),
                Parent::Named(_) => {
                    let (of, tag) =
                        Self::parent_of_vlan(netlink, name).map_err(|reason| self.explain(reason))?;
                    netlink::create_vlan(name, of, tag)
                }
            };
            let alias = netlink::set_alias(name, &mark(network));
            netlink.batch(vec![create, alias]).map_err(|error| not_made(&parent, error))?;
        }
        let index = index_of(netlink, name)?;
        Ok(netlink.batch(vec![netlink::set_up(index)])?)
    }
}

/// Which neighbours a device of ipvlan has (`IPVLAN_F_*` of `linux/if_link.h`).
fn flags(network: &NetworkRecord) -> Result<IpVlanFlags, Unfit> {
    match network.options.get(IPVLAN_FLAG).map_or("", String::as_str) {
        "" | "bridge" => Ok(IpVlanFlags::empty()),
        "private" => Ok(IpVlanFlags::Private),
        "vepa" => Ok(IpVlanFlags::Vepa),
        other => Err(Unfit::Internal(format!(
            "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
        ))),
    }
}

/// Whether everything is sent straight to the device.
fn is_layer_3(network: &NetworkRecord) -> bool {
    matches!(network.options.get(IPVLAN.mode_option).map(String::as_str), Some("l3" | "l3s"))
}

fn not_made(parent: &Parent, error: NetlinkError) -> DriverError {
    match parent {
        Parent::Named(name) if error.is(Errno::OPNOTSUPP) => {
            Reason::Refused(format!("failed to create {name} vlan link: operation not supported")).into()
        }
        _ => in_dockerd_s_words(error),
    }
}

/// dockerd passes on what the kernel says to a kind of device that it does not know, and nothing more.
fn in_dockerd_s_words(error: NetlinkError) -> DriverError {
    if error.is(Errno::OPNOTSUPP) {
        return Reason::Refused("operation not supported".into()).into();
    }
    error.into()
}

impl Driver for OnParent {
    fn name(&self) -> &'static str {
        self.name
    }

    fn features(&self) -> Features {
        Features { namespace: true, address: true, routed: false }
    }

    fn check(&self, network: &mut NetworkRecord, others: &[NetworkRecord]) -> Result<(), Unfit> {
        options::mtu(&network.options)?;
        let mac = crate::Mac([0; 6]);
        let kind = self.kind(network, mac)?;
        let parent = Parent::of(network);
        if parent.name() == "lo" {
            return Err(Unfit::Internal(format!(
                "loopback interface is not a valid {} parent link",
                self.name
            )));
        }
        let alone =
            |kind: SublinkKind| matches!(kind, SublinkKind::Macvlan { mode: MacVlanMode::Passthrough, .. });
        let same_parent = others.iter().filter(|other| other.driver == self.name && !other.config_only);
        for other in same_parent.filter(|other| Parent::of(other).name() == parent.name()) {
            if alone(kind) || self.kind(other, mac).is_ok_and(alone) {
                return Err(Unfit::Internal(format!(
                    "cannot use mode passthru, {} network {} is already using parent interface {}",
                    self.name,
                    other.id,
                    parent.name()
                )));
            }
        }
        Ok(())
    }

    fn is_straight(&self, network: &NetworkRecord) -> bool {
        self.name == IPVLAN.name && is_layer_3(network)
    }

    fn has_gateway(&self, network: &NetworkRecord, _: bool) -> bool {
        !network.internal && !self.is_straight(network)
    }

    fn is_made(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        Ok(netlink::find_link(&mut Netlink::open()?, Parent::of(network).name())?.is_some())
    }

    fn make(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        self.make_parent(&mut Netlink::open()?, network)?;
        Ok(false)
    }

    fn new_device(&self) -> Result<Option<String>, DriverError> {
        Ok(None)
    }

    fn join(
        &self,
        network: &NetworkRecord,
        record: &EndpointRecord,
        netns: &Netns,
        inside: &mut Netlink,
    ) -> Result<(), DriverError> {
        let Some(link) = &record.endpoint.link else { return Ok(()) };
        let unfit = |unfit: Unfit| DriverError::from(Reason::Refused(unfit.to_string()));
        let kind = self.kind(network, link.mac).map_err(unfit)?;
        let mtu = options::mtu(&network.options).map_err(unfit)?;
        let mut outside = Netlink::open()?;
        let parent = index_of(&mut outside, Parent::of(network).name())?;
        let name = &record.endpoint.interface;
        let sublink = Sublink { parent, netns: netns.as_fd(), name, kind, mtu };
        outside.batch(vec![netlink::create_sublink(&sublink)]).map_err(in_dockerd_s_words)?;
        configure(netns, inside, record, link).map(drop)
    }

    fn is_joined(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<bool, DriverError> {
        let Some(netns) = netns else { return Ok(false) };
        let mut inside = netns::enter(&Netns::open(netns)?, Netlink::open)?;
        Ok(netlink::find_link(&mut inside, &record.endpoint.interface)?.is_some())
    }

    fn isolate(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<(), DriverError> {
        let netns = match netns.map(Netns::open) {
            Some(Ok(netns)) => netns,
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            // The device went with the namespace.
            _ => return Ok(()),
        };
        let mut inside = netns::enter(&netns, Netlink::open)?;
        Ok(netlink::delete_link(&mut inside, &record.endpoint.interface)?)
    }

    fn leave(&self, _: &EndpointRecord) -> Result<(), DriverError> {
        Ok(())
    }

    /// A VLAN that another network is on as well goes with the last one.
    fn dismantle(&self, network: &NetworkRecord, others: &[NetworkRecord]) -> Result<(), DriverError> {
        let mut netlink = Netlink::open()?;
        let name = Parent::of(network).name().to_owned();
        let Some(parent) = netlink::find_link(&mut netlink, &name)? else { return Ok(()) };
        if parent.alias.as_deref() != Some(&mark(network)) {
            return Ok(());
        }
        let heir = others.iter().find(|other| {
            let on_parent = [MACVLAN.name, IPVLAN.name].contains(&other.driver.as_str());
            other.id != network.id && on_parent && !other.config_only && Parent::of(other).name() == name
        });
        match heir {
            Some(heir) => Ok(netlink.batch(vec![netlink::set_alias(&name, &mark(heir))])?),
            None => Ok(netlink::delete_link(&mut netlink, &name)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_is_a_device_and_a_tag() {
        assert_eq!(vlan("eth0.10").unwrap(), ("eth0", 10));
        for (name, message) in [
            ("eth0", "invalid subinterface vlan name eth0, example formatting is eth0.10"),
            ("a.b.1", "invalid subinterface vlan name a.b.1, example formatting is eth0.10"),
            ("e0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ] {
            assert_eq!(vlan(name).unwrap_err().to_string(), message);
        }
        for number in [-1, 0, 4095, 70_000] {
            let message = format!("vlan id must be between 1-4094, received: {number}");
            assert_eq!(tag(number).unwrap_err().to_string(), message);
        }
        assert_eq!(tag(4094).unwrap(), 4094);
    }
}
