//! `bridge`: a switch in the kernel, and for each container a cable (veth pair) from it into the container.
//!
//! Whose a device is, is written on it: the alias `caisson:<network id>`. So several engines, dockerd among them, can
//! live on one system, each with bridges of its own, and a device that a crash left is known as ours without any
//! record. A bridge without a mark that a network is to be on is its user's, and stays. The default bridge is `docker0`, as users expect, or `caisson0` and so on where that name is another's; those
//! of users are `br-` and the beginning of the network's id, or what the user named.
//!
//! Between containers of one bridge packets are bridged. What leads out, and what must not, is the firewall's business;
//! only `enable_icc=false` is done here as well: ports that are isolated from each other in the switch itself.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caisson_sys::netns::Netns;
use rustix::io::Errno;

use super::bridge_options::{
    BridgeOptions, GatewayMode, HOST_BINDING, ICC, IFACE_PREFIX, MASQUERADE, MTU, NAME,
};
use super::interface::configure;
use super::options::DEFAULT_MTU;
use super::{Driver, DriverError, Features, MARK, Reason, Unfit, mark};
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::{self, Link, Netlink, Veth};
use crate::{Mac, ids};

/// The default bridge's name, which users expect.
const DEFAULT_NAME: &str = "docker0";
/// How many other names are tried for it.
const OTHER_NAMES: u32 = 100;
/// What the kernel takes as the largest packet of a bridge, in bytes (`ETH_MIN_MTU` and `ETH_MAX_MTU`).
const MTU_LIMITS: std::ops::RangeInclusive<u32> = 68..=65_535;
/// The kernel's `IFNAMSIZ`, without the end of the text.
const LONGEST_NAME: usize = 15;

/// The name that a network's bridge has, or gets if it is free.
pub(crate) fn device_name(network: &NetworkRecord) -> String {
    match network.options.get(NAME) {
        Some(name) if !name.is_empty() => name.clone(),
        _ if network.is_default_bridge() => DEFAULT_NAME.to_owned(),
        _ => format!("br-{}", &network.id[..12]),
    }
}

/// All bridges of one driver.
#[derive(Debug)]
pub(super) struct Bridge {
    name: &'static str,
    /// Whether its networks may have several ranges of one family.
    many_ranges: bool,
    /// The bridges that this process has made, or found and put in order, by network. Locked for a moment only.
    made: Mutex<HashMap<String, Link>>,
    /// Held by the one that makes one.
    turn: Mutex<()>,
}

impl Driver for Bridge {
    fn name(&self) -> &'static str {
        self.name
    }

    fn features(&self) -> Features {
        Features { namespace: true, address: true, routed: true }
    }

    fn check(&self, network: &mut NetworkRecord, others: &[NetworkRecord]) -> Result<(), Unfit> {
        let options = BridgeOptions::of(network)?;
        if options.modes.contains(&GatewayMode::Isolated) && !network.internal {
            return Err(Unfit::Internal(
                "gateway mode 'isolated' can only be used for an internal network".into(),
            ));
        }
        if !self.many_ranges && [true, false].iter().any(|ipv4| network.pools_of(*ipv4).count() > 1) {
            return Err(Unfit::Forbidden(format!("{} driver doesn't support multiple subnets", self.name)));
        }
        let name = device_name(network);
        if !(MTU_LIMITS).contains(&options.mtu) {
            return Err(Unfit::Internal("invalid argument".into()));
        }
        if name.len() > LONGEST_NAME {
            return Err(Unfit::Internal("numerical result out of range".into()));
        }
        let bridges = others.iter().filter(|other| other.driver == self.name() && !other.config_only);
        if let Some(other) = bridges.into_iter().find(|other| device_name(other) == name) {
            return Err(Unfit::Forbidden(format!(
                "cannot create network {} ({name}): conflicts with network {} ({name}): networks have same bridge name",
                network.id, other.id
            )));
        }
        Ok(())
    }

    fn options(&self, network: &NetworkRecord) -> BTreeMap<String, String> {
        if !network.is_default_bridge() {
            return network.options.clone();
        }
        let name = self.made().get(&network.id).map_or(DEFAULT_NAME.into(), |device| device.name.clone());
        let options = [
            ("com.docker.network.bridge.default_bridge", "true".to_owned()),
            (ICC, "true".to_owned()),
            (MASQUERADE, "true".to_owned()),
            (HOST_BINDING, "0.0.0.0".to_owned()),
            (NAME, name),
            (MTU, DEFAULT_MTU.to_string()),
        ];
        options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn has_gateway(&self, network: &NetworkRecord, ipv4: bool) -> bool {
        let isolated = |options: BridgeOptions| options.mode(ipv4) == GatewayMode::Isolated;
        !BridgeOptions::of(network).is_ok_and(isolated)
    }

    fn interface_prefix<'a>(&self, network: &'a NetworkRecord) -> Option<&'a str> {
        network.options.get(IFACE_PREFIX).map(String::as_str).filter(|prefix| !prefix.is_empty())
    }

    fn is_made(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        let mut netlink = Netlink::open()?;
        let made = self.made().get(&network.id).cloned();
        match made {
            Some(device) => Ok(netlink::find_link(&mut netlink, &device.name)?.as_ref() == Some(&device)),
            None => Ok(own_bridge(&mut netlink, network)?.is_some()),
        }
    }

    fn make(&self, network: &NetworkRecord) -> Result<bool, DriverError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut netlink = Netlink::open()?;
        let made = self.made().get(&network.id).cloned();
        if let Some(device) = made
            && netlink::find_link(&mut netlink, &device.name)?.as_ref() == Some(&device)
        {
            return Ok(false);
        }
        let device = make(&mut netlink, network)?;
        self.made().insert(network.id.clone(), device);
        Ok(true)
    }

    fn device(&self, network: &NetworkRecord) -> Option<String> {
        self.made().get(&network.id).map(|device| device.name.clone())
    }

    fn left_device(&self, network: &NetworkRecord) -> Result<Option<String>, DriverError> {
        Ok(present(&mut Netlink::open()?, network)?.map(|bridge| bridge.name))
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
        let options = BridgeOptions::of_record(network)?;
        let bridge = self.index(network)?;
        let peer = &record.endpoint.interface;
        let veth = Veth { name, bridge, netns: netns.as_fd(), peer, mac: link.mac, mtu: options.mtu };
        let mut outside = Netlink::open()?;
        let alias = netlink::set_alias(name, &mark(network));
        outside.batch(vec![netlink::create_veth(&veth), alias]).map_err(|error| not_named(&veth, error))?;
        let port = index_of(&mut outside, name)?;
        if !options.icc {
            outside.batch(vec![netlink::isolate_from_neighbours(port)])?;
        }
        let device = configure(netns, inside, record, link)?;
        // From the container to the bridge: each end notices what the one before it has.
        netlink::await_carrier(inside, device)?;
        netlink::await_carrier(&mut outside, port)?;
        Ok(netlink::await_carrier(&mut outside, bridge)?)
    }

    fn is_joined(&self, record: &EndpointRecord, _: Option<&Path>) -> Result<bool, DriverError> {
        let Some(name) = &record.device else { return Ok(false) };
        Ok(netlink::find_link(&mut Netlink::open()?, name)?.is_some())
    }

    fn isolate(&self, record: &EndpointRecord, _: Option<&Path>) -> Result<(), DriverError> {
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

    fn dismantle(&self, network: &NetworkRecord, _: &[NetworkRecord]) -> Result<(), DriverError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.made().remove(&network.id);
        let mut netlink = Netlink::open()?;
        match own_bridge(&mut netlink, network)? {
            Some(bridge) => Ok(netlink::delete_link(&mut netlink, &bridge.name)?),
            None => Ok(()),
        }
    }
}

impl Bridge {
    pub(super) fn new() -> Self {
        Self::named("bridge")
    }

    /// Those of a driver whose networks are bridges, too, and more.
    pub(super) fn named(name: &'static str) -> Self {
        Self { name, many_ranges: false, made: Mutex::default(), turn: Mutex::default() }
    }

    /// The same, for networks of many ranges.
    pub(super) fn of_many_ranges(self) -> Self {
        Self { many_ranges: true, ..self }
    }

    /// The index of a network's bridge, once it is made.
    pub(super) fn index(&self, network: &NetworkRecord) -> Result<u32, DriverError> {
        let index = self.made().get(&network.id).map(|device| device.index);
        Ok(index.ok_or_else(|| Reason::Gone(network.name.clone()))?)
    }

    fn made(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the bridge, or puts in order what an engine before this one has left of it.
fn make(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Link, DriverError> {
    let device = match present(netlink, network)? {
        Some(device) => device,
        None => create(netlink, network)?,
    };
    // A crash may have come between the creation of the bridge and this.
    if network.pools_of(false).next().is_some() {
        switch_on_ipv6(&device.name)?;
    }
    let inhibit = BridgeOptions::of_record(network)?.inhibit_ipv4;
    let own = |pool: &crate::IpamPool| Some(netlink::add_address(device.index, pool.gateway?, pool.subnet));
    let addresses = network.active_pools().filter(|pool| !(inhibit && pool.subnet.is_ipv4())).filter_map(own);
    netlink.batch(addresses.chain([netlink::set_up(device.index)]).collect())?;
    Ok(device)
}

/// A name that the container's device cannot have, in dockerd's words.
fn not_named(veth: &Veth<'_>, error: netlink::NetlinkError) -> DriverError {
    let why = [Errno::EXIST, Errno::INVAL, Errno::RANGE].into_iter().find(|errno| error.is(*errno));
    let Some(why) = why else { return error.into() };
    let why = super::interface::in_gos_words(&why.into());
    Reason::Interface {
        device: veth.name.to_owned(),
        why: format!("error renaming interface {:?} to {:?}: {why}", veth.name, veth.peer),
    }
    .into()
}

pub(super) fn switch_on_ipv6(device: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no IPv6"))
        }
        other => other,
    }
}

pub(super) fn index_of(netlink: &mut Netlink, device: &str) -> Result<u32, DriverError> {
    let found = netlink::find_link(netlink, device)?;
    Ok(found.ok_or_else(|| Reason::Gone(device.to_owned()))?.index)
}

/// The bridge that the network is on, if it is there: its own, or its user's.
fn present(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Option<Link>, DriverError> {
    Ok(match own_bridge(netlink, network)? {
        Some(bridge) => Some(bridge),
        None => users_bridge(netlink, network)?,
    })
}

fn own_bridge(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Option<Link>, DriverError> {
    let mark = mark(network);
    let own = |link: &Link| link.kind.as_deref() == Some("bridge") && link.is_marked(&mark);
    Ok(netlink::links(netlink)?.into_iter().find(own))
}

/// The bridge that the network is to be on and that somebody else has made, as dockerd has it: it is used, and stays when
/// the network goes.
fn users_bridge(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Option<Link>, DriverError> {
    let Some(name) = network.options.get(NAME).filter(|name| !name.is_empty()) else { return Ok(None) };
    let engines = |link: &Link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(MARK));
    let found = netlink::find_link(netlink, name)?;
    Ok(found.filter(|link| link.kind.as_deref() == Some("bridge") && !engines(link)))
}

/// Makes the bridge, down.
///
/// It is born under a name that nobody has and with our mark on it, and renamed then: a bridge that appeared under the
/// wanted name meanwhile is left alone, and a crash in between leaves a bridge that is known as ours.
fn create(netlink: &mut Netlink, network: &NetworkRecord) -> Result<Link, DriverError> {
    let options = BridgeOptions::of_record(network)?;
    let born = ids::device_name("br");
    let gateway = network.active_pools().find_map(|pool| pool.gateway);
    let mac = gateway.map_or_else(|| Mac::of(IpAddr::from(rand::random::<[u8; 4]>())), Mac::of);
    let create = netlink::create_bridge(&born, mac, options.mtu);
    netlink.batch(vec![create, netlink::set_alias(&born, &mark(network))])?;
    let mut bridge = netlink::find_link(netlink, &born)?.ok_or_else(|| Reason::Gone(born.clone()))?;
    let others = (0..OTHER_NAMES).map(|n| format!("caisson{n}")).filter(|_| network.is_default_bridge());
    let mut refusal = None;
    for name in std::iter::once(device_name(network)).chain(others) {
        match netlink.batch(vec![netlink::rename(bridge.index, &name)]) {
            Ok(()) => {
                bridge.name = name;
                return Ok(bridge);
            }
            Err(error) if error.is(Errno::EXIST) => refusal = Some(taken(netlink, &name, error)?),
            Err(error) => return Err(forgo(netlink, &born, error)),
        }
    }
    match refusal {
        // One without the expected name is better than none.
        _ if network.is_default_bridge() => Ok(bridge),
        Some(error) => Err(forgo(netlink, &born, error)),
        None => Ok(bridge),
    }
}

/// Why a bridge cannot have this name, in dockerd's words where it has some.
fn taken(
    netlink: &mut Netlink,
    name: &str,
    error: netlink::NetlinkError,
) -> Result<DriverError, DriverError> {
    match netlink::find_link(netlink, name)? {
        Some(other) if other.kind.as_deref() != Some("bridge") => {
            Ok(Reason::Refused(format!("existing interface {name} is not a bridge")).into())
        }
        _ => Ok(error.into()),
    }
}

/// Gives up a bridge that cannot be named.
fn forgo(netlink: &mut Netlink, born: &str, error: impl Into<DriverError>) -> DriverError {
    // What it is not deleted for is in the error that is reported: the kernel refuses changes.
    let _ = netlink::delete_link(netlink, born);
    error.into()
}
