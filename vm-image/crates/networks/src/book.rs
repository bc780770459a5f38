//! What is remembered: networks for good, sandboxes for one boot of the system.
//!
//! A sandbox is on record before anything of it exists and until all of it that others could notice is gone. So at any
//! moment a killed engine leaves either a record that says what to remove, or leftovers that no record mentions
//! and that are therefore removed at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use crate::files::{self, StateError};
use crate::ids::new_id;
use crate::network::BUILT_IN;
use crate::{Endpoint, IpamPool, NoSuchNetwork, PortBinding, PublishedPort, Sandbox, Subnet};

/// The format of both kinds of file.
pub(crate) const VERSION: u32 = 2;

/// A network on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    #[serde(default = "yes")]
    pub(crate) ipv4: bool,
    #[serde(default)]
    pub(crate) ipv6: bool,
    #[serde(default)]
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) attachable: bool,
    #[serde(default)]
    pub(crate) config_only: bool,
    #[serde(default)]
    pub(crate) config_from: String,
    #[serde(default)]
    pub(crate) pools: Vec<IpamPool>,
    #[serde(default)]
    pub(crate) ipam_options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// It is being made or removed: nobody sees it, and if the engine ends now, the next one removes what there is of it.
    #[serde(default)]
    pub(crate) unfinished: bool,
}

fn yes() -> bool {
    true
}

impl NetworkRecord {
    /// One of which nothing is asked.
    pub(crate) fn new(name: &str, driver: &str) -> Self {
        Self {
            id: new_id(),
            name: name.into(),
            driver: driver.into(),
            created: OffsetDateTime::now_utc(),
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            config_only: false,
            config_from: String::new(),
            pools: Vec::new(),
            ipam_options: None,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            unfinished: false,
        }
    }

    /// The ranges of one family that endpoints get addresses of.
    pub(crate) fn pools_of(&self, ipv4: bool) -> impl Iterator<Item = &IpamPool> {
        let enabled = !self.config_only && if ipv4 { self.ipv4 } else { self.ipv6 };
        self.pools.iter().filter(move |pool| enabled && pool.subnet.is_ipv4() == ipv4)
    }

    /// All ranges that endpoints get addresses of.
    pub(crate) fn active_pools(&self) -> impl Iterator<Item = &IpamPool> {
        self.pools_of(true).chain(self.pools_of(false))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NetworksFile {
    pub(crate) version: u32,
    /// Where this engine's IPv6 networks get their ranges from.
    #[serde(default = "crate::ipam::new_ula")]
    pub(crate) ula: Subnet,
    pub(crate) networks: Vec<NetworkRecord>,
}

/// A sandbox on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) endpoints: Vec<EndpointRecord>,
    pub(crate) ports: Vec<PortRecord>,
    /// Where the container's processes are, if the network `host` is another system's to this computer.
    #[serde(default)]
    pub(crate) cgroup: Option<PathBuf>,
    /// What it listens on there, and is therefore open on this computer.
    #[serde(default)]
    pub(crate) listeners: Vec<PortRecord>,
    /// What was asked to be published, for the day when the way out changes.
    #[serde(default)]
    pub(crate) wishes: Vec<PortBinding>,
    /// The name servers that the user chose.
    #[serde(default)]
    pub(crate) name_servers: Vec<IpAddr>,
}

/// An endpoint, and the device on the engine's side that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) endpoint: Endpoint,
    pub(crate) device: Option<String>,
    /// The kernel's settings that the user has for the container's device.
    #[serde(default)]
    pub(crate) sysctls: Vec<String>,
}

/// A port that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRecord {
    /// Unique among all: `<container>/<n>`.
    pub(crate) key: String,
    pub(crate) published: PublishedPort,
    pub(crate) target: SocketAddr,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SandboxFile<T> {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) sandbox: T,
}

impl SandboxRecord {
    /// Whether it is on a network on which containers find each other by name.
    pub(crate) fn has_resolver(&self) -> bool {
        let built_in = |name: &str| BUILT_IN.iter().any(|(built_in, _)| *built_in == name);
        self.netns.is_some() && self.endpoints.iter().any(|record| !built_in(&record.endpoint.network))
    }

    /// All that is open on its behalf.
    pub(crate) fn open_ports(&self) -> impl Iterator<Item = &PortRecord> {
        self.ports.iter().chain(&self.listeners)
    }

    pub(crate) fn sandbox(&self) -> Sandbox {
        Sandbox {
            container: self.container.clone(),
            netns: self.netns.clone(),
            endpoints: self.endpoints.iter().map(|e| e.endpoint.clone()).collect(),
            published: self.ports.iter().map(|p| p.published.clone()).collect(),
            resolver: self.has_resolver(),
        }
    }
}

/// Everything on record.
#[derive(Debug)]
pub(crate) struct Book {
    ula: Subnet,
    networks: Vec<NetworkRecord>,
    sandboxes: BTreeMap<String, SandboxRecord>,
}

impl Book {
    pub(crate) fn new(
        ula: Subnet,
        networks: Vec<NetworkRecord>,
        sandboxes: BTreeMap<String, SandboxRecord>,
    ) -> Self {
        Self { ula, networks, sandboxes }
    }

    /// Where this engine's IPv6 networks get their ranges from.
    pub(crate) fn ula(&self) -> Subnet {
        self.ula
    }

    /// All networks that users see, in the order in which they were made.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &NetworkRecord> {
        self.networks.iter().filter(|network| !network.unfinished)
    }

    /// All networks, also those that are being made or removed.
    pub(crate) fn networks(&self) -> &[NetworkRecord] {
        &self.networks
    }

    /// The network of this id.
    pub(crate) fn network(&self, id: &str) -> Option<&NetworkRecord> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// One network, by its id, its name or an unambiguous beginning of its id, in this order, as dockerd looks it up.
    pub(crate) fn find_network(&self, term: &str) -> Result<&NetworkRecord, NoSuchNetwork> {
        let exact =
            self.finished().find(|n| n.id == term).or_else(|| self.finished().find(|n| n.name == term));
        let mut partial = self.finished().filter(|n| !term.is_empty() && n.id.starts_with(term));
        match (exact, partial.next(), partial.count()) {
            (Some(found), ..) | (None, Some(found), 0) => Ok(found),
            (None, None, _) => Err(NoSuchNetwork::Unknown(term.to_owned())),
            (None, Some(_), others) => Err(NoSuchNetwork::Ambiguous(term.to_owned(), others + 1)),
        }
    }

    pub(crate) fn set_networks(&mut self, networks: Vec<NetworkRecord>) {
        self.networks = networks;
    }

    /// All sandboxes, by container.
    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = &SandboxRecord> {
        self.sandboxes.values()
    }

    pub(crate) fn sandbox(&self, container: &str) -> Option<&SandboxRecord> {
        self.sandboxes.get(container)
    }

    pub(crate) fn set_sandbox(&mut self, sandbox: SandboxRecord) {
        self.sandboxes.insert(sandbox.container.clone(), sandbox);
    }

    pub(crate) fn forget_sandbox(&mut self, container: &str) {
        self.sandboxes.remove(container);
    }

    /// The endpoints on a network.
    pub(crate) fn endpoints<'a>(&'a self, network_id: &'a str) -> impl Iterator<Item = &'a EndpointRecord> {
        let all = self.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints);
        all.filter(move |record| record.endpoint.network_id == network_id)
    }

    /// The addresses that are granted on a network.
    pub(crate) fn granted(&self, network_id: &str) -> BTreeSet<IpAddr> {
        let links = self.endpoints(network_id).filter_map(|record| record.endpoint.link.as_ref());
        links.flat_map(|link| link.addresses()).map(|address| address.address).collect()
    }
}

/// The sandboxes on record. A record that cannot be read is dropped: what it described is then nobody's and removed.
pub(crate) fn read_sandboxes(dir: &Path) -> Result<BTreeMap<String, SandboxRecord>, StateError> {
    let unreadable = |error| StateError::Read(dir.to_owned(), error);
    let mut sandboxes = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            files::remove(&path)?;
            continue;
        }
        match files::read::<SandboxFile<SandboxRecord>>(&path, VERSION) {
            Ok(Some(file)) => drop(sandboxes.insert(file.sandbox.container.clone(), file.sandbox)),
            Ok(None) => {}
            Err(error @ StateError::Malformed(..)) => {
                warn!(path = %path.display(), %error, "dropped an unreadable sandbox record");
                files::remove(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sandboxes)
}

/// The networks that every engine has, under Docker's names.
pub(crate) fn built_in() -> Vec<NetworkRecord> {
    BUILT_IN.map(|(name, driver)| NetworkRecord::new(name, driver)).into()
}
