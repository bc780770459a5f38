//! `GET /networks/{id}`.

use caisson_docker_api::network::{ConfigReference, EndpointResource, Ipam, IpamConfig, Network};
use caisson_docker_api::time::Timestamp;
use caisson_networks::{Attachment, IpamPool, LinkAddress};
use hyper::StatusCode;

use super::no_such_network;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    if call.form.has("verbose") && !matches!(call.form.get("verbose"), "0" | "1" | "true" | "false" | "") {
        let text = call.form.get("verbose");
        return Err(ApiError::invalid(format!(
            "invalid value for verbose: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        )));
    }
    let scope = call.form.get("scope");
    let network = call.engine.networks.inspect(&call.name).map_err(|error| no_such_network(&error))?;
    if !scope.is_empty() && scope != scope_of(&network) {
        return Err(ApiError::not_found(format!("network {} not found", call.name)));
    }
    Ok(reply::json(StatusCode::OK, &told(network)))
}

/// A network as clients see it.
pub(super) fn told(network: caisson_networks::Network) -> Network {
    let scope = scope_of(&network).to_owned();
    let created = Timestamp::from(std::time::SystemTime::from(network.created));
    let config: Vec<IpamConfig> = network.pools.iter().map(pool).collect();
    let addressless = matches!(network.driver.as_str(), "host" | "null") && !network.config_only;
    Network {
        name: network.name,
        id: network.id,
        created,
        scope,
        driver: network.driver,
        enable_ipv4: network.ipv4,
        enable_ipv6: network.ipv6,
        ipam: Ipam {
            driver: "default".into(),
            options: network.ipam_options,
            config: (!addressless || !config.is_empty()).then_some(config),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: ConfigReference { network: network.config_from },
        config_only: network.config_only,
        containers: network.attachments.into_iter().map(attached).collect(),
        options: Some(network.options),
        labels: Some(network.labels),
    }
}

/// How far a network reaches, as dockerd has it of its drivers.
pub(super) fn scope_of(network: &caisson_networks::Network) -> &'static str {
    if network.driver == "overlay" { "swarm" } else { "local" }
}

fn pool(pool: &IpamPool) -> IpamConfig {
    let gateway = pool.gateway.filter(|_| pool.tells_gateway);
    let auxiliary = pool.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string()));
    IpamConfig {
        subnet: pool.subnet.to_string(),
        ip_range: pool.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: gateway.map(|address| address.to_string()).unwrap_or_default(),
        auxiliary_addresses: (!pool.auxiliary.is_empty()).then(|| auxiliary.collect()),
    }
}

fn attached(attachment: Attachment) -> (String, EndpointResource) {
    let link = attachment.endpoint.link;
    let address = |address: Option<LinkAddress>| {
        address.map(|address| format!("{}/{}", address.address, address.prefix)).unwrap_or_default()
    };
    let resource = EndpointResource {
        name: attachment.name,
        endpoint_id: attachment.endpoint.endpoint_id,
        mac_address: link.as_ref().map(|link| link.mac.to_string()).unwrap_or_default(),
        ipv4_address: address(link.as_ref().and_then(|link| link.ipv4)),
        ipv6_address: address(link.as_ref().and_then(|link| link.ipv6)),
    };
    (attachment.container, resource)
}
