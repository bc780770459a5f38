//! `overlay`: networks of several nodes, of which here is one. Containers join those that are attachable.
//!
//! The switch is a [bridge](super::bridge) with one port more: a VXLAN (RFC 7348), by which packets would go to
//! containers on other nodes. There are none, so it has no peers and learns of none, and what is flooded into it goes
//! nowhere. It is an open door, though: whoever sends the kernel a packet with the VXLAN's number, a container for
//! instance, would speak on the network. The firewall drops these, by that number, and only then the VXLAN is made.
//!
//! An overlay may have several ranges of a family, all on the one bridge, on which they reach each other. In a swarm each
//! has a VXLAN of its own; what would be on the wire is nobody's business here, so one number is all that a network has.
//!
//! The VXLAN is where the bridge is, in this system's own namespace: the way out and published ports are the bridge's, as
//! of any network here. What a swarm's network has besides (a second device for the way out, an ingress) is for services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use caisson_sys::netns::Netns;
use rustix::io::Errno;

use super::bridge::{Bridge, index_of};
use super::bridge_options::BridgeOptions;
use super::{Driver, DriverError, Features, Reason, Unfit, mark};
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::{self, Netlink, NetlinkError, Vxlan};
use crate::{DefaultPool, EndpointLink, Subnet};

/// The driver's name.
pub(super) const OVERLAY: &str = "overlay";
/// Where VXLANs are spoken with, in UDP (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4789;

/// Numbers of VXLANs, a list of which one is a network's; dockerd writes there what it has chosen, too.
const VNIS: &str = "com.docker.network.driver.overlay.vxlanid_list";
const ENCRYPTED: &str = "encrypted";
/// The numbers of those who name none: above those of VLANs, as libnetwork has it.
const FREE_VNIS: std::ops::RangeInclusive<u32> = 4096..=LAST_VNI;
/// They have 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// The number of a network's VXLAN, if it has one.
pub(crate) fn vni(network: &NetworkRecord) -> Option<u32> {
    vnis(network.options.get(VNIS).filter(|_| network.driver == OVERLAY)?).ok()?.first().copied()
}

/// Reads a list of numbers; the error is dockerd's.
fn vnis(list: &str) -> Result<Vec<u32>, Unfit> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= LAST_VNI);
    let wrong = |text: &str| Unfit::Invalid(format!("invalid vxlan id value {text:?} passed"));
    list.split(',').map(|text| number(text).ok_or_else(|| wrong(text))).collect()
}

/// The name of the VXLAN's device, as libnetwork's.
fn device_name(network: &NetworkRecord, vni: u32) -> String {
    format!("vx-{vni:06x}-{}", &network.id[..5])
}

/// Bridges with a VXLAN.
#[derive(Debug)]
pub(super) struct Overlay {
    bridges: Bridge,
    /// Held by the one that makes a VXLAN.
    turn: Mutex<()>,
}

impl Overlay {
    pub(super) fn new() -> Self {
        Self { bridges: Bridge::named(OVERLAY).of_many_ranges(), turn: Mutex::default() }
    }

    /// Makes the VXLAN, as a port of the bridge, unless it is there.
    fn make_port(&self, network: &NetworkRecord, vni: u32) -> Result<(), DriverError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut netlink = Netlink::open()?;
        if has_port(&mut netlink, network, vni)? {
            return Ok(());
        }
        let bridge = self.bridges.index(network)?;
        let mtu = BridgeOptions::of_record(network)?.mtu;
        let name = device_name(network, vni);
        let create = netlink::create_vxlan(&Vxlan { name: &name, bridge, vni, port: VXLAN_PORT, mtu });
        let marked = netlink::set_alias(&name, &mark(network));
        netlink.batch(vec![create, marked]).map_err(|error| not_made(vni, error))
    }
}

/// The ranges of a network that an endpoint has no address of. They are on the same switch, and need no router.
fn other_ranges(network: &NetworkRecord, link: &EndpointLink) -> impl Iterator<Item = Subnet> {
    let ranges = network.active_pools().map(|pool| pool.subnet);
    ranges.filter(|range| !link.addresses().any(|own| range.contains(own.address)))
}

/// Whether the VXLAN is there.
fn has_port(netlink: &mut Netlink, network: &NetworkRecord, vni: u32) -> Result<bool, DriverError> {
    let found = netlink::find_link(netlink, &device_name(network, vni))?;
    Ok(found.is_some_and(|port| port.is_marked(&mark(network))))
}

fn not_made(vni: u32, error: NetlinkError) -> DriverError {
    if error.is(Errno::OPNOTSUPP) {
        let why = "overlay networks need VXLANs, which this kernel does not have (its module is named vxlan)";
        return Reason::Refused(why.into()).into();
    }
    if error.is(Errno::EXIST) {
        return Reason::Refused(format!("vxlan id {vni} is in use on this system")).into();
    }
    error.into()
}

/// The number that the network has asked for, or the first that is free.
fn choose_vni(network: &NetworkRecord, taken: &BTreeSet<u32>) -> Result<u32, Unfit> {
    let pool = || network.active_pools().next().map(|pool| pool.subnet.to_string()).unwrap_or_default();
    let Some(list) = network.options.get(VNIS) else {
        let free = FREE_VNIS.into_iter().find(|number| !taken.contains(number));
        return free.ok_or_else(|| {
            Unfit::Internal(format!("could not obtain vxlan id for pool {}: no bit available", pool()))
        });
    };
    let asked = vnis(list)?[0];
    if taken.contains(&asked) {
        return Err(Unfit::Internal(format!(
            "could not assign vxlan id {asked} to pool {}: requested bit is already allocated",
            pool()
        )));
    }
    Ok(asked)
}

/// The numbers that this engine's networks have, and those of other programs' VXLANs.
fn taken_vnis(others: &[NetworkRecord]) -> BTreeSet<u32> {
    // A kernel that does not tell refuses a number that it has in use.
    let present = Netlink::open().and_then(|mut netlink| netlink::vnis(&mut netlink)).unwrap_or_default();
    others.iter().filter_map(vni).chain(present).collect()
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        OVERLAY
    }

    fn features(&self) -> Features {
        self.bridges.features()
    }

    /// The network's number goes among its options, as dockerd's does.
    fn check(&self, network: &mut NetworkRecord, others: &[NetworkRecord]) -> Result<(), Unfit> {
        // As for dockerd, it is there to be asked for, whatever it is set to.
        if network.options.contains_key(ENCRYPTED) {
            return Err(Unfit::Forbidden(
                "option encrypted is not supported: an overlay network is of one node here, so nothing of it passes a wire"
                    .into(),
            ));
        }
        self.bridges.check(network, others)?;
        let vni = choose_vni(network, &taken_vnis(others))?;
        network.options.insert(VNIS.to_owned(), vni.to_string());
        Ok(())
    }

    /// A swarm's.
    fn default_pool(&self) -> Option<DefaultPool> {
        Some(DefaultPool { base: Subnet::containing(Ipv4Addr::new(10, 0, 0, 0), 8), size: 24 })
    }

    fn has_gateway(&self, network: &NetworkRecord, ipv4: bool) -> bool {
        self.bridges.has_gateway(network, ipv4)
    }

    fn interface_prefix<'a>(&self, network: &'a NetworkRecord) -> Option<&'a str> {
        self.bridges.interface_prefix(network)
    }

    fn is_made(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        self.bridges.is_made(network)
    }

    fn make(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        let is_new = self.bridges.make(network)?;
        let mut netlink = Netlink::open()?;
        let has_port = vni(network).map(|vni| has_port(&mut netlink, network, vni)).transpose()?;
        Ok(is_new || has_port == Some(false))
    }

    fn open(&self, network: &NetworkRecord) -> Result<(), DriverError> {
        vni(network).map_or(Ok(()), |vni| self.make_port(network, vni))
    }

    fn device(&self, network: &NetworkRecord) -> Option<String> {
        self.bridges.device(network)
    }

    fn left_device(&self, network: &NetworkRecord) -> Result<Option<String>, DriverError> {
        self.bridges.left_device(network)
    }

    fn new_device(&self) -> Result<Option<String>, DriverError> {
        self.bridges.new_device()
    }

    fn join(
        &self,
        network: &NetworkRecord,
        record: &EndpointRecord,
        netns: &Netns,
        inside: &mut Netlink,
    ) -> Result<(), DriverError> {
        self.bridges.join(network, record, netns, inside)?;
        let Some(link) = &record.endpoint.link else { return Ok(()) };
        let device = index_of(inside, &record.endpoint.interface)?;
        let routes = other_ranges(network, link).map(|range| netlink::add_route(device, range)).collect();
        Ok(inside.batch(routes)?)
    }

    fn is_joined(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<bool, DriverError> {
        self.bridges.is_joined(record, netns)
    }

    fn isolate(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<(), DriverError> {
        self.bridges.isolate(record, netns)
    }

    fn leave(&self, record: &EndpointRecord) -> Result<(), DriverError> {
        self.bridges.leave(record)
    }

    fn dismantle(&self, network: &NetworkRecord, others: &[NetworkRecord]) -> Result<(), DriverError> {
        let mut netlink = Netlink::open()?;
        if let Some(vni) = vni(network)
            && has_port(&mut netlink, network, vni)?
        {
            netlink::delete_link(&mut netlink, &device_name(network, vni))?;
        }
        self.bridges.dismantle(network, others)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn overlay(list: Option<&str>) -> NetworkRecord {
        let options = list.map(|list| (VNIS.to_owned(), list.to_owned())).into_iter().collect();
        NetworkRecord { options, ..NetworkRecord::new("n", OVERLAY) }
    }

    #[test]
    fn numbers_are_read_and_mistakes_get_dockerds_words() {
        assert_eq!(vni(&overlay(Some("4097,4098"))), Some(4097));
        assert_eq!(vni(&overlay(None)), None);
        for bad in ["", "x", "16777216", "-1", "4097,"] {
            let text = bad.rsplit(',').next().unwrap();
            let expected = format!("invalid vxlan id value {text:?} passed");
            assert_eq!(choose_vni(&overlay(Some(bad)), &BTreeSet::new()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_kernel_without_vxlans_is_told_of() {
        let refused = |errno: Errno| {
            not_made(4096, NetlinkError { doing: "create".into(), source: errno.into() }).to_string()
        };
        assert!(refused(Errno::OPNOTSUPP).contains("this kernel does not have"));
        assert_eq!(refused(Errno::EXIST), "vxlan id 4096 is in use on this system");
        assert_eq!(refused(Errno::PERM), "could not create");
    }

    proptest! {
        #[test]
        fn no_two_networks_have_one_number(
            steps in prop::collection::vec((prop::option::of(4094u32..4104), any::<Option<Index>>()), 1..60),
        ) {
            let mut made: Vec<NetworkRecord> = Vec::new();
            for (asked, removed) in steps {
                if let Some(index) = removed.filter(|_| !made.is_empty()) {
                    made.swap_remove(index.index(made.len()));
                }
                let taken: BTreeSet<u32> = made.iter().filter_map(vni).collect();
                let wanted = overlay(asked.map(|number| number.to_string()).as_deref());
                match (choose_vni(&wanted, &taken), asked) {
                    (Ok(chosen), _) => {
                        prop_assert!(!taken.contains(&chosen));
                        prop_assert!(asked.map_or(chosen >= 4096, |asked| asked == chosen));
                        prop_assert!(asked.is_some() || (4096..chosen).all(|lower| taken.contains(&lower)));
                        made.push(overlay(Some(&chosen.to_string())));
                    }
                    (Err(_), asked) => prop_assert!(taken.contains(&asked.unwrap())),
                }
            }
        }
    }
}
