//! What is remembered: networks for good, sandboxes for one boot of the system.
//!
//! A sandbox is on record before anything of it exists and until all of it that others could notice is gone. So at any
//! moment a killed engine leaves either a record that says what to remove, or leftovers that no record mentions
//! and that are therefore removed at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use caisson_sys::replace::Survives;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use crate::files::{self, StateError};
use crate::ids::new_id;
use crate::network::BUILT_IN;
use crate::{Endpoint, IpamPool, NoSuchNetwork, PortBinding, PublishedPort, Sandbox, Subnet};

/// The format of both kinds of file.
const VERSION: u32 = 2;

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
struct NetworksFile {
    version: u32,
    /// Where this engine's IPv6 networks get their ranges from.
    #[serde(default = "crate::ipam::new_ula")]
    ula: Subnet,
    networks: Vec<NetworkRecord>,
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
struct SandboxFile<T> {
    version: u32,
    #[serde(flatten)]
    sandbox: T,
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
    networks_file: PathBuf,
    sandboxes_dir: PathBuf,
    ula: Subnet,
    networks: Vec<NetworkRecord>,
    sandboxes: BTreeMap<String, SandboxRecord>,
}

impl Book {
    /// Reads the records. The built-in networks are on it from the first time on.
    pub(crate) fn open(root: &Path, exec_root: &Path) -> Result<Self, StateError> {
        let networks_file = root.join("networks.json");
        let sandboxes_dir = exec_root.join("sandboxes");
        for dir in [root, &sandboxes_dir] {
            fs::create_dir_all(dir).map_err(|error| StateError::Write(dir.to_owned(), error))?;
        }
        let file = files::read::<NetworksFile>(&networks_file, VERSION)?;
        let sandboxes = read_sandboxes(&sandboxes_dir)?;
        let ula = file.as_ref().map_or_else(crate::ipam::new_ula, |file| file.ula);
        let mut book = Self { networks_file, sandboxes_dir, ula, networks: Vec::new(), sandboxes };
        match file {
            Some(NetworksFile { version: VERSION, networks, .. }) => book.networks = networks,
            // What an older version wrote is written anew, so that what it lacked is settled once.
            Some(NetworksFile { networks, .. }) => book.put_networks(networks)?,
            None => book.put_networks(built_in())?,
        }
        Ok(book)
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

    /// Puts a network on record, or replaces what is on record of it.
    pub(crate) fn put_network(&mut self, network: NetworkRecord) -> Result<(), StateError> {
        let mut networks = self.networks.clone();
        match networks.iter_mut().find(|known| known.id == network.id) {
            Some(known) if *known == network => return Ok(()),
            Some(known) => *known = network,
            None => networks.push(network),
        }
        self.put_networks(networks)
    }

    /// Takes a network off the record.
    pub(crate) fn remove_network(&mut self, id: &str) -> Result<(), StateError> {
        self.put_networks(self.networks.iter().filter(|network| network.id != id).cloned().collect())
    }

    fn put_networks(&mut self, networks: Vec<NetworkRecord>) -> Result<(), StateError> {
        let file = NetworksFile { version: VERSION, ula: self.ula, networks };
        files::write(&self.networks_file, &file, Survives::PowerFailure)?;
        self.networks = file.networks;
        Ok(())
    }

    /// All sandboxes, by container.
    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = &SandboxRecord> {
        self.sandboxes.values()
    }

    pub(crate) fn sandbox(&self, container: &str) -> Option<&SandboxRecord> {
        self.sandboxes.get(container)
    }

    /// Puts a sandbox on record, or replaces what is on record of it.
    pub(crate) fn put(&mut self, sandbox: SandboxRecord) -> Result<(), StateError> {
        let path = self.sandbox_file(&sandbox.container);
        files::write(&path, &SandboxFile { version: VERSION, sandbox: &sandbox }, Survives::Crash)?;
        self.sandboxes.insert(sandbox.container.clone(), sandbox);
        Ok(())
    }

    /// Takes a sandbox off the record.
    pub(crate) fn remove(&mut self, container: &str) -> Result<(), StateError> {
        files::remove(&self.sandbox_file(container))?;
        self.sandboxes.remove(container);
        Ok(())
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

    fn sandbox_file(&self, container: &str) -> PathBuf {
        self.sandboxes_dir.join(format!("{container}.json"))
    }
}

/// The sandboxes on record. A record that cannot be read is dropped: what it described is then nobody's and removed.
fn read_sandboxes(dir: &Path) -> Result<BTreeMap<String, SandboxRecord>, StateError> {
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
fn built_in() -> Vec<NetworkRecord> {
    BUILT_IN.map(|(name, driver)| NetworkRecord::new(name, driver)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container: &str) -> SandboxRecord {
        SandboxRecord {
            container: container.into(),
            name: "web".into(),
            netns: Some("/run/x".into()),
            endpoints: Vec::new(),
            ports: Vec::new(),
            cgroup: None,
            listeners: Vec::new(),
            wishes: Vec::new(),
            name_servers: Vec::new(),
        }
    }

    #[test]
    fn what_was_on_record_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        let mut book = Book::open(&root, &exec).unwrap();
        let names: Vec<_> = book.networks().iter().map(|n| n.name.clone()).collect();
        assert_eq!(names, ["bridge", "host", "none"]);
        let pools = vec![IpamPool::of("172.17.0.0/16".parse().unwrap())];
        let bridge = book.find_network("bridge").unwrap().clone();
        book.put_network(NetworkRecord { pools: pools.clone(), ..bridge }).unwrap();
        let mine = NetworkRecord::new("mine", "bridge");
        book.put_network(mine.clone()).unwrap();
        book.put_network(NetworkRecord::new("gone", "bridge")).unwrap();
        let gone = book.find_network("gone").unwrap().id.clone();
        book.remove_network(&gone).unwrap();
        book.put(record("a")).unwrap();
        book.put(record("b")).unwrap();
        book.remove("a").unwrap();

        let again = Book::open(&root, &exec).unwrap();
        assert_eq!(again.networks(), book.networks());
        assert_eq!(again.ula(), book.ula());
        assert_eq!(again.find_network("bridge").unwrap().pools, pools);
        assert_eq!(again.find_network(&mine.id[..12]).unwrap(), &mine);
        assert!(matches!(again.find_network("gone"), Err(NoSuchNetwork::Unknown(_))));
        assert_eq!(again.sandboxes().cloned().collect::<Vec<_>>(), [record("b")]);
    }

    #[test]
    fn networks_of_the_first_format_keep_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        fs::create_dir_all(&root).unwrap();
        let old = r#"{"version":1,"networks":[{"id":"ab","name":"bridge","driver":"bridge",
            "created":"2026-01-02T03:04:05Z","ipam":{"subnet":"172.17.0.0/16","gateway":"172.17.0.1"}}]}"#;
        fs::write(root.join("networks.json"), old).unwrap();
        let book = Book::open(&root, &exec).unwrap();
        assert_eq!(book.find_network("bridge").unwrap().id, "ab");
        assert_eq!(Book::open(&root, &exec).unwrap().ula(), book.ula());
    }

    #[test]
    fn half_a_record_is_dropped_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        Book::open(&root, &exec).unwrap().put(record("a")).unwrap();
        fs::write(exec.join("sandboxes/torn.json"), "{").unwrap();
        fs::write(exec.join("sandboxes/a.new"), "").unwrap();
        let book = Book::open(&root, &exec).unwrap();
        assert_eq!(book.sandboxes().count(), 1);
        assert_eq!(fs::read_dir(exec.join("sandboxes")).unwrap().count(), 1);

        fs::write(root.join("networks.json"), r#"{"version": 3}"#).unwrap();
        assert!(matches!(Book::open(&root, &exec), Err(StateError::Newer { .. })));
    }
}
