//! What may be asked of a network: dockerd's rules, in its order and its words (Engine API v1.51).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caisson_docker_api::network::EndpointSettings;
use caisson_networks::{Mac, Network};

use super::is_user_defined;
use crate::error::ApiError;

/// Checks a wish against its network, if that is there.
pub(super) fn endpoint(
    name: &str,
    network: Option<&Network>,
    wish: &EndpointSettings,
) -> Result<(), ApiError> {
    let addresses = wish.ipam_config.clone().unwrap_or_default();
    if !wish.mac_address.is_empty() && wish.mac_address.parse::<Mac>().is_err() {
        return Err(ApiError::invalid(format!("invalid MAC address {}", wish.mac_address)));
    }
    let (ipv4, ipv6) = (addresses.ipv4_address.as_str(), addresses.ipv6_address.as_str());
    let mut errors = Vec::new();
    if !is_user_defined(name) {
        if !ipv4.is_empty() || !ipv6.is_empty() {
            errors.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if wish.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            errors.push(
                "network-scoped alias is supported only for containers in user defined networks".to_owned(),
            );
        }
    }
    if !ipv4.is_empty() && ipv4.parse::<Ipv4Addr>().map_or(true, |address| address.is_unspecified()) {
        errors.push(format!("invalid IPv4 address: {ipv4}"));
    }
    if !ipv6.is_empty() && ipv6.parse::<Ipv6Addr>().map_or(true, |address| address.is_unspecified()) {
        errors.push(format!("invalid IPv6 address: {ipv6}"));
    }
    for text in addresses.link_local_ips.iter().flatten().filter(|text| text.parse::<IpAddr>().is_err()) {
        errors.push(format!("invalid link-local IP address: {text}"));
    }
    errors.extend(bad_sysctls(wish));
    if let Some(network) = network {
        errors.extend(out_of_range(network, ipv4, true));
        errors.extend(out_of_range(network, ipv6, false));
    }
    let message = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => many.iter().map(|error| format!("* {error}")).collect::<Vec<_>>().join("\n"),
    };
    Err(ApiError::invalid(format!("invalid endpoint settings:\n{message}")))
}

/// The kernel's settings for the container's device are named without its name, which is not known yet.
fn bad_sysctls(wish: &EndpointSettings) -> Vec<String> {
    let list =
        wish.driver_opts.as_ref().and_then(|options| options.get("com.docker.network.endpoint.sysctls"));
    let settings = list.map(|list| list.split(',')).into_iter().flatten();
    let bad = settings.filter(|setting| {
        let parts: Vec<&str> = setting.split('.').collect();
        let device = |part: &str| part.eq_ignore_ascii_case("IFNAME");
        !matches!(parts[..], ["net", "ipv4" | "ipv6" | "mpls", _, name, _, ..] if device(name))
    });
    bad.map(|setting| {
        format!(
            "unrecognised network interface sysctl '{setting}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )
    })
    .collect()
}

fn out_of_range(network: &Network, address: &str, ipv4: bool) -> Option<String> {
    if address.is_empty() {
        return None;
    }
    let mut asked =
        network.pools.iter().filter(|pool| pool.asked && pool.subnet.is_ipv4() == ipv4).peekable();
    if asked.peek().is_none() {
        return Some(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .into(),
        );
    }
    let parsed = address.parse::<IpAddr>().ok();
    let inside = parsed.is_some_and(|address| asked.any(|pool| pool.subnet.contains(address)));
    (!inside).then(|| format!("no configured subnet or ip-range contain the IP address {address}"))
}
