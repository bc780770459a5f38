//! `/networks`: the built-in ones.

use std::collections::BTreeMap;

use caisson_docker_api::network::{ConfigReference, EndpointResource, Ipam, IpamConfig, Network};
use caisson_docker_api::time::Timestamp;
use caisson_networks::Attachment;
use hyper::StatusCode;

use super::call::Call;
use super::reply::{self, Reply};
use crate::error::ApiError;
use crate::filters::Filters;

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// `GET /networks`.
pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&FILTERS)?;
    let dangling = filters.bool("dangling")?;
    let wanted = |network: &caisson_networks::Network| {
        filters.any("driver", |driver| network.driver == driver)
            && filters.any("id", |id| network.id.contains(id))
            && filters.any("name", |name| network.name.contains(name))
            && filters.any("scope", |scope| network.scope == scope)
            && filters.any("type", |kind| kind == "builtin")
            && filters.labels("label", &BTreeMap::new())
            && dangling != Some(true)
    };
    let networks = call.engine.networks.list().into_iter().filter(wanted);
    // A list does not tell who is on a network.
    let networks: Vec<Network> = networks
        .map(|network| told(caisson_networks::Network { attachments: Vec::new(), ..network }))
        .collect();
    Ok(reply::json(StatusCode::OK, &networks))
}

/// `GET /networks/{id}`.
pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    if call.form.has("verbose") && !matches!(call.form.get("verbose"), "0" | "1" | "true" | "false" | "") {
        let text = call.form.get("verbose");
        return Err(ApiError::invalid(format!(
            "invalid value for verbose: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        )));
    }
    let network = call.engine.networks.inspect(&call.name);
    let network = network.map_err(|error| ApiError::not_found(error.to_string()))?;
    Ok(reply::json(StatusCode::OK, &told(network)))
}

fn told(network: caisson_networks::Network) -> Network {
    let created = Timestamp::from(std::time::SystemTime::from(network.created));
    let config = network
        .ipam
        .map(|ipam| vec![IpamConfig { subnet: ipam.subnet.to_string(), gateway: ipam.gateway.to_string() }]);
    Network {
        name: network.name,
        id: network.id,
        created,
        scope: network.scope.into(),
        driver: network.driver.into(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam { driver: "default".into(), options: None, config },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigReference::default(),
        config_only: false,
        containers: network.attachments.into_iter().map(attached).collect(),
        options: Some(network.options),
        labels: Some(BTreeMap::new()),
    }
}

fn attached(attachment: Attachment) -> (String, EndpointResource) {
    let link = attachment.endpoint.link;
    let resource = EndpointResource {
        name: attachment.name,
        endpoint_id: attachment.endpoint.endpoint_id,
        mac_address: link.as_ref().map(|link| link.mac.to_string()).unwrap_or_default(),
        ipv4_address: link.as_ref().map(|l| format!("{}/{}", l.address, l.prefix)).unwrap_or_default(),
        ipv6_address: String::new(),
    };
    (attachment.container, resource)
}
