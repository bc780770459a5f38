//! A running container joins a network, or leaves one.

use caisson_sys::netns::{self, Netns};
use tracing::warn;

use crate::attach::lead_out;
use crate::book::{EndpointRecord, PortRecord, SandboxRecord};
use crate::error::DisconnectError;
use crate::netlink::{self, Netlink};
use crate::networks::{Shared, blocking};
use crate::{AttachError, Endpoint, Join, Networks, Sandbox, StateError, sandbox};

impl Networks {
    /// Connects a container that has a sandbox to one more network. On failure nothing has changed.
    ///
    /// It runs to its end even if the future is dropped.
    pub async fn connect(&self, container: &str, join: Join) -> Result<Sandbox, AttachError> {
        let (this, container) = (self.clone(), container.to_owned());
        let connected = tokio::spawn(async move {
            let _turn = this.shared.turns.take(&container).await;
            let shared = this.shared.clone();
            let at = container.clone();
            let (record, network_id) = blocking(move || shared.add(&at, &join)).await?;
            let ports = record.ports.clone();
            let followed = this.follow_the_way_out(record).await;
            if followed.is_err() {
                this.take_back(container, network_id, ports).await;
            }
            followed
        });
        match connected.await {
            Ok(connected) => connected,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Takes a container off a network; the endpoint that it had there. Its ports follow to another way out, or close.
    ///
    /// It runs to its end even if the future is dropped.
    pub async fn disconnect(&self, container: &str, network_id: &str) -> Result<Endpoint, DisconnectError> {
        let (this, container, network_id) = (self.clone(), container.to_owned(), network_id.to_owned());
        let disconnected = tokio::spawn(async move {
            let _turn = this.shared.turns.take(&container).await;
            let shared = this.shared.clone();
            let (record, endpoint) = blocking(move || shared.take(&container, &network_id)).await?;
            if let Err(error) = this.follow_the_way_out(record).await {
                warn!(%error, "the ports of a container could not follow its way out");
            }
            Ok(endpoint)
        });
        match disconnected.await {
            Ok(disconnected) => disconnected,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Gives a container another name, and what `names` says as its names on each network (by its name). Its sandbox as
    /// it is then; `None` for a container without one.
    pub async fn rename(
        &self,
        container: &str,
        name: &str,
        names: &(dyn Fn(&str) -> Option<Vec<String>> + Sync),
    ) -> Result<Option<Sandbox>, StateError> {
        let _turn = self.shared.turns.take(container).await;
        let Some(mut record) = self.shared.book().sandbox(container).cloned() else { return Ok(None) };
        record.name = name.to_owned();
        for EndpointRecord { endpoint, .. } in &mut record.endpoints {
            if let Some(names) = names(&endpoint.network) {
                endpoint.dns_names = names;
            }
        }
        let shared = self.shared.clone();
        let sandbox = record.sandbox();
        blocking(move || shared.pen().put(record)).await?;
        Ok(Some(sandbox))
    }

    /// Takes a container off a network that it could not be connected to, and opens the ports that it had before.
    async fn take_back(&self, container: String, network_id: String, ports: Vec<PortRecord>) {
        let shared = self.shared.clone();
        match blocking(move || shared.take(&container, &network_id)).await {
            Ok((record, _)) => self.publish_as_before(record, ports).await,
            Err(error) => warn!(%error, "a failed connection could not be undone"),
        }
    }

    /// After a change of the endpoints.
    async fn follow_the_way_out(&self, record: SandboxRecord) -> Result<Sandbox, AttachError> {
        self.answer_names(&record).await?;
        Ok(self.publish_again(record).await?.sandbox())
    }
}

impl Shared {
    /// The sandbox with its new endpoint, and the id of the network that it is on.
    fn add(&self, container: &str, join: &Join) -> Result<(SandboxRecord, String), AttachError> {
        let sandbox = self.book().sandbox(container).cloned();
        let mut record = sandbox.ok_or_else(|| AttachError::NotAttached(container.to_owned()))?;
        let settled = self.settle(&record.name, [join])?;
        let network = self.prepare(&record.name, join, &settled)?;
        if record.endpoints.iter().any(|endpoint| endpoint.endpoint.network_id == network.id) {
            return Err(AttachError::Joined { name: record.name, network: network.name });
        }
        let path = record.netns.clone().ok_or_else(|| AttachError::NotAttached(container.to_owned()))?;
        let device = self.new_device(&network, &record.name)?;
        let driver = self.drivers.of(&network);
        let endpoint = {
            let pen = self.pen();
            let endpoint = pen.book().new_endpoint(driver, &network, join, &record.endpoints, device)?;
            record.endpoints.push(endpoint.clone());
            let recorded = pen.put(record.clone());
            recorded.map_err(|source| AttachError::Record { container: container.to_owned(), source })?;
            endpoint
        };
        drop(settled);
        let namespace = |source| AttachError::Namespace { container: container.to_owned(), source };
        let joined = Netns::open(&path).map_err(namespace).and_then(|netns| {
            let mut inside = netns::enter(&netns, Netlink::open).map_err(namespace)?;
            self.join_one(&record.name, &endpoint, &netns, &mut inside)?;
            self.lead_out_anew(&record, &mut inside);
            Ok(())
        });
        match joined {
            Ok(()) => Ok((record, network.id)),
            Err(error) => {
                if let Err(error) = self.take(container, &network.id) {
                    warn!(%error, "a failed connection could not be undone");
                }
                Err(error)
            }
        }
    }

    fn take(&self, container: &str, network_id: &str) -> Result<(SandboxRecord, Endpoint), DisconnectError> {
        let unknown =
            || DisconnectError::NotJoined { container: container.to_owned(), network: network_id.to_owned() };
        let mut record = self.book().sandbox(container).cloned().ok_or_else(unknown)?;
        let position = record.endpoints.iter().position(|one| one.endpoint.network_id == network_id);
        let endpoint = record.endpoints.remove(position.ok_or_else(unknown)?);
        let network = self.network_of(&endpoint);
        let driver = self.drivers.of(&network);
        let netns = record.netns.as_deref();
        driver.isolate(&endpoint, netns).map_err(DisconnectError::Driver)?;
        self.pen().put(record.clone())?;
        // The container sees its device until this is done, so it is not left to go by itself.
        if let Err(error) = driver.leave(&endpoint) {
            warn!(%error, "a device is left until the next start");
        }
        if let Some(netns) = netns.and_then(|path| Netns::open(path).ok()) {
            match netns::enter(&netns, Netlink::open) {
                Ok(mut inside) => self.lead_out_anew(&record, &mut inside),
                Err(error) => warn!(%error, "the routes of a container are what they were"),
            }
        }
        let EndpointRecord { endpoint, .. } = endpoint;
        Ok((record, endpoint))
    }

    /// Routes a namespace's traffic to what is the way out now. What fails leaves the old routes, which is what there
    /// would be without the change.
    fn lead_out_anew(&self, record: &SandboxRecord, inside: &mut Netlink) {
        let endpoints = || record.endpoints.iter().map(|record| &record.endpoint);
        for ipv4 in [true, false] {
            let led = match sandbox::way_out(endpoints(), ipv4) {
                Some(way_out) => lead_out(inside, way_out, ipv4),
                None => netlink::delete_default_route(inside, ipv4).map_err(Into::into),
            };
            if let Err(error) = led {
                warn!(container = %record.container, ipv4, %error, "could not change a container's way out");
            }
        }
    }
}
