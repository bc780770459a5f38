//! Making a network.
//!
//! In this order: what is asked is checked, ranges are chosen, the network goes on record as unfinished, its devices are
//! made, and then it is there for all to see. An engine that is killed before that leaves nothing that a user knows of,
//! and the next one removes it.

mod configuration;
mod validate;

use std::net::IpAddr;

use crate::book::NetworkRecord;
use crate::drivers::Unfit;
use crate::error::CreateError;
use crate::ipam::{self, first_address};
use crate::network::PoolRequest;
use crate::networks::{Shared, blocking};
use crate::{CreateRequest, IpamPool, Network, Networks, Subnet};

/// The driver of those who name none.
const DEFAULT_DRIVER: &str = "bridge";

impl Networks {
    /// Makes a network; its devices are there when this returns. On failure nothing is.
    ///
    /// It runs to its end even if the future is dropped.
    pub async fn create(&self, request: CreateRequest) -> Result<Network, CreateError> {
        let this = self.clone();
        let created = tokio::spawn(async move {
            let _turn = this.shared.network_turn.lock().await;
            let shared = this.shared.clone();
            let id = blocking(move || shared.create(request)).await?;
            Ok(this.inspect(&id)?)
        });
        match created.await {
            Ok(created) => created,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Shared {
    /// The id of the new network. The caller has the turn of those who change networks.
    fn create(&self, request: CreateRequest) -> Result<String, CreateError> {
        let mut network = self.plan(request)?;
        if network.config_only {
            let id = network.id.clone();
            self.pen().put_network(network)?;
            return Ok(id);
        }
        self.give_ranges(&mut network)?;
        let driver = self.drivers.of(&network);
        let others: Vec<NetworkRecord> = self.book().finished().cloned().collect();
        driver.check(&mut network, &others)?;
        network.unfinished = true;
        self.pen().put_network(network.clone())?;
        if let Err(error) = self.make(&network) {
            self.abandon(&network);
            return Err(error);
        }
        network.unfinished = false;
        let id = network.id.clone();
        self.pen().put_network(network)?;
        Ok(id)
    }

    /// Makes a network's devices; what others could come in by is there after the rules that guard it.
    fn make(&self, network: &NetworkRecord) -> Result<(), CreateError> {
        let driver = self.drivers.of(network);
        driver.make(network).map_err(CreateError::Driver)?;
        self.refresh_rules()?;
        driver.open(network).map_err(CreateError::Driver)
    }

    /// What is asked, checked, as a record without ranges that were not named.
    fn plan(&self, request: CreateRequest) -> Result<NetworkRecord, CreateError> {
        let request = validate::request(request)?;
        let name = request.name.as_str();
        if name.trim().is_empty() {
            return Err(CreateError::Invalid("invalid name: name is empty".into()));
        }
        if self.book().networks().iter().any(|network| network.name == *name) {
            return Err(CreateError::NameTaken(name.to_owned()));
        }
        configuration::check(&request)?;
        let mut network = validate::record(&request)?;
        if network.config_only {
            network.driver = "null".into();
            return Ok(network);
        }
        if self.drivers.find(&network.driver).is_none() {
            return Err(CreateError::NoPlugin(network.driver));
        }
        if request.ingress {
            return Err(CreateError::Forbidden("Ingress network can only be global scope network".into()));
        }
        if let Some(from) = &request.config_from {
            self.book().take_configuration(from, &mut network)?;
        }
        if !network.ipv4 && !network.ipv6 {
            return Err(CreateError::Invalid("IPv4 or IPv6 must be enabled".into()));
        }
        Ok(network)
    }

    /// Settles the ranges: those that were named must be nobody else's, and those that were not are chosen.
    fn give_ranges(&self, network: &mut NetworkRecord) -> Result<(), CreateError> {
        if !self.drivers.of(network).features().address {
            return Ok(());
        }
        let taken: Vec<Subnet> = {
            let book = self.book();
            book.networks().iter().flat_map(NetworkRecord::active_pools).map(|pool| pool.subnet).collect()
        };
        let overlaps = |pool: &IpamPool| taken.iter().any(|other| other.overlaps(pool.subnet));
        if network.active_pools().any(overlaps) {
            return Err(CreateError::Overlap);
        }
        for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let enabled = if ipv4 { network.ipv4 } else { network.ipv6 };
            if !enabled || network.pools_of(ipv4).next().is_some() {
                continue;
            }
            let mut used = self.used_ranges(&network.id).map_err(CreateError::Driver)?;
            used.extend(network.pools.iter().map(|pool| pool.subnet));
            let own = self.drivers.of(network).default_pool();
            let own = own.and_then(|pool| ipam::choose_range(ipv4, None, &[pool], &used)).map(IpamPool::of);
            let pool = own.or_else(|| self.choose_pool(ipv4, None, &used));
            network.pools.push(pool.ok_or(CreateError::NoRange(family))?);
        }
        let driver = self.drivers.of(network);
        let spare = |ipv4| !driver.has_gateway(network, ipv4);
        let spared = [spare(true), spare(false)];
        for pool in &mut network.pools {
            let asked = pool.asked && pool.tells_gateway;
            if spared[usize::from(!pool.subnet.is_ipv4())] && !asked {
                pool.gateway = None;
            }
        }
        Ok(())
    }

    /// Removes what there is of a network that is not finished, and its rules.
    pub(crate) fn abandon(&self, network: &NetworkRecord) {
        let others = self.book().networks().to_vec();
        let removed = self.drivers.of(network).dismantle(network, &others).map_err(CreateError::Driver);
        let removed = removed.and_then(|()| Ok(self.pen().remove_network(&network.id)?));
        if let Err(error) = removed {
            tracing::warn!(network = %network.name, %error, "an unfinished network is left until the next start");
        }
        self.refresh_rules_if_possible();
    }
}

/// A range that was asked for; the texts are valid.
fn pool(request: &PoolRequest) -> Option<IpamPool> {
    let subnet: Subnet = request.subnet.parse().ok()?;
    let range = request.ip_range.parse().ok();
    let asked: Option<IpAddr> = request.gateway.parse().ok();
    let auxiliary = request.auxiliary.iter();
    let auxiliary = auxiliary.filter_map(|(name, address)| Some((name.clone(), address.parse().ok()?)));
    let mut pool = IpamPool {
        subnet,
        range,
        gateway: asked.or(Some(first_address(subnet))),
        asked: true,
        tells_gateway: asked.is_some(),
        auxiliary: auxiliary.collect(),
    };
    if asked.is_none() {
        // dockerd takes the first address that a container would get.
        pool.gateway = None;
        pool.gateway = pool.next_free(&std::collections::BTreeSet::new());
    }
    Some(pool)
}

impl From<Unfit> for CreateError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Invalid(message) => Self::Invalid(message),
            Unfit::Forbidden(message) => Self::Forbidden(message),
            Unfit::Internal(message) => Self::Refused(message),
        }
    }
}
