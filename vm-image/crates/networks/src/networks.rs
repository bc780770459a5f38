//! The one door for the engine. Each verb is a file of its own: `attach`, `detach`, `restore`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caisson_sys::netns;
use tracing::warn;

use crate::book::{Book, EndpointRecord, NetworkRecord, SandboxRecord};
use crate::drivers::Drivers;
use crate::leftovers::Remover;
use crate::ports::Ports;
use crate::turns::Turns;
use crate::{Attachment, Network, NoSuchNetwork, OpenError, Publisher, Sandbox};

/// All networks and sandboxes of one engine. Clones share it.
#[derive(Debug, Clone)]
pub struct Networks {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Where namespaces are bound.
    pub(crate) netns_dir: PathBuf,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) ports: Ports,
    pub(crate) turns: Turns,
    pub(crate) remover: Arc<Remover>,
    book: Mutex<Book>,
}

impl Shared {
    /// The records. Held for a moment only, and never across an await.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network of an endpoint on record.
    pub(crate) fn network_of(&self, record: &EndpointRecord) -> NetworkRecord {
        let network = self.book().network(&record.endpoint.network).cloned();
        network.expect("a network with endpoints is not removed")
    }
}

impl Networks {
    /// Opens what is under `root` (durable: networks and their ranges) and `exec_root` (valid for one boot: sandboxes).
    ///
    /// Whatever a crash left that belongs to no recorded sandbox is removed. Call [`restore`](Self::restore) next.
    /// Both directories are this crate's alone.
    pub async fn open(root: &Path, exec_root: &Path, publisher: Publisher) -> Result<Self, OpenError> {
        let (root, exec_root) = (root.to_owned(), exec_root.to_owned());
        let (book, netns_dir, drivers) = blocking(move || put_in_order(&root, &exec_root)).await?;
        let recorded = book.sandboxes().flat_map(|sandbox| &sandbox.ports).map(|port| port.forward());
        let ports = Ports::start(publisher, recorded);
        let remover = Arc::new(Remover::start(Arc::clone(&drivers)).map_err(OpenError::Thread)?);
        let (turns, book) = (Turns::default(), Mutex::new(book));
        Ok(Self { shared: Arc::new(Shared { netns_dir, drivers, ports, turns, remover, book }) })
    }

    /// Finishes what is still being removed, and removes the devices that networks share unless somebody is attached.
    ///
    /// For an orderly stop, after all containers are detached.
    pub async fn close(self) {
        Arc::clone(&self.shared.remover).finish().await;
        let shared = self.shared;
        blocking(move || {
            let networks = shared.book().networks().to_vec();
            for network in networks {
                if shared.book().endpoints(&network.id).next().is_some() {
                    continue;
                }
                if let Err(error) = shared.drivers.of(&network).dismantle(&network) {
                    warn!(network = %network.name, %error, "a network's devices are left until the next start");
                }
            }
        })
        .await;
    }

    /// A container's sandbox, while it has one.
    #[must_use]
    pub fn sandbox(&self, container: &str) -> Option<Sandbox> {
        self.shared.book().sandbox(container).map(SandboxRecord::sandbox)
    }

    /// All networks, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Network> {
        let book = self.shared.book();
        book.networks().iter().map(|network| self.describe(&book, network)).collect()
    }

    /// One network, by its name, its id or an unambiguous beginning of its id, in this order.
    pub fn inspect(&self, network: &str) -> Result<Network, NoSuchNetwork> {
        let book = self.shared.book();
        let all = book.networks();
        let exact = all.iter().find(|n| n.name == network).or_else(|| all.iter().find(|n| n.id == network));
        let mut partial = all.iter().filter(|n| !network.is_empty() && n.id.starts_with(network));
        match (exact, partial.next(), partial.count()) {
            (Some(found), ..) | (None, Some(found), 0) => Ok(self.describe(&book, found)),
            (None, None, _) => Err(NoSuchNetwork::Unknown(network.to_owned())),
            (None, Some(_), others) => Err(NoSuchNetwork::Ambiguous(network.to_owned(), others + 1)),
        }
    }

    fn describe(&self, book: &Book, network: &NetworkRecord) -> Network {
        let driver = self.shared.drivers.of(network);
        let attached =
            book.sandboxes().flat_map(|sandbox| sandbox.endpoints.iter().map(move |e| (sandbox, e)));
        let attachments = attached.filter(|(_, record)| record.endpoint.network_id == network.id);
        let attachments = attachments.map(|(sandbox, record)| Attachment {
            container: sandbox.container.clone(),
            name: sandbox.name.clone(),
            endpoint: record.endpoint.clone(),
        });
        Network {
            id: network.id.clone(),
            name: network.name.clone(),
            driver: driver.name(),
            scope: "local",
            created: network.created,
            ipam: network.ipam,
            options: driver.options(),
            attachments: attachments.collect(),
        }
    }
}

/// Reads the records, chooses the ranges of networks that have none that works, and removes what is on no record.
fn put_in_order(root: &Path, exec_root: &Path) -> Result<(Book, PathBuf, Arc<Drivers>), OpenError> {
    let mut book = Book::open(root, exec_root)?;
    let drivers = Arc::new(Drivers::default());
    for network in book.networks().to_vec() {
        let driver = drivers.of(&network);
        let failed = |error| OpenError::Network(network.name.clone(), error);
        book.set_ipam(&network.name, driver.plan(&network).map_err(failed)?)?;
        let keep: BTreeSet<&str> = book.endpoints(&network.id).filter_map(|e| e.device.as_deref()).collect();
        driver.sweep(&network, &keep).map_err(failed)?;
    }
    let netns_dir = exec_root.join("netns");
    sweep_namespaces(&netns_dir, &book)
        .map_err(|source| OpenError::Namespaces { path: netns_dir.display().to_string(), source })?;
    Ok((book, netns_dir, drivers))
}

/// Removes the namespaces that belong to no sandbox on record.
fn sweep_namespaces(dir: &Path, book: &Book) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let keep: BTreeSet<PathBuf> = book.sandboxes().filter_map(|sandbox| sandbox.netns.clone()).collect();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !keep.contains(&path) {
            netns::remove(&path)?;
        }
    }
    Ok(())
}

/// Runs work that waits for the kernel or a disk away from the async workers.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
