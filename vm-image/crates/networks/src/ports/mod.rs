//! Published ports: which wishes become which open ports, and who holds what.
//!
//! Who opens them is one of two: [`native`] binds on this system, [`external`] asks the machine's host. What is the
//! same for both is here: a wish without an address is two ports with one number; an ephemeral number must be free in
//! both families; a wish is granted whole or not at all; and what another container of ours holds is refused, in
//! dockerd's words, before anybody is asked.

mod datagrams;
mod error;
mod external;
mod holder;
mod native;
mod relay;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caisson_guest_proto::PortForward;

pub use error::{PublishError, Wanted};
use external::External;
use native::Native;
use table::Table;

use crate::book::PortRecord;
use crate::{HostPort, HostPorts, PortBinding, PublishedPort};

/// Who opens published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publisher {
    /// This system: its own addresses are bound here; rules of its packet filter lead to the containers, and where they
    /// cannot, bytes are copied.
    Native,
    /// The host of the machine, asked over this unix socket by `caisson_guest_proto`'s PORTS.
    External(PathBuf),
}

/// An ephemeral port that is free in one family may be taken in the other. So many are tried.
const EPHEMERAL_ATTEMPTS: usize = 16;

/// Whose ports they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// The container's id, for keys.
    pub(crate) container: &'a str,
    /// The container's name, for those who want its ports.
    pub(crate) name: &'a str,
    /// Where its ports lead.
    pub(crate) reach: Reach,
    /// Its addresses, of both families, that others reach themselves: ports of theirs are none of anybody else.
    pub(crate) routed: [Option<IpAddr>; 2],
}

/// Where a container is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) address: IpAddr,
    /// Its address of IPv6, if it has one beside.
    pub(crate) ipv6: Option<IpAddr>,
}

impl Reach {
    /// Where a port of this address of the host's leads: as dockerd's, to an address of the same family if there is one.
    pub(crate) fn from(self, host_ip: IpAddr) -> IpAddr {
        self.ipv6.filter(|_| host_ip.is_ipv6()).unwrap_or(self.address)
    }
}

/// All published ports.
#[derive(Debug)]
pub(crate) struct Ports {
    table: Mutex<Table>,
    opener: Opener,
}

/// What becomes of the connections through a port that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connections {
    Cut,
    Kept,
}

#[derive(Debug)]
enum Opener {
    Native(Native),
    External(External),
}

impl Opener {
    async fn open(&self, forward: PortForward) -> Result<u16, PublishError> {
        match self {
            Self::Native(native) => native.open(forward).await,
            Self::External(external) => external.open(forward).await,
        }
    }

    async fn close(&self, keys: impl Iterator<Item = &str>, connections: Connections) {
        match self {
            Self::Native(native) => native.close(keys).await,
            Self::External(external) => external.close(keys, connections).await,
        }
    }
}

impl Ports {
    /// `recorded` is what was open when the engine was last there: an external host is told to keep these.
    pub(crate) fn start(publisher: Publisher, recorded: impl Iterator<Item = PortForward>) -> Self {
        let opener = match publisher {
            Publisher::Native => Opener::Native(Native::default()),
            Publisher::External(socket) => Opener::External(External::start(socket, recorded)),
        };
        Self { table: Mutex::default(), opener }
    }

    /// Opens ports for all wishes; on failure none is open.
    pub(crate) async fn open(
        &self,
        owner: Owner<'_>,
        wishes: &[PortBinding],
    ) -> Result<Vec<PortRecord>, PublishError> {
        let mut open = Vec::new();
        for wish in wishes {
            match self.grant(owner, wish, open.len()).await {
                Ok(records) => open.extend(records),
                Err(error) => {
                    self.close(&open).await;
                    return Err(error);
                }
            }
        }
        Ok(open)
    }

    /// Opens a port again that was open before, under the same number. A host that is away will do so when it is back.
    pub(crate) async fn reopen(&self, name: &str, record: &PortRecord) -> Result<(), PublishError> {
        if record.is_routed() {
            return Ok(());
        }
        if let Opener::External(external) = &self.opener
            && !external.comes_soon().await
        {
            return self.table().reserve(name, record);
        }
        match self.open_one(name, record.forward()).await {
            Err(PublishError::Away(_)) => self.table().reserve(name, record),
            other => other.map(drop),
        }
    }

    /// Whether a port is open, or will be as soon as the host is back; what is routed needs no opening.
    pub(crate) fn is_open(&self, record: &PortRecord) -> bool {
        record.is_routed() || self.table().holds(&record.key)
    }

    /// Closes these and drops their connections; what is closed stays closed.
    pub(crate) async fn close(&self, ports: &[PortRecord]) {
        self.close_with(ports, Connections::Cut).await;
    }

    /// Closes these, through which nobody new is to come; who has come stays. Only the machine's host can do so, and only
    /// there are listeners followed.
    pub(crate) async fn retire(&self, ports: &[PortRecord]) {
        self.close_with(ports, Connections::Kept).await;
    }

    async fn close_with(&self, ports: &[PortRecord], connections: Connections) {
        let opened = ports.iter().rev().filter(|port| !port.is_routed());
        self.opener.close(opened.map(|port| port.key.as_str()), connections).await;
        for port in ports {
            self.table().release(&port.key);
        }
    }

    /// One wish: the first number that is free on all its addresses.
    async fn grant(
        &self,
        owner: Owner<'_>,
        wish: &PortBinding,
        first: usize,
    ) -> Result<Vec<PortRecord>, PublishError> {
        let mut refusal = PublishError::NoPort;
        for number in candidates(&wish.host_ports) {
            match self.open_everywhere(owner, wish, number, first).await {
                Err(error) if error.is_taken() => refusal = error,
                decided => return decided,
            }
        }
        match &wish.host_ports {
            HostPorts::FirstFreeOf(range)
                if range.len() > 1 && matches!(refusal, PublishError::Allocated { .. }) =>
            {
                Err(PublishError::AllAllocated)
            }
            _ => Err(refusal),
        }
    }

    async fn open_everywhere(
        &self,
        owner: Owner<'_>,
        wish: &PortBinding,
        number: u16,
        first: usize,
    ) -> Result<Vec<PortRecord>, PublishError> {
        let mut open: Vec<PortRecord> = Vec::new();
        for host_ip in addresses(wish) {
            let bound = open.iter().find(|port| !port.is_routed());
            let number = bound.map_or(number, |port| port.published.host_port.0);
            let routed = owner.routed[usize::from(!host_ip.is_ipv4())];
            let forward = PortForward {
                key: format!("{}/{}", owner.container, first + open.len()),
                host_ip,
                host_port: if routed.is_some() { 0 } else { number },
                protocol: wish.protocol,
                target: SocketAddr::new(routed.unwrap_or(owner.reach.from(host_ip)), wish.container_port.0),
            };
            if routed.is_some() {
                open.push(PortRecord::of(&forward));
                continue;
            }
            match self.open_one(owner.name, forward).await {
                Ok(record) => open.push(record),
                // A system without IPv6 has all its addresses bound by now.
                Err(error) if !open.is_empty() && error.is_unavailable() => {}
                Err(error) => {
                    self.close(&open).await;
                    return Err(error);
                }
            }
        }
        Ok(open)
    }

    /// Opens one port, under this key.
    pub(crate) async fn open_one(
        &self,
        name: &str,
        forward: PortForward,
    ) -> Result<PortRecord, PublishError> {
        let mut record = PortRecord::of(&forward);
        self.table().reserve(name, &record)?;
        match self.opener.open(forward).await {
            Ok(bound) => {
                record.published.host_port = HostPort(bound);
                self.table().set_port(&record);
                Ok(record)
            }
            Err(error) => {
                self.table().release(&record.key);
                Err(error)
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortRecord {
    pub(crate) fn of(forward: &PortForward) -> Self {
        let published = PublishedPort {
            container_port: crate::ContainerPort(forward.target.port()),
            protocol: forward.protocol,
            host_ip: forward.host_ip,
            host_port: HostPort(forward.host_port),
        };
        Self { key: forward.key.clone(), published, target: forward.target }
    }

    /// Whether it is reached under the container's own address, so that nothing is open for it.
    pub(crate) fn is_routed(&self) -> bool {
        self.published.host_port == HostPort(0)
    }

    pub(crate) fn forward(&self) -> PortForward {
        PortForward {
            key: self.key.clone(),
            host_ip: self.published.host_ip,
            host_port: self.published.host_port.0,
            protocol: self.published.protocol,
            target: self.target,
        }
    }
}

/// The addresses of a wish; without one it is every address of both families.
fn addresses(wish: &PortBinding) -> Vec<IpAddr> {
    wish.host_ip.map_or_else(
        || vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        |address| vec![address],
    )
}

/// The numbers to try, in order; 0 asks the system for one.
fn candidates(ports: &HostPorts) -> Box<dyn Iterator<Item = u16> + Send> {
    match ports {
        HostPorts::Ephemeral => Box::new(std::iter::repeat_n(0, EPHEMERAL_ATTEMPTS)),
        HostPorts::FirstFreeOf(range) => Box::new(range.clone()),
    }
}
