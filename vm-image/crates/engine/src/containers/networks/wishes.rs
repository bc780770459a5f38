//! What a new container asks of networks.

use caisson_docker_api::container::{Config, HostConfig, NetworkingConfig};
use caisson_docker_api::network::EndpointSettings;
use caisson_networks::Networks;

use super::{Wishes, check, is_user_defined, network_of};
use crate::error::ApiError;

/// What is asked, checked and under the networks' names. Networks that are not there are for the start to complain of.
pub(crate) fn of_new(
    config: &mut Config,
    host: &HostConfig,
    networking: NetworkingConfig,
    networks: &Networks,
) -> Result<Wishes, ApiError> {
    if config.network_disabled || host.network_mode.starts_with("container:") {
        return Ok(Wishes::new());
    }
    let main = network_of(&host.network_mode).to_owned();
    let asked = networking.endpoints_config.unwrap_or_default().into_iter();
    let mut asked: Wishes = asked.map(|(name, wish)| (name, wish.unwrap_or_default())).collect();
    if asked.is_empty() {
        asked.insert(main.clone(), EndpointSettings::default());
    }
    move_mac_address(config, host, &main, &mut asked)?;
    let mut wishes = Wishes::new();
    for (term, wish) in asked {
        let found = networks.inspect(network_of(&term)).ok();
        let name = found.as_ref().map_or(network_of(&term).to_owned(), |network| network.name.clone());
        check::endpoint(&name, found.as_ref(), &wish)
            .map_err(|error| error.within(&format!("invalid config for network {name}")))?;
        wishes.insert(name, as_asked(wish));
    }
    Ok(wishes)
}

/// Only what may be asked; what clients send back of an inspect is not.
pub(super) fn as_asked(wish: EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: wish.ipam_config,
        links: wish.links,
        aliases: wish.aliases,
        mac_address: wish.mac_address,
        driver_opts: wish.driver_opts,
        gw_priority: wish.gw_priority,
        ..EndpointSettings::default()
    }
}

/// The hardware address of the time when there was one network is that on the main one.
fn move_mac_address(
    config: &mut Config,
    host: &HostConfig,
    main: &str,
    wishes: &mut Wishes,
) -> Result<(), ApiError> {
    let address = std::mem::take(&mut config.mac_address);
    if address.is_empty() {
        return Ok(());
    }
    if address.parse::<caisson_networks::Mac>().is_err() {
        return Err(ApiError::invalid(format!("invalid MAC address: {address}")));
    }
    if matches!(host.network_mode.as_str(), "host" | "none") {
        return Err(ApiError::invalid("conflicting options: mac-address and the network mode"));
    }
    let wish = wishes.get_mut(main).ok_or_else(|| {
        ApiError::invalid(
            "if a container-wide MAC address is supplied, HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        )
    })?;
    if wish.mac_address.is_empty() {
        wish.mac_address = address;
    } else if wish.mac_address != address {
        return Err(ApiError::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ));
    }
    Ok(())
}

/// What there is to ask of `--link` on the main network, which users have made: such links are the network's own.
pub(crate) fn move_links(host: &mut HostConfig, wishes: &mut Wishes) {
    if !is_user_defined(&host.network_mode) {
        return;
    }
    let Some(links) = host.links.take().filter(|links| !links.is_empty()) else { return };
    if let Some(wish) = wishes.get_mut(&host.network_mode) {
        let known = wish.links.get_or_insert_default();
        // The CLI says it in both places.
        known.extend(links.into_iter().filter(|link| !known.contains(link)).collect::<Vec<_>>());
    }
}
