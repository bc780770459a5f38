//! `DELETE /networks/{id}` and `POST /networks/prune`.

use std::collections::BTreeMap;

use caisson_docker_api::network::Pruned;
use caisson_docker_api::time::Timestamp;
use caisson_networks::RemoveError;
use hyper::StatusCode;
use tracing::warn;

use super::tell;
use crate::containers::networks::kind;
use crate::error::{ApiError, chain};
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

pub(crate) async fn remove(call: Call) -> Result<Reply, ApiError> {
    let removed = call.engine.networks.remove(&call.name).await;
    let network = removed.map_err(|error| ApiError::new(kind(error.kind()), chain(&error)))?;
    tell(&call.engine, &network, "destroy");
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let mut deleted = Vec::new();
    for network in call.engine.networks.unused() {
        let created = Timestamp::from(std::time::SystemTime::from(network.created));
        if !filters.prunes(&network.labels) || until.is_some_and(|until| created > until) {
            continue;
        }
        match call.engine.networks.remove(&network.id).await {
            Ok(removed) => {
                tell(&call.engine, &removed, "destroy");
                deleted.push(removed.name);
            }
            // Somebody has joined it, or removed it, in the same moment.
            Err(RemoveError::InUse { .. } | RemoveError::NoNetwork(_)) => {}
            Err(error) => {
                warn!(network = %network.name, error = %chain(&error), "could not remove a network")
            }
        }
    }
    let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
    call.engine.events.publish("network", "prune", "", attributes);
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(reply::json(StatusCode::OK, &Pruned { networks_deleted: deleted }))
}
