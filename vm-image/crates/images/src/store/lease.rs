//! Leases that outlive a call: of pulls, which come and go as their clients do.

use super::Store;
use crate::digest::DiffId;
use crate::durable::StateError;
use crate::layer::Staged;

/// Protects layers from removal until it is dropped. Those that nothing needs then are removed.
#[derive(Debug)]
pub(crate) struct OwnedLease {
    store: Store,
    layers: Vec<DiffId>,
}

impl Store {
    /// Protects layers from removal; says which of them are there and whole.
    pub(crate) fn lease_owned(&self, layers: &[DiffId]) -> (OwnedLease, Vec<bool>) {
        let (lease, present) = self.lease(layers);
        lease.keep();
        (OwnedLease { store: self.clone(), layers: layers.to_vec() }, present)
    }

    /// Keeps a layer that has come, unless nobody wants it any more.
    pub(crate) fn publish_layer(&self, layer: Staged) -> Result<(), StateError> {
        let layer = self.layer_store().flush(vec![layer])?;
        let mut change = self.change();
        change.add_layers(layer)?;
        // Whoever leased it may have gone meanwhile.
        change.sweep().map(drop)
    }

    fn sweep_later(&self) {
        let store = self.clone();
        let sweep = move || {
            let swept = store.change().sweep();
            if let Err(error) = swept {
                tracing::warn!(%error, "layers that nothing needs are left until the next start");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(sweep)),
            Err(_) => sweep(),
        }
    }
}

impl Drop for OwnedLease {
    fn drop(&mut self) {
        self.store.inner.leases.release(&self.layers);
        let state = self.store.state();
        let needed = state.needed_layers();
        if self.layers.iter().any(|layer| state.layers.contains_key(layer) && !needed.contains(layer)) {
            self.store.sweep_later();
        }
    }
}
