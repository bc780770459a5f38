//! Removing a network: it disappears from sight first, then its devices go, then its record.

use crate::book::{Book, NetworkRecord};
use crate::error::RemoveError;
use crate::networks::{Shared, blocking};
use crate::{Network, Networks};

impl Networks {
    /// Removes a network that nobody is on; its devices are gone when this returns. The network that it was.
    ///
    /// It runs to its end even if the future is dropped.
    pub async fn remove(&self, network: &str) -> Result<Network, RemoveError> {
        let (this, network) = (self.clone(), network.to_owned());
        let removed = tokio::spawn(async move {
            let _turn = this.shared.network_turn.lock().await;
            let told = this.inspect(&network)?;
            let shared = this.shared.clone();
            blocking(move || shared.remove_network(&network)).await?;
            Ok(told)
        });
        match removed.await {
            Ok(removed) => removed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The networks that users have made and that nobody is on.
    #[must_use]
    pub fn unused(&self) -> Vec<Network> {
        let unused = |network: &Network| {
            !network.is_built_in() && !network.config_only && network.attachments.is_empty()
        };
        self.list().into_iter().filter(unused).collect()
    }
}

impl Shared {
    /// The caller has the turn of those who change networks.
    fn remove_network(&self, term: &str) -> Result<(), RemoveError> {
        let network = self.hide(term)?;
        if !network.config_only {
            let others = self.book().networks().to_vec();
            self.drivers.of(&network).dismantle(&network, &others).map_err(RemoveError::Driver)?;
        }
        self.pen().remove_network(&network.id)?;
        self.refresh_rules_if_possible();
        Ok(())
    }

    /// From here on nobody can join it.
    fn hide(&self, term: &str) -> Result<NetworkRecord, RemoveError> {
        let pen = self.pen();
        let mut network = pen.book().removable(term)?.clone();
        network.unfinished = true;
        pen.put_network(network.clone())?;
        Ok(network)
    }
}

impl Book {
    /// A network that may be removed: one of a user's that nobody is on and that no other one needs.
    fn removable(&self, term: &str) -> Result<&NetworkRecord, RemoveError> {
        let network = self.find_network(term)?;
        let name = || network.name.clone();
        if network.is_built_in() {
            return Err(RemoveError::BuiltIn(name()));
        }
        if network.config_only && self.finished().any(|other| other.config_from == network.name) {
            return Err(RemoveError::Configures(name()));
        }
        let sandboxes =
            self.sandboxes().flat_map(|s| s.endpoints.iter().map(move |e| (&s.name, &e.endpoint)));
        let on_it = sandboxes.filter(|(_, endpoint)| endpoint.network_id == network.id);
        let on_it: Vec<String> = on_it
            .map(|(name, endpoint)| format!("name:{name:?} id:{:?}", &endpoint.endpoint_id[..12]))
            .collect();
        if !on_it.is_empty() {
            return Err(RemoveError::InUse { network: name(), endpoints: on_it.join(", ") });
        }
        Ok(network)
    }
}
