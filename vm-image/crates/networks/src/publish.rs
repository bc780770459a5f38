//! The published ports of one sandbox: they lead to its way out, and follow it when that changes.

use std::net::IpAddr;

use tracing::warn;

use crate::book::{PortRecord, SandboxRecord};
use crate::drivers::{BridgeOptions, GatewayMode};
use crate::networks::blocking;
use crate::ports::{Owner, Reach};
use crate::{AttachError, Endpoint, Networks, PortBinding};

impl SandboxRecord {
    /// The endpoint to which published ports lead, and how.
    pub(crate) fn reachable(&self) -> Option<(&Endpoint, Reach)> {
        let endpoints = || self.endpoints.iter().map(|record| &record.endpoint);
        [true, false].into_iter().find_map(|ipv4| {
            let endpoint = crate::sandbox::way_out(endpoints(), ipv4)?;
            let link = endpoint.link.as_ref()?;
            let address = if ipv4 { link.ipv4 } else { link.ipv6 }?.address;
            Some((endpoint, Reach { address, ipv6: link.ipv6.map(|ipv6| ipv6.address) }))
        })
    }
}

impl Networks {
    /// Opens the ports that a sandbox wishes for; on failure none is open.
    pub(crate) async fn publish(&self, mut record: SandboxRecord) -> Result<SandboxRecord, AttachError> {
        let Some((endpoint, reach)) = self.published_at(&record) else { return Ok(record) };
        if record.wishes.is_empty() {
            return Ok(record);
        }
        let wishes = self.bound_as_the_network_says(&endpoint, &record.wishes);
        let routed = self.routed(&endpoint);
        let owner = Owner { container: &record.container, name: &record.name, reach, routed };
        let opened = self.shared.ports.open(owner, &wishes).await;
        record.ports = opened.map_err(|source| AttachError::Publish {
            name: record.name.clone(),
            endpoint_id: endpoint.endpoint_id.clone(),
            source,
        })?;
        self.keep(record).await
    }

    /// Writes the ports down; on failure they are closed.
    async fn keep(&self, record: SandboxRecord) -> Result<SandboxRecord, AttachError> {
        let this = self.clone();
        let (record, kept) = blocking(move || {
            let recorded = this.shared.pen().put(record.clone());
            let container = record.container.clone();
            let recorded = recorded.map_err(|source| AttachError::Record { container, source });
            let kept = recorded.and_then(|()| Ok(this.shared.refresh_rules()?));
            (record, kept)
        })
        .await;
        if let Err(error) = kept {
            self.shared.ports.close(&record.ports).await;
            return Err(error);
        }
        Ok(record)
    }

    /// After a change of the way out: the same ports, under the same numbers, lead to the new one.
    pub(crate) async fn publish_again(
        &self,
        mut record: SandboxRecord,
    ) -> Result<SandboxRecord, AttachError> {
        let target = self.published_at(&record);
        if record.ports.is_empty() {
            return self.publish(record).await;
        }
        let routed = target.as_ref().is_some_and(|(endpoint, _)| self.routed(endpoint) != [None, None]);
        if routed || record.ports.iter().any(PortRecord::is_routed) {
            let before = std::mem::take(&mut record.ports);
            self.shared.ports.close(&before).await;
            return self.publish(record).await;
        }
        let before = std::mem::take(&mut record.ports);
        let leads_to =
            |port: &PortRecord, reach: Reach| reach.from(port.published.host_ip) == port.target.ip();
        if target.as_ref().is_some_and(|(_, reach)| before.iter().all(|port| leads_to(port, *reach))) {
            record.ports = before;
            return Ok(record);
        }
        self.shared.ports.close(&before).await;
        for mut port in before {
            let Some((_, reach)) = &target else { continue };
            port.target.set_ip(reach.from(port.published.host_ip));
            match self.shared.ports.reopen(&record.name, &port).await {
                Ok(()) => record.ports.push(port),
                Err(error) => {
                    warn!(container = %record.container, %error, "a port was lost with its network")
                }
            }
        }
        self.keep(record).await
    }

    /// After a change that failed: the ports of before are open again, but for those that somebody else has meanwhile.
    pub(crate) async fn publish_as_before(&self, mut record: SandboxRecord, before: Vec<PortRecord>) {
        let mut open = Vec::new();
        for port in before {
            let reopened = match self.shared.ports.is_open(&port) {
                true => Ok(()),
                false => self.shared.ports.reopen(&record.name, &port).await,
            };
            match reopened {
                Ok(()) => open.push(port),
                Err(error) => {
                    warn!(container = %record.container, %error, "a port was lost to a change that failed")
                }
            }
        }
        if open != record.ports {
            record.ports = open;
            self.record_again(record).await;
            let shared = self.shared.clone();
            blocking(move || shared.refresh_rules_if_possible()).await;
        }
    }

    /// Where published ports lead: only into networks whose way out is this system.
    fn published_at(&self, record: &SandboxRecord) -> Option<(Endpoint, Reach)> {
        let (endpoint, reach) = record.reachable()?;
        let driver = self.shared.drivers.find(&endpoint.driver)?;
        driver.features().routed.then(|| (endpoint.clone(), reach))
    }

    /// The addresses of an endpoint whose network is routed, of both families.
    fn routed(&self, endpoint: &Endpoint) -> [Option<IpAddr>; 2] {
        let network = self.shared.book().network(&endpoint.network_id).cloned();
        let options = network.and_then(|network| BridgeOptions::of(&network).ok());
        let link = endpoint.link.as_ref();
        [true, false].map(|ipv4| {
            let is_routed = options.as_ref().is_some_and(|options| options.mode(ipv4) == GatewayMode::Routed);
            let address = link.and_then(|link| if ipv4 { link.ipv4 } else { link.ipv6 });
            address.filter(|_| is_routed).map(|address| address.address)
        })
    }

    /// Wishes without an address get that of the network, where it has one
    /// (`com.docker.network.bridge.host_binding_ipv4`).
    fn bound_as_the_network_says(&self, endpoint: &Endpoint, wishes: &[PortBinding]) -> Vec<PortBinding> {
        let network = self.shared.book().network(&endpoint.network_id).cloned();
        let options = network.and_then(|network| BridgeOptions::of(&network).ok());
        let default = options.and_then(|options| options.host_binding);
        let bound = |wish: &PortBinding| PortBinding { host_ip: wish.host_ip.or(default), ..wish.clone() };
        wishes.iter().map(bound).collect()
    }
}
