//! Containers: one task owns each, others ask it and watch what it publishes.
//!
//! [`Containers`] is the register: ids, names, [`Handle`]s. A [`Handle`] is how anybody else sees a container: what it
//! is to be ([`record::Definition`], of which [`Handle::definition`] gives a snapshot; it changes only through the task,
//! see [`redefine`]), where it stands ([`state::Status`], published by its task), and a queue of requests to the task (`task`). What takes long is not the task's: to stop is to ask for a
//! signal, to watch for the end, and to ask again; so a `kill` gets through while a `stop` waits.
//!
//! In words, `docker run --rm busybox true`: *create* reserves a name, holds the image's layers, writes the record and
//! starts the task. *attach* leaves its wish with the task. *wait* watches. *start*: the networks make a sandbox and bind
//! ports, the spec is composed, the shim is spawned, the attached clients' connections are made, then the shim is told to
//! start: no byte is lost. When the shim says that the process has ended, the sandbox goes, the end is recorded and published,
//! and, as nobody wants to keep it, the container is removed.
//!
//! After a crash of the engine, [`restore`] finds every container in its directory and every shim by its socket.

pub(crate) mod archive;
pub(crate) mod attach;
mod cgroup;
pub(crate) mod commit;
pub(crate) mod create;
mod environment;
pub(crate) mod exec;
mod files;
mod filter;
pub(crate) mod health;
pub(crate) mod inspect;
pub(crate) mod kill;
mod late;
mod leftovers;
mod links;
pub(crate) mod list;
pub(crate) mod logs;
mod mounts;
mod names;
pub(crate) mod networks;
mod news;
mod pause;
mod policy;
pub(crate) mod ports;
mod prune;
pub(crate) mod quota;
pub(crate) mod record;
mod redefine;
pub(crate) mod remove;
mod rename;
mod resolv_conf;
mod restart;
mod restore;
mod shared;
mod shim;
pub(crate) mod signal;
mod spec;
mod start;
pub(crate) mod state;
mod stats;
pub(crate) mod stop;
pub(crate) mod support;
mod task;
#[cfg(test)]
mod testing;
mod top;
mod update;
mod users;
mod validate;
pub(crate) mod wait;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caisson_images::{ContainerUse, Store};
use caisson_networks::Networks;
use caisson_volumes::Volumes;
use tokio::sync::{mpsc, oneshot, watch};

use self::exec::Execs;
use self::health::Healths;
use self::record::{Definition, Directory};
use self::shared::Shared;
use self::shim::Shim;
use self::state::{State, Status};
use self::task::Request;
use crate::error::ApiError;
use crate::events::Events;
use crate::remap::Remap;

/// What containers stand on.
pub(crate) struct Ground {
    /// The containers' directories.
    pub(crate) containers: PathBuf,
    /// The shims' bundles.
    pub(crate) shims: PathBuf,
    /// The shim's program.
    pub(crate) shim: PathBuf,
    /// A layer below every container's own: mount points and `/.dockerenv`.
    pub(crate) base_layer: PathBuf,
    /// An empty directory, on which views of containers are mounted where nobody else sees it.
    pub(crate) view: PathBuf,
    pub(crate) images: Store,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) events: Arc<Events>,
    /// The engine is ending: what ends now was not stopped by a client, and nothing is started again.
    pub(crate) ending: AtomicBool,
    /// The processes that were added to containers.
    pub(crate) execs: Execs,
    /// How healthy containers are.
    pub(crate) healths: Healths,
    /// Which limits this kernel can hold.
    pub(crate) support: support::Support,
    /// A file with variables that containers get.
    pub(crate) environment: Option<PathBuf>,
    /// What `host-gateway` stands for in `--add-host`; without any, the default bridge's own addresses.
    pub(crate) host_gateways: Vec<IpAddr>,
    /// How much of the disk containers may be held to.
    pub(crate) quota: quota::Quota,
    /// Who containers' users are, if they are not this system's.
    pub(crate) remap: Option<Remap>,
}

impl Ground {
    fn directory(&self, id: &str) -> Directory {
        Directory::new(&self.containers, id)
    }

    /// The addresses by which containers reach this host.
    fn host_gateways(&self) -> Vec<IpAddr> {
        match &self.host_gateways[..] {
            [] => {
                let bridge = self.networks.inspect("bridge");
                bridge.into_iter().flat_map(|bridge| bridge.pools).filter_map(|pool| pool.gateway).collect()
            }
            told => told.to_vec(),
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn shim_of(&self, id: &str) -> Shim {
        Shim::new(&self.shims, id)
    }
}

/// All containers.
#[derive(Clone)]
pub(crate) struct Containers {
    ground: Arc<Ground>,
    register: Arc<Register>,
}

/// Ids and names. Never held across an `.await`.
#[derive(Default)]
struct Register(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// Containers whose task runs.
    handles: BTreeMap<String, Handle>,
    /// Which id has which name; also of containers that are being made.
    names: HashMap<String, String>,
}

impl Register {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for an id, or says who has it.
    fn reserve(&self, name: &str, id: &str) -> Result<(), ApiError> {
        let mut entries = self.entries();
        if let Some(holder) = entries.names.get(name) {
            return Err(ApiError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        entries.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Takes a name that nobody has for an id.
    fn reserve_random(&self, id: &str) -> String {
        let mut entries = self.entries();
        let name = names::random(|name| !entries.names.contains_key(name));
        entries.names.insert(name.clone(), id.to_owned());
        name
    }

    /// The container of this id, name, or beginning of an id, in this order.
    fn find(&self, name: &str) -> Result<Handle, ApiError> {
        let entries = self.entries();
        if let Some(handle) = entries.handles.get(name) {
            return Ok(handle.clone());
        }
        let named = entries.names.get(name.strip_prefix('/').unwrap_or(name));
        if let Some(handle) = named.and_then(|id| entries.handles.get(id)) {
            return Ok(handle.clone());
        }
        let unknown = || ApiError::not_found(format!("No such container: {name}"));
        if name.is_empty() {
            return Err(unknown());
        }
        drop(entries);
        if let Some(handle) = self.linked(name) {
            return Ok(handle);
        }
        let entries = self.entries();
        let mut matches = entries.handles.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name));
        let (_, handle) = matches.next().ok_or_else(unknown)?;
        if matches.next().is_some() {
            return Err(ApiError::invalid(format!("multiple IDs found with provided prefix: {name}")));
        }
        Ok(handle.clone())
    }

    fn release_name(&self, name: &str) {
        self.entries().names.remove(name);
    }

    fn add(&self, handle: Handle) {
        self.entries().handles.insert(handle.id.to_string(), handle);
    }

    fn forget(&self, definition: &Definition) {
        let mut entries = self.entries();
        entries.handles.remove(&definition.id);
        entries.names.remove(&definition.name);
    }
}

/// One container, as everybody but its task sees it.
#[derive(Clone)]
pub(crate) struct Handle {
    /// Its full id, which never changes.
    pub(crate) id: Arc<str>,
    definition: watch::Receiver<Arc<Definition>>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    /// Who has it mounts or reads the layers of the container while it does not run, starts it, or removes it.
    files: Arc<tokio::sync::Mutex<()>>,
    events: Arc<Events>,
}

impl Handle {
    /// What it is to be, as it is now: a snapshot, which a rename or an update does not reach.
    pub(crate) fn definition(&self) -> Arc<Definition> {
        self.definition.borrow().clone()
    }

    /// The id as people see it.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Where it stands now.
    pub(crate) fn state(&self) -> State {
        self.status.borrow().state.clone()
    }

    /// Whether it runs, or is about to be started again by its policy.
    pub(crate) fn is_active(&self) -> bool {
        self.status.borrow().state.is_active()
    }

    /// Where it stands, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Asks its task and waits for the answer.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Request,
    ) -> Result<T, ApiError> {
        let gone = || ApiError::not_found(format!("No such container: {}", self.id));
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Containers {
    /// No containers yet: see [`Containers::restore`].
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground: Arc::new(ground), register: Arc::default() }
    }

    /// The container of this id, name, or beginning of an id, in this order.
    pub(crate) fn find(&self, name: &str) -> Result<Handle, ApiError> {
        self.register.find(name)
    }

    /// All of them, the newest first.
    pub(crate) fn all(&self) -> Vec<Handle> {
        let mut all: Vec<Handle> = self.register.entries().handles.values().cloned().collect();
        all.sort_by_cached_key(|handle| std::cmp::Reverse(handle.definition().created));
        all
    }

    /// Who uses an image: as its root, or mounted.
    pub(crate) fn users_of(&self, image: &str) -> Vec<ContainerUse> {
        let entries = self.register.entries();
        let users = entries.handles.values().filter(|handle| {
            let definition = handle.definition();
            definition.image == image
                || definition.mounts.iter().any(|mounting| mounting.image() == Some(image))
        });
        users.map(|h| ContainerUse { id: h.id.to_string(), running: h.is_active() }).collect()
    }

    /// From now on an end is the engine's doing: it is no client's stop, and nothing is started again.
    pub(crate) fn begin_ending(&self) {
        self.ground.ending.store(true, Ordering::Relaxed);
    }

    /// Where a container keeps its files.
    pub(crate) fn directory(&self, id: &str) -> Directory {
        self.ground.directory(id)
    }

    /// Returns when every task has done what it was asked so far.
    pub(crate) async fn settle(&self) {
        for handle in self.all() {
            // One that has gone has nothing left to do.
            let _ = handle.ask(|answer| Request::KeepAtEnd(false, answer)).await;
        }
    }
}

/// What every event of a container tells: its labels, its image and its name, and more.
pub(crate) fn attributes(definition: &Definition, more: &[(&str, String)]) -> BTreeMap<String, String> {
    let mut attributes = definition.config.labels.clone().unwrap_or_default();
    attributes.insert("image".into(), definition.config.image.clone());
    attributes.insert("name".into(), definition.name.clone());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    attributes
}

impl Ground {
    fn tell(&self, definition: &Definition, action: &str, more: &[(&str, String)]) {
        self.events.publish("container", action, &definition.id, attributes(definition, more));
    }

    /// Tells of a container that joined or left the networks of its sandbox.
    fn tell_networks(&self, sandbox: &caisson_networks::Sandbox, action: &str) {
        for endpoint in &sandbox.endpoints {
            self.tell_network(&sandbox.container, endpoint, action);
        }
    }

    /// Tells of a container that joined or left a network.
    fn tell_network(&self, container: &str, endpoint: &caisson_networks::Endpoint, action: &str) {
        let attributes = [("container", container), ("name", &endpoint.network), ("type", &endpoint.driver)];
        let attributes = attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        self.events.publish("network", action, &endpoint.network_id, attributes);
    }
}
