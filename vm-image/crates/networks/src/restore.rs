//! Taking over the sandboxes of an engine that was killed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use caisson_sys::netns::Netns;
use tracing::{info, warn};

use crate::book::SandboxRecord;
use crate::error::chain;
use crate::networks::{Shared, blocking};
use crate::{AttachError, Networks, Sandbox};

/// A sandbox that outlived the engine.
#[derive(Debug)]
pub struct Restored {
    /// The sandbox; `published` holds only what is open again (or will be as soon as the machine's host is back).
    pub sandbox: Sandbox,
    /// The ports that could not be opened again, each with its reason.
    pub lost: Vec<AttachError>,
}

impl Networks {
    /// Keeps the sandboxes of the containers that still run, with their ports open again, and removes all others.
    ///
    /// Called once, with the ids of the live containers, before the first attach. A live container without a usable
    /// sandbox is not in the result.
    pub async fn restore(&self, live: &[String]) -> Vec<Restored> {
        let records: Vec<SandboxRecord> = self.shared.book().sandboxes().cloned().collect();
        // The rules are written anew with the first that goes. By then it must be known what the others are on, or they would be
        // without rules for a while, and their connections would end.
        let mut whole = BTreeSet::new();
        for record in records.iter().filter(|record| live.contains(&record.container)) {
            if self.is_whole(record).await {
                whole.insert(record.container.clone());
            }
        }
        let mut restored = Vec::new();
        for record in records {
            let container = record.container.clone();
            let _turn = self.shared.turns.take(&container).await;
            if whole.contains(&container) {
                restored.push(self.reopen(record).await);
            } else if let Err(error) = self.detach_in_turn(&container).await {
                warn!(%error, "what is left of a sandbox could not be removed");
            }
        }
        let shared = self.shared.clone();
        blocking(move || shared.open_behind_rules()).await;
        self.shared.listeners_changed.notify_one();
        restored
    }

    /// Whether namespace and devices are still there.
    async fn is_whole(&self, record: &SandboxRecord) -> bool {
        let (shared, record) = (self.shared.clone(), record.clone());
        blocking(move || {
            let bound = record.netns.as_ref().is_none_or(|path| is_bound(path));
            let joined = record.endpoints.iter().all(|endpoint| {
                let network = shared.network_of(endpoint);
                let driver = shared.drivers.of(&network);
                // What its neighbours share is known again, and the rules of its network with it.
                if let Err(error) = driver.make(&network) {
                    warn!(network = %network.name, %error, "could not put a network's devices in order");
                }
                // A kernel that could not be asked is no reason to take a live container's network away.
                driver.is_joined(endpoint, record.netns.as_deref()).unwrap_or_else(|error| {
                    warn!(container = %record.container, %error, "could not look for a container's device");
                    true
                })
            });
            if !(bound && joined) {
                warn!(container = %record.container, bound, joined, "a live container has lost its network");
            }
            bound && joined
        })
        .await
    }

    async fn reopen(&self, mut record: SandboxRecord) -> Restored {
        let mut lost: Vec<AttachError> = self.answer_names(&record).await.err().into_iter().collect();
        let mut open = Vec::new();
        for port in std::mem::take(&mut record.ports) {
            let Some((endpoint, _)) = record.reachable() else { break };
            match self.shared.ports.reopen(&record.name, &port).await {
                Ok(()) => open.push(port),
                Err(source) => lost.push(AttachError::Publish {
                    name: record.name.clone(),
                    endpoint_id: endpoint.endpoint_id.clone(),
                    source,
                }),
            }
        }
        record.ports = open;
        // What is not open again is found again.
        for listener in std::mem::take(&mut record.listeners) {
            if self.shared.ports.reopen(&record.name, &listener).await.is_ok() {
                record.listeners.push(listener);
            }
        }
        info!(container = %record.container, ports = record.ports.len(), lost = lost.len(), "took over a sandbox");
        let sandbox = record.sandbox();
        if !lost.is_empty() {
            self.record_again(record).await;
        }
        Restored { sandbox, lost }
    }

    pub(crate) async fn record_again(&self, record: SandboxRecord) {
        let shared = self.shared.clone();
        let recorded = blocking(move || shared.pen().put(record)).await;
        if let Err(error) = recorded {
            warn!(%error, "the record of a sandbox has other ports than are open");
        }
    }
}

impl Shared {
    /// Makes the rules what the records say, and opens the networks that are made. Without the rules they stay shut, until
    /// the next container joins them.
    fn open_behind_rules(&self) {
        if let Err(error) = self.refresh_rules() {
            warn!(error = %chain(&error), "the rules between networks are not up to date");
            return;
        }
        for (network, _) in self.bridges() {
            if let Err(error) = self.drivers.of(&network).open(&network) {
                warn!(network = %network.name, error = %chain(&error), "could not put a network's devices in order");
            }
        }
    }
}

/// Whether a namespace is bound there. What cannot be looked at for another reason, such as a lack of descriptors, is
/// taken to be there.
fn is_bound(path: &Path) -> bool {
    match Netns::open(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput),
    }
}
