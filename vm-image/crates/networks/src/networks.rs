//! The one door for the engine.

use std::path::Path;

use crate::{AttachError, AttachRequest, DetachError, Network, NoSuchNetwork, OpenError, Publisher, Sandbox};

/// All networks and sandboxes of one engine. Clones share it.
#[derive(Debug, Clone)]
pub struct Networks {}

/// A sandbox that outlived the engine.
#[derive(Debug)]
pub struct Restored {
    /// The sandbox; `published` holds only what is open again.
    pub sandbox: Sandbox,
    /// The ports that could not be opened again, each with its reason.
    pub lost: Vec<AttachError>,
}

impl Networks {
    /// Opens what is under `root` (durable: networks and their ranges) and `exec_root` (valid for one boot: sandboxes).
    ///
    /// Whatever a crash left that belongs to no recorded sandbox is removed. Call [`restore`](Self::restore) next.
    pub async fn open(root: &Path, exec_root: &Path, publisher: Publisher) -> Result<Self, OpenError> {
        let _ = (root, exec_root, publisher);
        todo!()
    }

    /// Keeps the sandboxes of the containers that still run, with their ports open again, and removes all others.
    ///
    /// Called once, with the ids of the live containers, before the first attach. A live container without a usable
    /// sandbox is not in the result.
    pub async fn restore(&self, live: &[String]) -> Vec<Restored> {
        let _ = live;
        todo!()
    }

    /// Makes a container's sandbox: namespace, device, address, routes; its ports are bound when this returns.
    ///
    /// On failure everything is undone before this returns. It runs to its end even if the future is dropped: then a
    /// [`detach`](Self::detach) is what undoes it.
    pub async fn attach(&self, request: AttachRequest) -> Result<Sandbox, AttachError> {
        let _ = request;
        todo!()
    }

    /// Closes a container's ports (and their connections), gives its address back and removes its namespace.
    ///
    /// A container without a sandbox is detached already. On failure as much as possible is removed, and the call may
    /// be repeated.
    pub async fn detach(&self, container: &str) -> Result<(), DetachError> {
        let _ = container;
        todo!()
    }

    /// A container's sandbox, while it has one.
    #[must_use]
    pub fn sandbox(&self, container: &str) -> Option<Sandbox> {
        let _ = container;
        todo!()
    }

    /// All networks, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Network> {
        todo!()
    }

    /// One network, by its name, its id or an unambiguous beginning of its id, in this order.
    pub fn inspect(&self, network: &str) -> Result<Network, NoSuchNetwork> {
        let _ = network;
        todo!()
    }
}
