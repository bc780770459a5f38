//! From a definition to what the networks are asked for when the container starts.

use std::net::IpAddr;

use caisson_docker_api::network::EndpointSettings;
use caisson_networks::{AttachRequest, Join};

use super::{names, network_of};
use crate::containers::record::Definition;
use crate::containers::{cgroup, ports};
use crate::error::ApiError;

/// The request of a start.
pub(crate) fn request(definition: &Definition) -> Result<AttachRequest, ApiError> {
    let host = &definition.host_config;
    Ok(AttachRequest {
        container: definition.id.clone(),
        name: definition.name.clone(),
        networks: joins(definition),
        ports: ports::bindings(&definition.config, host)?,
        cgroup: cgroup::directory(definition),
        name_servers: host.dns.iter().flatten().filter_map(|text| text.parse::<IpAddr>().ok()).collect(),
        namespace: None,
    })
}

/// The network with the highest priority is joined first, so that `eth0` is the way out; of equals, the one of the
/// network mode.
fn joins(definition: &Definition) -> Vec<Join> {
    if definition.config.network_disabled {
        return vec![Join { network: "none".into(), ..Join::default() }];
    }
    let main = network_of(&definition.host_config.network_mode);
    let mut wishes: Vec<(&String, &EndpointSettings)> = definition.networks.iter().collect();
    wishes.sort_by_key(|(name, wish)| (std::cmp::Reverse(wish.gw_priority), name.as_str() != main, *name));
    wishes.into_iter().map(|(name, wish)| join(definition, name, wish)).collect()
}

/// What is asked of one network.
pub(crate) fn join(definition: &Definition, network: &str, wish: &EndpointSettings) -> Join {
    let addresses = wish.ipam_config.clone().unwrap_or_default();
    let has_names = super::is_user_defined(network);
    Join {
        network: network.to_owned(),
        ipv4: addresses.ipv4_address.parse().ok(),
        ipv6: addresses.ipv6_address.parse().ok(),
        mac: wish.mac_address.parse().ok(),
        link_local: addresses.link_local_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
        dns_names: if has_names { names::on_network(definition, wish.aliases.as_ref()) } else { Vec::new() },
        links: wish.links.iter().flatten().map(|link| names::link(link)).collect(),
        gw_priority: wish.gw_priority,
        driver_options: wish.driver_opts.clone().unwrap_or_default(),
    }
}
