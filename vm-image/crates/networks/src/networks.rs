//! The one door for the engine. Each verb is a file of its own: `attach`, `detach`, `join`, `create`, `remove`, `restore`.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use caisson_guest_proto::PortForward;
use caisson_sys::netns;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::warn;

use crate::book::{Book, EndpointRecord, NetworkRecord, PortRecord, SandboxRecord};
use crate::dns::{self, Found, Names, Outside, Resolvers};
use crate::drivers::{self, Drivers};
use crate::firewall::{self, Firewall, FirewallError, Recorded};
use crate::ipam::{self, DefaultPool};
use crate::leftovers::Remover;
use crate::listeners;
use crate::netlink::{self, Netlink};
use crate::ports::Ports;
use crate::records::{Pen, Records};
use crate::turns::Turns;
use crate::{Attachment, IpamPool, Network, NoSuchNetwork, OpenError, Publisher, Sandbox, Subnet};

/// What an engine decides about its networks when it starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who opens published ports.
    pub publisher: Publisher,
    /// Where networks that name no range get theirs from; empty is Docker's own pools.
    pub default_pools: Vec<DefaultPool>,
    /// A file with ranges that something beyond this system's own routes leads to, such as the routes of the machine's
    /// host: one in CIDR form a line. It is read whenever a range is chosen; without it there are none.
    pub avoid: Option<PathBuf>,
    /// Who answers what containers ask and we do not know; empty is the name servers of this system.
    pub name_servers: Vec<IpAddr>,
}

impl Options {
    /// Nothing decided but who opens ports.
    #[must_use]
    pub fn new(publisher: Publisher) -> Self {
        Self { publisher, default_pools: Vec::new(), avoid: None, name_servers: Vec::new() }
    }
}

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
    pub(crate) resolvers: Resolvers,
    pub(crate) firewall: Firewall,
    pools: Vec<DefaultPool>,
    avoid: Option<PathBuf>,
    records: Records,
    /// Held by those who make or remove networks, one at a time.
    pub(crate) network_turn: tokio::sync::Mutex<()>,
    /// Written by the one that looks whether the default bridge has to move, read by those who are joining something: until
    /// their addresses are on record, nobody can see that it is not idle.
    pub(crate) moving: RwLock<()>,
    /// Told when there may be another container to follow on the network `host`.
    pub(crate) listeners_changed: Arc<Notify>,
    /// What ends with this.
    tasks: Mutex<JoinSet<()>>,
}

impl Shared {
    /// The records. Held for a moment only, and never across an await.
    pub(crate) fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.records.book()
    }

    /// The turn of those who change the records. Blocks for the disk.
    pub(crate) fn pen(&self) -> Pen<'_> {
        self.records.pen()
    }

    /// The network of an endpoint on record.
    pub(crate) fn network_of(&self, record: &EndpointRecord) -> NetworkRecord {
        let network = self.book().network(&record.endpoint.network_id).cloned();
        network.expect("a network with endpoints is not removed")
    }

    /// The ranges that a new network must keep clear of: other networks' and those that routes lead to. `except` is the
    /// network that asks.
    pub(crate) fn used_ranges(&self, except: &str) -> Result<Vec<Subnet>, drivers::DriverError> {
        let avoided = self.avoided();
        let networks = self.book().networks().to_vec();
        used_ranges(&networks, &avoided, except)
    }

    /// The ranges that networks are to keep clear of besides. Blocks for a file.
    pub(crate) fn avoided(&self) -> Vec<Subnet> {
        self.avoid.as_deref().map(ipam::read_ranges).unwrap_or_default()
    }

    /// Makes the kernel's rules what the records say. Blocks for the kernel.
    pub(crate) fn refresh_rules(&self) -> Result<(), FirewallError> {
        self.firewall.refresh(|| self.recorded())
    }

    fn recorded(&self) -> Recorded {
        Recorded { bridges: self.bridges(), ports: firewall::ports(&self.book()) }
    }

    /// The networks whose devices are there, with the devices' names.
    pub(crate) fn bridges(&self) -> Vec<(NetworkRecord, String)> {
        let networks = self.book().networks().to_vec();
        let made = networks.into_iter().filter(|network| !network.config_only);
        let bridges = made.filter_map(|network| Some((self.drivers.of(&network).device(&network)?, network)));
        bridges.map(|(device, network)| (network, device)).collect()
    }

    /// The same where there is nobody to tell: rules that lead nowhere do no harm, and the next change mends them.
    pub(crate) fn refresh_rules_if_possible(&self) {
        if let Err(error) = self.refresh_rules() {
            warn!(error = %crate::error::chain(&error), "the rules between networks are not up to date");
        }
    }

    /// Makes the rules again after somebody else has changed them. Whether there are to be any, and there are.
    pub(crate) fn restore_rules(&self) -> Result<bool, FirewallError> {
        self.firewall.restore(|| self.recorded())
    }

    /// A range for a network that names none.
    pub(crate) fn choose_pool(
        &self,
        ipv4: bool,
        preferred: Option<Subnet>,
        used: &[Subnet],
    ) -> Option<IpamPool> {
        ipam::choose_range(ipv4, preferred, &self.pools, used).map(IpamPool::of)
    }
}

/// The servers of names must not keep alive what keeps them.
impl Names for Weak<Shared> {
    fn find(&self, container: &str, name: &str) -> Option<Found> {
        dns::find(&self.upgrade()?.book(), container, name)
    }

    fn name_of(&self, container: &str, address: IpAddr) -> Option<String> {
        dns::name_of(&self.upgrade()?.book(), container, address)
    }

    fn outside(&self, container: &str) -> Outside {
        let Some(shared) = self.upgrade() else { return Outside::Nobody };
        let book = shared.book();
        let Some(record) = book.sandbox(container) else { return Outside::Nobody };
        match &record.netns {
            _ if record.reachable().is_none() => Outside::Nobody,
            Some(netns) if !record.name_servers.is_empty() => {
                Outside::Chosen(record.name_servers.clone(), netns.clone())
            }
            _ => Outside::Ours,
        }
    }
}

fn used_ranges(
    networks: &[NetworkRecord],
    avoid: &[Subnet],
    except: &str,
) -> Result<Vec<Subnet>, drivers::DriverError> {
    let routed = netlink::connected_ranges(&mut Netlink::open()?)?;
    let others = networks.iter().filter(|network| network.id != except);
    let taken = others.flat_map(NetworkRecord::active_pools).map(|pool| pool.subnet);
    Ok(routed.into_iter().chain(taken).chain(avoid.iter().copied()).collect())
}

impl Networks {
    /// Opens what is under `root` (durable: networks and their ranges) and `exec_root` (valid for one boot: sandboxes).
    ///
    /// Whatever a crash left that belongs to no recorded sandbox is removed. Call [`restore`](Self::restore) next.
    /// Both directories are this crate's alone.
    pub async fn open(root: &Path, exec_root: &Path, options: Options) -> Result<Self, OpenError> {
        let (root, exec_root) = (root.to_owned(), exec_root.to_owned());
        let Options { publisher, default_pools, avoid, name_servers } = options;
        let drivers = Drivers::new(matches!(publisher, Publisher::External(_)));
        let opened = blocking(move || {
            let ranges = avoid.as_deref().map(ipam::read_ranges).unwrap_or_default();
            put_in_order(&root, &exec_root, drivers, default_pools, &ranges).map(|opened| (opened, avoid))
        });
        let (Opened { records, netns_dir, drivers, pools, left }, avoid) = opened.await?;
        let recorded: Vec<PortForward> = {
            let book = records.book();
            let recorded = book.sandboxes().flat_map(SandboxRecord::open_ports);
            recorded.filter(|port| !port.is_routed()).map(PortRecord::forward).collect()
        };
        let ports = Ports::start(publisher.clone(), recorded.into_iter());
        let remover = Arc::new(Remover::start(Arc::clone(&drivers)).map_err(OpenError::Thread)?);
        let (turns, network_turn) = (Turns::default(), tokio::sync::Mutex::default());
        let resolvers = Resolvers::new(name_servers);
        let firewall = Firewall::new(publisher == Publisher::Native, &left);
        let listeners_changed = Arc::<Notify>::default();
        let shared = Arc::new(Shared {
            netns_dir,
            drivers,
            ports,
            turns,
            remover,
            resolvers,
            firewall,
            pools,
            avoid,
            records,
            network_turn,
            moving: RwLock::default(),
            listeners_changed: Arc::clone(&listeners_changed),
            tasks: Mutex::default(),
        });
        // Only now: a task that is quick would find nothing behind its weak reference before.
        {
            let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(firewall::watch::keep(Arc::downgrade(&shared)));
            if let Publisher::External(_) = publisher {
                tasks.spawn(listeners::follow(Arc::downgrade(&shared), listeners_changed));
            }
        }
        Ok(Self { shared })
    }

    /// Finishes what is still being removed, and removes the devices that networks share unless somebody is attached.
    ///
    /// For an orderly stop, after all containers are detached.
    pub async fn close(self) {
        Arc::clone(&self.shared.remover).finish().await;
        let shared = self.shared;
        blocking(move || {
            let networks = shared.book().networks().to_vec();
            // A device that idle networks share is no reason to keep it for one another.
            let (in_use, idle): (Vec<_>, Vec<_>) =
                networks.into_iter().partition(|n| shared.book().endpoints(&n.id).next().is_some());
            for network in idle.iter().filter(|network| !network.config_only) {
                if let Err(error) = shared.drivers.of(network).dismantle(network, &in_use) {
                    warn!(network = %network.name, %error, "a network's devices are left until the next start");
                }
            }
            shared.refresh_rules_if_possible();
        })
        .await;
    }

    /// A container's sandbox, while it has one.
    #[must_use]
    pub fn sandbox(&self, container: &str) -> Option<Sandbox> {
        self.shared.book().sandbox(container).map(SandboxRecord::sandbox)
    }

    /// All networks, in the order in which they were made.
    #[must_use]
    pub fn list(&self) -> Vec<Network> {
        let book = self.shared.book();
        book.finished().map(|network| self.describe(&book, network)).collect()
    }

    /// One network, by its id, its name or an unambiguous beginning of its id, in this order.
    pub fn inspect(&self, network: &str) -> Result<Network, NoSuchNetwork> {
        let book = self.shared.book();
        book.find_network(network).map(|found| self.describe(&book, found))
    }

    fn describe(&self, book: &Book, network: &NetworkRecord) -> Network {
        let attached =
            book.sandboxes().flat_map(|sandbox| sandbox.endpoints.iter().map(move |e| (sandbox, e)));
        let attachments = attached.filter(|(_, record)| record.endpoint.network_id == network.id);
        let attachments = attachments.map(|(sandbox, record)| Attachment {
            container: sandbox.container.clone(),
            name: sandbox.name.clone(),
            endpoint: record.endpoint.clone(),
        });
        let options = match network.config_only {
            true => network.options.clone(),
            false => self.shared.drivers.of(network).options(network),
        };
        Network {
            id: network.id.clone(),
            name: network.name.clone(),
            driver: network.driver.clone(),
            created: network.created,
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            internal: network.internal,
            attachable: network.attachable,
            config_only: network.config_only,
            config_from: network.config_from.clone(),
            pools: network.pools.clone(),
            ipam_options: network.ipam_options.clone(),
            options,
            labels: network.labels.clone(),
            attachments: attachments.collect(),
        }
    }
}

struct Opened {
    records: Records,
    netns_dir: PathBuf,
    drivers: Arc<Drivers>,
    pools: Vec<DefaultPool>,
    /// What the engine before this one has made its rules of.
    left: Recorded,
}

/// Reads the records, gives the default bridge a range that works, and removes what is on no record.
fn put_in_order(
    root: &Path,
    exec_root: &Path,
    drivers: Drivers,
    mut pools: Vec<DefaultPool>,
    avoid: &[Subnet],
) -> Result<Opened, OpenError> {
    let records = Records::open(root, exec_root)?;
    let pen = records.pen();
    let networks = pen.book().networks().to_vec();
    if pools.is_empty() {
        pools = DefaultPool::dockers(pen.book().ula());
    }
    let drivers = Arc::new(drivers);
    for network in networks.iter().filter(|network| network.unfinished) {
        if !network.config_only {
            let failed = |error| OpenError::Network(network.name.clone(), error);
            drivers.of(network).dismantle(network, &networks).map_err(failed)?;
        }
        pen.remove_network(&network.id)?;
    }
    let networks = pen.book().networks().to_vec();
    if let Some(mut bridge) = networks.iter().find(|network| network.is_default_bridge()).cloned() {
        let failed = |error| OpenError::Network(bridge.name.clone(), error);
        if bridge.pools.is_empty() || !drivers.of(&bridge).is_made(&bridge).map_err(failed)? {
            let used = used_ranges(&networks, avoid, &bridge.id).map_err(failed)?;
            let preferred = bridge.pools.first().map(|pool| pool.subnet);
            // Without a free range it has none now; the first container looks again, and is told.
            bridge.pools =
                ipam::choose_range(true, preferred, &pools, &used).map(IpamPool::of).into_iter().collect();
            pen.put_network(bridge)?;
        }
    }
    drop(pen);
    sweep_devices(&networks, &records.book())?;
    let netns_dir = exec_root.join("netns");
    sweep_namespaces(&netns_dir, &records.book())
        .map_err(|source| OpenError::Namespaces { path: netns_dir.display().to_string(), source })?;
    let left = left(&drivers, &records.book());
    Ok(Opened { records, netns_dir, drivers, pools, left })
}

/// The networks with sandboxes on record whose devices are there, and the published ports.
fn left(drivers: &Drivers, book: &Book) -> Recorded {
    let device = |network: &NetworkRecord| {
        drivers.of(network).left_device(network).unwrap_or_else(|error| {
            warn!(network = %network.name, %error, "connections to containers that have died may go on");
            None
        })
    };
    let joined = book.networks().iter().filter(|network| book.endpoints(&network.id).next().is_some());
    let bridges = joined.filter_map(|network| Some((network.clone(), device(network)?))).collect();
    Recorded { bridges, ports: firewall::ports(book) }
}

/// Removes the devices that belong to no sandbox on record.
fn sweep_devices(networks: &[NetworkRecord], book: &Book) -> Result<(), OpenError> {
    let devices = book.sandboxes().flat_map(|sandbox| &sandbox.endpoints);
    let devices: BTreeSet<&str> = devices.filter_map(|endpoint| endpoint.device.as_deref()).collect();
    drivers::sweep(networks, &|device| devices.contains(device)).map_err(OpenError::Devices)
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
