//! `GET /networks`.

use caisson_docker_api::network::Network;
use hyper::StatusCode;

use super::inspect::{scope_of, told};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&FILTERS)?;
    let dangling = dangling(&filters)?;
    if let Some(kind) = filters.get("type").iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
    {
        // dockerd has not classified this one.
        return Err(ApiError::internal(format!("invalid filter: 'type'='{kind}'")));
    }
    let (ids, names) = (filters.expressions("id"), filters.expressions("name"));
    let wanted = |network: &caisson_networks::Network| {
        let kind = if network.is_built_in() { "builtin" } else { "custom" };
        let idle = !network.is_built_in() && network.attachments.is_empty();
        filters.any("driver", |driver| network.driver == driver)
            && ids.are_met_by(&network.id)
            && names.are_met_by(&network.name)
            && filters.any("scope", |scope| scope == scope_of(network))
            && filters.any("type", |asked| asked == kind)
            && filters.labels("label", &network.labels)
            && dangling.is_none_or(|dangling| dangling == idle)
    };
    let networks = call.engine.networks.list().into_iter().filter(wanted);
    // A list does not tell who is on a network.
    let networks: Vec<Network> = networks
        .map(|network| told(caisson_networks::Network { attachments: Vec::new(), ..network }))
        .collect();
    Ok(reply::json(StatusCode::OK, &networks))
}

fn dangling(filters: &Filters) -> Result<Option<bool>, ApiError> {
    match filters.get("dangling").first().map(String::as_str) {
        None => Ok(None),
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(_) => Err(ApiError::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
    }
}
