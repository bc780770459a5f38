//! The networks of a container as `inspect` and lists tell them.

use std::collections::BTreeMap;

use caisson_docker_api::container::NetworkSettings;
use caisson_docker_api::network::EndpointSettings;
use caisson_networks::{Endpoint, Networks};

use super::{is_user_defined, names};
use crate::containers::ports;
use crate::containers::record::Definition;
use crate::containers::state::{Created, State};

/// All of it, for `inspect`.
pub(crate) fn settings(definition: &Definition, state: &State, networks: &Networks) -> NetworkSettings {
    let endpoints = endpoints(definition, state, networks);
    let own = state.running().filter(|_| !definition.host_config.network_mode.starts_with("container:"));
    let Some(running) = own else {
        return NetworkSettings { networks: endpoints, ..NetworkSettings::default() };
    };
    let sandbox = &running.sandbox;
    let reachable = sandbox.endpoints.iter().any(|endpoint| endpoint.link.is_some());
    let mut settings = NetworkSettings {
        sandbox_id: definition.id.clone(),
        sandbox_key: sandbox.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ports: if reachable { ports::map(&definition.config, &sandbox.published) } else { BTreeMap::new() },
        ..NetworkSettings::default()
    };
    // The fields of the time when there was one network tell of the default bridge.
    if let Some(bridge) = endpoints.get("bridge") {
        settings.endpoint_id.clone_from(&bridge.endpoint_id);
        settings.gateway.clone_from(&bridge.gateway);
        settings.ip_address.clone_from(&bridge.ip_address);
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.mac_address.clone_from(&bridge.mac_address);
        settings.ipv6_gateway.clone_from(&bridge.ipv6_gateway);
        settings.global_ipv6_address.clone_from(&bridge.global_ipv6_address);
        settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
    }
    settings.networks = endpoints;
    settings
}

/// The container's ends on its networks; of one that does not run, the networks that it will join.
pub(crate) fn endpoints(
    definition: &Definition,
    state: &State,
    networks: &Networks,
) -> BTreeMap<String, EndpointSettings> {
    let mut told = definition.networks.clone();
    let running = state.running();
    for (name, settings) in &mut told {
        if running.is_none() {
            settings.mac_address.clear();
        }
        let failed = matches!(state, State::Created(Created { exit_code, .. }) if *exit_code != 0);
        let ran = running.is_none() && !matches!(state, State::Created(_));
        if is_user_defined(name) && (ran || failed) && networks.inspect(name).is_ok() {
            settings.dns_names = Some(names::on_network(definition, settings.aliases.as_ref()));
        }
        if ran {
            settings.network_id = networks.inspect(name).map(|network| network.id).unwrap_or_default();
        }
    }
    for endpoint in running.iter().flat_map(|running| &running.sandbox.endpoints) {
        fill(told.entry(endpoint.network.clone()).or_default(), endpoint);
    }
    told
}

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    settings.dns_names = (!endpoint.dns_names.is_empty()).then(|| endpoint.dns_names.clone());
    let Some(link) = &endpoint.link else { return };
    settings.mac_address = link.mac.to_string();
    let text = |address: Option<std::net::IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    if let Some(ipv4) = link.ipv4 {
        settings.gateway = text(ipv4.gateway);
        settings.ip_address = ipv4.address.to_string();
        settings.ip_prefix_len = ipv4.prefix;
    }
    if let Some(ipv6) = link.ipv6 {
        settings.ipv6_gateway = text(ipv6.gateway);
        settings.global_ipv6_address = ipv6.address.to_string();
        settings.global_ipv6_prefix_len = ipv6.prefix;
    }
}
