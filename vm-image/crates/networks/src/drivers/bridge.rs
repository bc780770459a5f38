//! `bridge`: a switch in the kernel, and for each container a cable (veth pair) from it to the container's `eth0`.
//!
//! Whose a device is, is written on it: the alias `caisson:<network id>`. So several engines, dockerd among them, can
//! live on one system, each with a bridge of its own, and a device that a crash left is known as ours without any
//! record. The bridge is `docker0`, as users expect, or `caisson0` and so on where that name is another's.
//!
//! Forwarding is not switched on and nothing is masqueraded: between containers of one bridge, and between them and
//! this system, packets are bridged. What leads out is the business of the firewall, which is still to come.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caisson_sys::netns::Netns;
use rustix::io::Errno;

use super::{Driver, DriverError, Features, Reason};
use crate::book::{EndpointRecord, NetworkRecord};
use crate::ipam::choose_range;
use crate::netlink::{self, Link, Netlink, Veth};
use crate::{EndpointLink, IpamConfig, Mac, Subnet, ids};

/// The name that users expect.
const FIRST_NAME: &str = "docker0";
/// How many other names are tried.
const OTHER_NAMES: u32 = 100;
/// The size of the largest packet, in bytes; Ethernet's, as dockerd's default.
const MTU: u32 = 1500;
/// The container's end of the cable.
const INSIDE: &str = "eth0";

/// The default bridge.
#[derive(Debug, Default)]
pub(super) struct Bridge {
    /// The bridge that this process has made, or found and put in order. Locked for a moment only.
    made: Mutex<Option<Made>>,
    /// Held by the one that makes it.
    turn: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Made {
    device: Link,
    ipam: IpamConfig,
}

impl Driver for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn features(&self) -> Features {
        Features { namespace: true, address: true }
    }

    fn options(&self) -> BTreeMap<String, String> {
        let name = self.made().as_ref().map_or(FIRST_NAME.into(), |made| made.device.name.clone());
        let options = [
            ("com.docker.network.bridge.default_bridge", "true".to_owned()),
            ("com.docker.network.bridge.enable_icc", "true".to_owned()),
            ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
            ("com.docker.network.bridge.name", name),
            ("com.docker.network.driver.mtu", MTU.to_string()),
        ];
        options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn plan(&self, network: &NetworkRecord) -> Result<Option<IpamConfig>, DriverError> {
        let mut netlink = Netlink::open()?;
        match own_bridge(&mut netlink, network)? {
            Some(_) if network.ipam.is_some() => Ok(network.ipam),
            _ => free_range(&mut netlink, network).map(Some),
        }
    }

    fn prepare(&self, network: &NetworkRecord, in_use: bool) -> Result<Option<IpamConfig>, DriverError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut netlink = Netlink::open()?;
        let made = self.made().clone();
        if let Some(Made { device, ipam }) = made
            && netlink::find_link(&mut netlink, &device.name)?.as_ref() == Some(&device)
        {
            return Ok(Some(ipam));
        }
        let made = make(&mut netlink, network, in_use)?;
        let ipam = made.ipam;
        *self.made() = Some(made);
        Ok(Some(ipam))
    }

    fn new_device(&self) -> Result<Option<String>, DriverError> {
        let mut netlink = Netlink::open()?;
        loop {
            let name = ids::device_name("veth");
            if netlink::find_link(&mut netlink, &name)?.is_none() {
                return Ok(Some(name));
            }
        }
    }

    fn join(
        &self,
        network: &NetworkRecord,
        record: &EndpointRecord,
        netns: &Netns,
        inside: &mut Netlink,
    ) -> Result<(), DriverError> {
        // The name was free when it went on record, so neither this nor an undo touches a device of others.
        let (Some(name), Some(link)) = (&record.device, &record.endpoint.link) else { return Ok(()) };
        let bridge = self.made().as_ref().map(|made| made.device.index);
        let bridge = bridge.ok_or_else(|| Reason::Gone(network.name.clone()))?;
        let veth = Veth { name, bridge, netns: netns.as_fd(), peer: INSIDE, mac: link.mac, mtu: MTU };
        let mut outside = Netlink::open()?;
        outside.batch(vec![netlink::create_veth(&veth), netlink::set_alias(name, &mark(network))])?;
        let eth0 = configure(inside, link)?;
        // From the container to the bridge: each end notices what the one before it has.
        let port = index_of(&mut outside, name)?;
        netlink::await_carrier(inside, eth0)?;
        netlink::await_carrier(&mut outside, port)?;
        Ok(netlink::await_carrier(&mut outside, bridge)?)
    }

    fn is_joined(&self, record: &EndpointRecord) -> Result<bool, DriverError> {
        let Some(name) = &record.device else { return Ok(false) };
        Ok(netlink::find_link(&mut Netlink::open()?, name)?.is_some())
    }

    fn isolate(&self, record: &EndpointRecord) -> Result<(), DriverError> {
        let Some(name) = &record.device else { return Ok(()) };
        let mut netlink = Netlink::open()?;
        let Some(veth) = netlink::find_link(&mut netlink, name)? else { return Ok(()) };
        match netlink.batch(vec![netlink::isolate_port(veth.index)]) {
            Ok(()) => Ok(()),
            // Somebody took it off the bridge, or down. Deleting takes longer and always works.
            Err(_) => Ok(netlink::delete_link(&mut netlink, name)?),
        }
    }

    fn leave(&self, record: &EndpointRecord) -> Result<(), DriverError> {
        let Some(name) = &record.device else { return Ok(()) };
        Ok(netlink::delete_link(&mut Netlink::open()?, name)?)
    }

    fn sweep(&self, network: &NetworkRecord, keep: &BTreeSet<&str>) -> Result<(), DriverError> {
        let mut netlink = Netlink::open()?;
        for link in netlink::links(&mut netlink)? {
            if is_own(&link, network, "veth") && !keep.contains(link.name.as_str()) {
                netlink::delete_link(&mut netlink, &link.name)?;
            }
        }
        Ok(())
    }

    fn dismantle(&self, network: &NetworkRecord) -> Result<(), DriverError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *self.made() = None;
        let mut netlink = Netlink::open()?;
        match own_bridge(&mut netlink, network)? {
            Some(bridge) => Ok(netlink::delete_link(&mut netlink, &bridge.name)?),
            None => Ok(()),
        }
    }
}

impl Bridge {
    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the bridge, or puts in order what an engine before this one has left of it.
fn make(netlink: &mut Netlink, network: &NetworkRecord, in_use: bool) -> Result<Made, DriverError> {
    let (device, ipam) = match (own_bridge(netlink, network)?, network.ipam) {
        (Some(device), Some(ipam)) => (device, ipam),
        (None, Some(ipam)) if in_use => (create(netlink, network, &ipam)?, ipam),
        (device, _) => {
            let ipam = free_range(netlink, network)?;
            (device.map_or_else(|| create(netlink, network, &ipam), Ok)?, ipam)
        }
    };
    // A crash may have come between the creation of the bridge and this.
    let address = netlink::add_address(device.index, ipam.gateway, ipam.subnet);
    netlink.batch(vec![address, netlink::set_up(device.index)])?;
    Ok(Made { device, ipam })
}

/// Sets up the container's end; returns its index.
fn configure(inside: &mut Netlink, link: &EndpointLink) -> Result<u32, DriverError> {
    let eth0 = index_of(inside, INSIDE)?;
    inside.batch(vec![
        netlink::add_address(eth0, link.address, Subnet::containing(link.address, link.prefix)),
        netlink::set_up(eth0),
        netlink::add_default_route(eth0, link.gateway),
    ])?;
    Ok(eth0)
}

fn index_of(netlink: &mut Netlink, device: &str) -> Result<u32, DriverError> {
    let found = netlink::find_link(netlink, device)?;
    Ok(found.ok_or_else(|| Reason::Gone(device.to_owned()))?.index)
}

/// What is written on the devices of a network.
fn mark(network: &NetworkRecord) -> String {
    format!("caisson:{}", network.id)
}

fn is_own(link: &Link, network: &NetworkRecord, kind: &str) -> bool {
    link.kind.as_deref() == Some(kind) && link.alias.as_deref() == Some(mark(network).as_str())
}

fn own_bridge(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Option<Link>, DriverError> {
    Ok(netlink::links(netlink)?.into_iter().find(|link| is_own(link, network, "bridge")))
}

/// The network's range if no route of this system leads elsewhere with it, else one that none does.
fn free_range(netlink: &mut Netlink, network: &NetworkRecord) -> Result<IpamConfig, DriverError> {
    let routed = netlink::connected_ranges(netlink)?;
    let chosen = choose_range(network.ipam.map(|ipam| ipam.subnet), &routed);
    Ok(chosen.ok_or(Reason::NoRange)?)
}

/// Makes the bridge, down, and names it by the first name that is free.
///
/// It is born under a name that nobody has and with our mark on it, and renamed then: a bridge that appeared under the
/// wanted name meanwhile is left alone, and a crash in between leaves a bridge that is known as ours.
fn create(netlink: &mut Netlink, network: &NetworkRecord, ipam: &IpamConfig) -> Result<Link, DriverError> {
    let born = ids::device_name("br");
    let create = netlink::create_bridge(&born, Mac::of(ipam.gateway));
    netlink.batch(vec![create, netlink::set_alias(&born, &mark(network))])?;
    let mut bridge = netlink::find_link(netlink, &born)?.ok_or(Reason::Gone(born))?;
    let others = (0..OTHER_NAMES).map(|n| format!("caisson{n}"));
    for name in std::iter::once(FIRST_NAME.to_owned()).chain(others) {
        match netlink.batch(vec![netlink::rename(bridge.index, &name)]) {
            Err(error) if error.is(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => {
                bridge.name = name;
                break;
            }
        }
    }
    Ok(bridge)
}
