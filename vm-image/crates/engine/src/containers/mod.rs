//! Containers: one task owns each, others ask it and watch what it publishes.
//!
//! [`Containers`] is the register: ids, names, [`Handle`]s. A [`Handle`] is how anybody else sees a container: what it
//! was made to be ([`record::Definition`], which never changes), where it stands ([`state::Status`], published by its
//! task), and a queue of requests to the task (`task`). What takes long is not the task's: to stop is to ask for a
//! signal, to watch for the end, and to ask again; so a `kill` gets through while a `stop` waits.
//!
//! In words, `docker run --rm busybox true`: *create* reserves a name, holds the image's layers, writes the record and
//! starts the task. *attach* leaves its wish with the task. *wait* watches. *start*: the networks make a sandbox and bind
//! ports, the spec is composed, the shim is spawned, the attached clients' connections are made, then the shim is told to
//! start: no byte is lost. When the shim says that the process has ended, the sandbox goes, the end is recorded and published,
//! and, as nobody wants to keep it, the container is removed.
//!
//! After a crash of the engine, [`restore`] finds every container in its directory and every shim by its socket.

pub(crate) mod attach;
mod cgroup;
pub(crate) mod create;
mod files;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
mod mounts;
mod names;
pub(crate) mod ports;
pub(crate) mod record;
mod remove;
mod restart;
mod restore;
mod shim;
pub(crate) mod signal;
mod spec;
mod start;
pub(crate) mod state;
pub(crate) mod stop;
mod task;
mod validate;
pub(crate) mod wait;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caisson_images::{ContainerUse, Store};
use caisson_networks::Networks;
use tokio::sync::{mpsc, oneshot, watch};

use self::record::{Definition, Directory};
use self::shim::Shim;
use self::state::{State, Status};
use self::task::Request;
use crate::error::ApiError;
use crate::events::Events;

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
    pub(crate) images: Store,
    pub(crate) networks: Networks,
    pub(crate) events: Arc<Events>,
}

impl Ground {
    fn directory(&self, id: &str) -> Directory {
        Directory::new(&self.containers, id)
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

    fn release_name(&self, name: &str) {
        self.entries().names.remove(name);
    }

    fn add(&self, handle: Handle) {
        self.entries().handles.insert(handle.definition.id.clone(), handle);
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
    pub(crate) definition: Arc<Definition>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    events: Arc<Events>,
}

impl Handle {
    /// Where it stands now.
    pub(crate) fn state(&self) -> State {
        self.status.borrow().state.clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status.borrow().state.running().is_some()
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
        let gone = || ApiError::not_found(format!("No such container: {}", self.definition.id));
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
        let entries = self.register.entries();
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
        let mut matches = entries.handles.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name));
        let (_, handle) = matches.next().ok_or_else(unknown)?;
        if matches.next().is_some() {
            return Err(ApiError::invalid(format!("multiple IDs found with provided prefix: {name}")));
        }
        Ok(handle.clone())
    }

    /// All of them, the newest first.
    pub(crate) fn all(&self) -> Vec<Handle> {
        let mut all: Vec<Handle> = self.register.entries().handles.values().cloned().collect();
        all.sort_by_key(|handle| std::cmp::Reverse(handle.definition.created));
        all
    }

    /// Who uses an image.
    pub(crate) fn users_of(&self, image: &str) -> Vec<ContainerUse> {
        let entries = self.register.entries();
        let users = entries.handles.values().filter(|handle| handle.definition.image == image);
        users.map(|h| ContainerUse { id: h.definition.id.clone(), running: h.is_running() }).collect()
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
            let driver = if endpoint.network == "none" { "null" } else { &endpoint.network };
            let attributes =
                [("container", &sandbox.container[..]), ("name", &endpoint.network), ("type", driver)];
            let attributes = attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            self.events.publish("network", action, &endpoint.network_id, attributes);
        }
    }
}
