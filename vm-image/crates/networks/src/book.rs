//! What is remembered: networks for good, sandboxes for one boot of the system.
//!
//! A sandbox is on record before anything of it exists and until all of it that others could notice is gone. So at any
//! moment a killed engine leaves either a record that says what to remove, or leftovers that no record mentions
//! and that are therefore removed at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use crate::files::{self, StateError, Survives};
use crate::ids::new_id;
use crate::{Endpoint, IpamConfig, NetworkMode, PublishedPort, Sandbox};

/// The format of both kinds of file.
const VERSION: u32 = 1;

/// A network on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    pub(crate) ipam: Option<IpamConfig>,
}

#[derive(Serialize, Deserialize)]
struct NetworksFile {
    version: u32,
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
}

/// An endpoint, and the device on the engine's side that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) endpoint: Endpoint,
    pub(crate) device: Option<String>,
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
    pub(crate) fn sandbox(&self) -> Sandbox {
        Sandbox {
            container: self.container.clone(),
            netns: self.netns.clone(),
            endpoints: self.endpoints.iter().map(|e| e.endpoint.clone()).collect(),
            published: self.ports.iter().map(|p| p.published.clone()).collect(),
        }
    }
}

/// Everything on record.
#[derive(Debug)]
pub(crate) struct Book {
    networks_file: PathBuf,
    sandboxes_dir: PathBuf,
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
        let networks = files::read::<NetworksFile>(&networks_file, VERSION)?;
        let sandboxes = read_sandboxes(&sandboxes_dir)?;
        let mut book = Self { networks_file, sandboxes_dir, networks: Vec::new(), sandboxes };
        match networks {
            Some(file) => book.networks = file.networks,
            None => book.put_networks(built_in())?,
        }
        Ok(book)
    }

    /// All networks, by name.
    pub(crate) fn networks(&self) -> &[NetworkRecord] {
        &self.networks
    }

    pub(crate) fn network(&self, name: &str) -> Option<&NetworkRecord> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// Moves a network to another range.
    pub(crate) fn set_ipam(&mut self, name: &str, ipam: Option<IpamConfig>) -> Result<(), StateError> {
        let mut networks = self.networks.clone();
        let moved = networks.iter_mut().find(|network| network.name == name && network.ipam != ipam);
        let Some(network) = moved else { return Ok(()) };
        network.ipam = ipam;
        self.put_networks(networks)
    }

    fn put_networks(&mut self, networks: Vec<NetworkRecord>) -> Result<(), StateError> {
        let file = NetworksFile { version: VERSION, networks };
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
    pub(crate) fn granted(&self, network_id: &str) -> BTreeSet<Ipv4Addr> {
        self.endpoints(network_id).filter_map(|e| Some(e.endpoint.link.as_ref()?.address)).collect()
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
    let created = OffsetDateTime::now_utc();
    let drivers = [(NetworkMode::Bridge, "bridge"), (NetworkMode::Host, "host"), (NetworkMode::None, "null")];
    let network = |(mode, driver): (NetworkMode, &str)| NetworkRecord {
        id: new_id(),
        name: mode.network().into(),
        driver: driver.into(),
        created,
        ipam: None,
    };
    drivers.map(network).into()
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
        }
    }

    #[test]
    fn what_was_on_record_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        let mut book = Book::open(&root, &exec).unwrap();
        let names: Vec<_> = book.networks().iter().map(|n| n.name.clone()).collect();
        assert_eq!(names, ["bridge", "host", "none"]);
        let ipam = crate::ipam::choose_range(None, &[]);
        book.set_ipam("bridge", ipam).unwrap();
        book.put(record("a")).unwrap();
        book.put(record("b")).unwrap();
        book.remove("a").unwrap();

        let again = Book::open(&root, &exec).unwrap();
        assert_eq!(again.networks(), book.networks());
        assert_eq!(again.network("bridge").unwrap().ipam, ipam);
        assert_eq!(again.sandboxes().cloned().collect::<Vec<_>>(), [record("b")]);
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

        fs::write(root.join("networks.json"), r#"{"version": 2}"#).unwrap();
        assert!(matches!(Book::open(&root, &exec), Err(StateError::Newer { .. })));
    }
}
