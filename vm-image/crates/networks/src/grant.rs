//! One endpoint: the network made ready for it, and its addresses chosen.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLockReadGuard};

use caisson_sys::netns::Netns;

use crate::book::{Book, EndpointRecord, NetworkRecord};
use crate::drivers::{Driver, DriverError};
use crate::netlink::Netlink;
use crate::networks::Shared;
use crate::{AttachError, Endpoint, EndpointLink, IpamPool, Join, LinkAddress, Mac, ids};

/// The container's devices are named so, unless their user says otherwise.
const INTERFACE: &str = "eth";

/// The driver option by which a user names a container's device.
const INTERFACE_OPTION: &str = "com.docker.network.endpoint.ifname";
/// The one with the kernel's settings for it, with commas between them.
const SYSCTLS_OPTION: &str = "com.docker.network.endpoint.sysctls";
/// The prefix lengths of link-local addresses.
const LINK_LOCAL: (u8, u8) = (16, 64);

impl Shared {
    /// Gives the default bridge another range if it is to be joined and has to make way; after this it stays where it is for
    /// as long as what is returned is held, which is to be until the endpoints are on record. Blocks for the kernel.
    pub(crate) fn settle<'a>(
        &self,
        name: &str,
        joins: impl IntoIterator<Item = &'a Join>,
    ) -> Result<RwLockReadGuard<'_, ()>, AttachError> {
        for join in joins {
            let idle = {
                let book = self.book();
                let network = book.find_network(&join.network)?;
                let is_idle = network.is_default_bridge() && book.endpoints(&network.id).next().is_none();
                is_idle.then(|| network.clone())
            };
            if let Some(network) = idle {
                self.move_if_idle(network, name).map_err(|error| error.into_attach(name, &join.network))?;
            }
        }
        Ok(self.moving.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The network that is to be joined, with what its endpoints share made. Blocks for the kernel.
    pub(crate) fn prepare(
        &self,
        name: &str,
        join: &Join,
        _settled: &RwLockReadGuard<'_, ()>,
    ) -> Result<NetworkRecord, AttachError> {
        let network = self.book().find_network(&join.network)?.clone();
        if network.config_only {
            return Err(AttachError::ConfigOnly(network.name));
        }
        let driver = self.drivers.of(&network);
        let failed = |source: DriverError| AttachError::Endpoint {
            name: name.to_owned(),
            network: join.network.clone(),
            source,
        };
        if driver.make(&network).map_err(failed)? {
            self.refresh_rules()?;
            driver.open(&network).map_err(failed)?;
        }
        Ok(network)
    }

    /// Gives the default bridge, which nobody is on, another range if its own has come to lead elsewhere.
    fn move_if_idle(&self, network: NetworkRecord, name: &str) -> Result<(), MoveError> {
        let _turn = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have moved it in the meantime.
        let mut network = self.book().network(&network.id).cloned().unwrap_or(network);
        let driver = self.drivers.of(&network);
        // Its own route is one of this system's; only what lies beyond can have come to lead elsewhere.
        let avoided = self.avoided();
        let is_avoided = |pool: &IpamPool| avoided.iter().any(|range| range.overlaps(pool.subnet));
        let joined = self.book().endpoints(&network.id).next().is_some();
        if !joined && network.pools.iter().any(is_avoided) {
            driver.dismantle(&network, &[]).map_err(MoveError::Driver)?;
        }
        if !driver.is_made(&network).map_err(MoveError::Driver)? {
            self.move_if_taken(&mut network, name)?;
        }
        Ok(())
    }

    /// Gives the default bridge, of which nothing is there yet, another range if some route has come to lead elsewhere
    /// with its own.
    fn move_if_taken(&self, network: &mut NetworkRecord, name: &str) -> Result<(), MoveError> {
        let used = self.used_ranges(&network.id).map_err(MoveError::Driver)?;
        let preferred = network.pools.first().map(|pool| pool.subnet);
        let pool = self.choose_pool(true, preferred, &used).ok_or(MoveError::NoRange)?;
        if network.pools.first() != Some(&pool) {
            network.pools = vec![pool];
            let recorded = self.pen().put_network(network.clone());
            recorded.map_err(|source| MoveError::Record(name.to_owned(), source))?;
        }
        Ok(())
    }

    pub(crate) fn new_device(
        &self,
        network: &NetworkRecord,
        name: &str,
    ) -> Result<Option<String>, AttachError> {
        self.drivers.of(network).new_device().map_err(|source| AttachError::Endpoint {
            name: name.to_owned(),
            network: network.name.clone(),
            source,
        })
    }

    pub(crate) fn join_one(
        &self,
        name: &str,
        endpoint: &EndpointRecord,
        netns: &Netns,
        inside: &mut Netlink,
    ) -> Result<(), AttachError> {
        let network = self.network_of(endpoint);
        let joined = self.drivers.of(&network).join(&network, endpoint, netns, inside);
        joined.map_err(|source| match source.is_of_interface() {
            true => AttachError::Interface(source),
            false => AttachError::Endpoint { name: name.to_owned(), network: network.name, source },
        })
    }
}

enum MoveError {
    Driver(DriverError),
    NoRange,
    Record(String, crate::StateError),
}

impl MoveError {
    fn into_attach(self, name: &str, network: &str) -> AttachError {
        match self {
            Self::Driver(source) => {
                AttachError::Endpoint { name: name.to_owned(), network: network.to_owned(), source }
            }
            Self::NoRange => AttachError::NoRange,
            Self::Record(container, source) => AttachError::Record { container, source },
        }
    }
}

impl Book {
    /// An endpoint with addresses that nobody else has; it is the caller's to put it on record before the pen is let go.
    pub(crate) fn new_endpoint(
        &self,
        driver: &dyn Driver,
        network: &NetworkRecord,
        join: &Join,
        others: &[EndpointRecord],
        device: Option<String>,
    ) -> Result<EndpointRecord, AttachError> {
        if self.network(&network.id).is_none_or(|network| network.unfinished) {
            return Err(crate::NoSuchNetwork::Unknown(network.name.clone()).into());
        }
        let features = driver.features();
        let link =
            if features.address { Some(new_link(network, join, &self.granted(&network.id))?) } else { None };
        let interface = match join.driver_options.get(INTERFACE_OPTION) {
            _ if !features.address => String::new(),
            Some(name) if !name.is_empty() => name.clone(),
            _ => next_interface(driver.interface_prefix(network).unwrap_or(INTERFACE), others),
        };
        let endpoint = Endpoint {
            network: network.name.clone(),
            network_id: network.id.clone(),
            driver: network.driver.clone(),
            endpoint_id: ids::new_id(),
            interface,
            link,
            dns_names: join.dns_names.clone(),
            links: join.links.clone(),
            gw_priority: join.gw_priority,
            straight: driver.is_straight(network) && !network.internal,
        };
        let sysctls =
            join.driver_options.get(SYSCTLS_OPTION).map(|list| list.split(',')).into_iter().flatten();
        let sysctls = sysctls.filter(|setting| !setting.is_empty()).map(str::to_owned).collect();
        Ok(EndpointRecord { endpoint, device, sysctls })
    }
}

/// As dockerd does, one more than the highest, so that no name comes back to mean another network.
fn next_interface(prefix: &str, others: &[EndpointRecord]) -> String {
    let numbers =
        others.iter().filter_map(|other| other.endpoint.interface.strip_prefix(prefix)?.parse().ok());
    let next = numbers.max().map_or(0, |highest: u32| highest.saturating_add(1));
    format!("{prefix}{next}")
}

fn new_link(
    network: &NetworkRecord,
    join: &Join,
    granted: &BTreeSet<IpAddr>,
) -> Result<EndpointLink, AttachError> {
    let ipv4 = new_address(network, join.ipv4.map(IpAddr::V4), true, granted)?;
    let ipv6 = new_address(network, join.ipv6.map(IpAddr::V6), false, granted)?;
    let address = ipv4.or(ipv6).ok_or_else(|| no_address(network, true))?;
    let link_local = join.link_local.iter().map(|address| link_local(*address)).collect::<Result<_, _>>()?;
    Ok(EndpointLink { mac: join.mac.unwrap_or_else(|| Mac::of(address.address)), ipv4, ipv6, link_local })
}

/// An address that is the container's own affair: nobody grants it.
fn link_local(address: IpAddr) -> Result<LinkAddress, AttachError> {
    let (fits, prefix) = match address {
        IpAddr::V4(ipv4) => (ipv4.is_link_local(), LINK_LOCAL.0),
        IpAddr::V6(ipv6) => (ipv6.is_unicast_link_local(), LINK_LOCAL.1),
    };
    fits.then_some(LinkAddress { address, prefix, gateway: None }).ok_or(AttachError::NotLinkLocal(address))
}

/// `None` on a network without this family.
fn new_address(
    network: &NetworkRecord,
    asked: Option<IpAddr>,
    ipv4: bool,
    granted: &BTreeSet<IpAddr>,
) -> Result<Option<LinkAddress>, AttachError> {
    if network.pools_of(ipv4).next().is_none() {
        let enabled = if ipv4 { network.ipv4 } else { network.ipv6 };
        return if enabled { Err(no_address(network, ipv4)) } else { Ok(None) };
    }
    let found = match asked {
        Some(asked) => {
            let pool = network.pools_of(ipv4).find(|pool| pool.subnet.contains(asked));
            let pool = pool.ok_or(AttachError::OutsideOfRange(asked))?;
            if granted.contains(&asked) || !pool.may_be_asked_for(asked) {
                return Err(AttachError::AddressTaken);
            }
            Some((pool, asked))
        }
        None => network.pools_of(ipv4).find_map(|pool| Some((pool, pool.next_free(granted)?))),
    };
    let (pool, address) = found.ok_or_else(|| no_address(network, ipv4))?;
    let gateway = pool.gateway.filter(|_| !network.internal);
    Ok(Some(LinkAddress { address, prefix: pool.subnet.prefix(), gateway }))
}

fn no_address(network: &NetworkRecord, ipv4: bool) -> AttachError {
    AttachError::NoAddress {
        family: if ipv4 { "IPv4" } else { "IPv6" },
        network: network.name.clone(),
        network_id: network.id.clone(),
    }
}
