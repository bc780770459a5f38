//! `/networks`: a file a verb.

mod change;
mod create;
mod inspect;
mod list;
mod prune;

pub(crate) use change::{connect, disconnect};
pub(crate) use create::create;
pub(crate) use inspect::inspect;
pub(crate) use list::list;
pub(crate) use prune::{prune, remove};

use std::collections::BTreeMap;

use caisson_networks::NoSuchNetwork;

use crate::containers::networks::kind;
use crate::engine::Engine;
use crate::error::ApiError;

fn no_such_network(error: &NoSuchNetwork) -> ApiError {
    ApiError::new(kind(error.kind()), error.to_string())
}

/// Tells of a network that has come or gone.
fn tell(engine: &Engine, network: &caisson_networks::Network, action: &str) {
    let attributes = [("name", &network.name), ("type", &network.driver)];
    let attributes: BTreeMap<_, _> = attributes.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    engine.events.publish("network", action, &network.id, attributes);
}
