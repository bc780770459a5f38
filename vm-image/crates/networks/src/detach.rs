//! Removing a sandbox: ports first, so that nothing new comes in; then the endpoints are cut off, so that their
//! addresses can be granted again; then the namespace is let go, and the sandbox goes off the record.
//!
//! Each step is tried whatever became of the one before it. After a failure the sandbox stays on record: its address is
//! not free, and a repeated detach tries the rest. The devices themselves are [`leftovers`](crate::leftovers).

use caisson_sys::netns;
use tracing::warn;

use crate::book::SandboxRecord;
use crate::error::DetachFailure;
use crate::leftovers::Leftover;
use crate::networks::{Shared, blocking};
use crate::{DetachError, Networks};

impl Networks {
    /// Closes a container's ports (and their connections), gives its address back and removes its namespace.
    ///
    /// A container without a sandbox is detached already. On failure as much as possible is removed, and the call may
    /// be repeated. It runs to its end even if the future is dropped.
    pub async fn detach(&self, container: &str) -> Result<(), DetachError> {
        let (this, container) = (self.clone(), container.to_owned());
        let detached = tokio::spawn(async move {
            let _turn = this.shared.turns.take(&container).await;
            this.detach_in_turn(&container).await
        });
        match detached.await {
            Ok(detached) => detached,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// For those whose turn it is already.
    pub(crate) async fn detach_in_turn(&self, container: &str) -> Result<(), DetachError> {
        let Some(record) = self.shared.book().sandbox(container).cloned() else { return Ok(()) };
        self.shared.resolvers.stop(container);
        self.shared.ports.close(&record.open_ports().cloned().collect::<Vec<_>>()).await;
        let shared = self.shared.clone();
        blocking(move || {
            shared.lead_nowhere(&record);
            shared.remove(&record)
        })
        .await
    }

    /// Detaches after a failure, which is what the caller hears of.
    pub(crate) async fn undo(&self, container: &str) {
        if let Err(error) = self.detach_in_turn(container).await {
            warn!(%error, "a failed attach could not be undone");
        }
    }
}

impl Shared {
    /// Takes away the rules of a sandbox's ports, before its address can be somebody else's.
    fn lead_nowhere(&self, record: &SandboxRecord) {
        if record.ports.is_empty() {
            return;
        }
        let closed = self.pen().put(SandboxRecord { ports: Vec::new(), ..record.clone() });
        if let Err(error) = closed {
            warn!(%error, "a sandbox still has its ports on record");
        }
        self.refresh_rules_if_possible();
    }

    /// Removes all but the ports.
    pub(crate) fn remove(&self, record: &SandboxRecord) -> Result<(), DetachError> {
        let mut failures = Vec::new();
        for endpoint in &record.endpoints {
            let network = self.network_of(endpoint);
            if let Err(error) = self.drivers.of(&network).isolate(endpoint, record.netns.as_deref()) {
                failures.push(DetachFailure::Endpoint(endpoint.endpoint.endpoint_id.clone(), error));
            }
        }
        if let Some(path) = &record.netns
            && let Err(error) = netns::remove(path)
        {
            failures.push(DetachFailure::Namespace(path.clone(), error));
        }
        if failures.is_empty()
            && let Err(error) = self.pen().remove(&record.container)
        {
            failures.push(error.into());
        }
        for endpoint in &record.endpoints {
            self.remover.remove(Leftover { network: self.network_of(endpoint), record: endpoint.clone() });
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(DetachError { container: record.container.clone(), failures })
        }
    }

    /// [`remove`](Self::remove) after a failure, which is what the caller hears of.
    pub(crate) fn remove_now(&self, record: &SandboxRecord) {
        if let Err(error) = self.remove(record) {
            warn!(%error, "a failed attach could not be undone");
        }
    }
}
