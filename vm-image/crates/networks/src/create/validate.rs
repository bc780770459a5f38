//! What may be asked of a new network: dockerd's rules, in its order and its words (Engine API v1.51).

use std::net::IpAddr;

use super::pool;
use crate::Subnet;
use crate::book::NetworkRecord;
use crate::error::CreateError;
use crate::network::{CreateRequest, IpamRequest, PoolRequest};

const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Checks what can be checked without knowing other networks, and completes it.
pub(super) fn request(mut request: CreateRequest) -> Result<CreateRequest, CreateError> {
    if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(CreateError::Forbidden(format!(
            "operation is not permitted on predefined {} network ",
            request.name
        )));
    }
    if matches!(request.driver.as_str(), "" | "default") {
        request.driver = super::DEFAULT_DRIVER.into();
    }
    // Only a swarm's services could use one that is not attachable.
    if request.driver == "overlay" && !request.attachable {
        return Err(CreateError::Forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.".into(),
        ));
    }
    request.enable_ipv4 = Some(enabled(&mut request, ENABLE_IPV4, true)?);
    request.enable_ipv6 = Some(enabled(&mut request, ENABLE_IPV6, false)?);
    if let Some(ipam) = &request.ipam {
        check_ipam(ipam, request.enable_ipv6 == Some(true))?;
    }
    if request.scope == "swarm" && request.driver != "overlay" {
        return Err(CreateError::Forbidden(
            "cannot create a swarm scoped network when swarm is not active".into(),
        ));
    }
    Ok(request)
}

/// The field of the request, or the option of this name.
fn enabled(request: &mut CreateRequest, option: &str, default: bool) -> Result<bool, CreateError> {
    let field = if option == ENABLE_IPV4 { request.enable_ipv4 } else { request.enable_ipv6 };
    if let Some(asked) = field {
        request.options.remove(option);
        return Ok(asked);
    }
    match request.options.get(option).map(String::as_str) {
        None => Ok(default),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(_) => Err(CreateError::Invalid(format!("driver-opt {option:?} is not a valid bool"))),
    }
}

/// The record of a checked request.
pub(super) fn record(request: &CreateRequest) -> Result<NetworkRecord, CreateError> {
    let ipam = request.ipam.clone().unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(CreateError::NoPlugin(ipam.driver));
    }
    Ok(NetworkRecord {
        ipv4: request.enable_ipv4.unwrap_or(true),
        ipv6: request.enable_ipv6.unwrap_or(false),
        internal: request.internal,
        attachable: request.attachable,
        config_only: request.config_only,
        config_from: request.config_from.clone().unwrap_or_default(),
        pools: ipam.config.iter().filter_map(pool).collect(),
        ipam_options: ipam.options,
        options: request.options.clone(),
        labels: request.labels.clone(),
        ..NetworkRecord::new(&request.name, &request.driver)
    })
}

fn check_ipam(ipam: &IpamRequest, ipv6: bool) -> Result<(), CreateError> {
    let errors: Vec<String> = ipam.config.iter().flat_map(|pool| pool_errors(pool, ipv6)).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(CreateError::Invalid(format!("invalid network config:\n{}", crate::error::join(&errors))))
}

fn pool_errors(pool: &PoolRequest, ipv6: bool) -> Vec<String> {
    let Ok((subnet, address)) = Subnet::parse_with_address(&pool.subnet) else {
        return vec![format!("invalid subnet {}: invalid CIDR block notation", pool.subnet)];
    };
    if !ipv6 && !subnet.is_ipv4() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if subnet.base() != address {
        errors.push(format!("invalid subnet {}: it should be {subnet}", pool.subnet));
    }
    errors.extend(range_errors(&pool.ip_range, subnet));
    let wrong = |address: &str| address_error(address, subnet);
    errors.extend(wrong(&pool.gateway).map(|why| format!("invalid gateway {}: {why}", pool.gateway)));
    for (name, address) in &pool.auxiliary {
        errors.extend(wrong(address).map(|why| format!("invalid auxiliary address {name}: {why}")));
    }
    errors
}

fn range_errors(text: &str, subnet: Subnet) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let Ok((range, address)) = Subnet::parse_with_address(text) else {
        return vec![format!("invalid ip-range {text}: invalid CIDR block notation")];
    };
    if range.is_ipv4() != subnet.is_ipv4() {
        return vec![format!("invalid ip-range {text}: parent subnet is an {} block", family(subnet))];
    }
    let mut errors = Vec::new();
    if range.prefix() < subnet.prefix() {
        errors.push(format!("invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range.base() != address {
        errors.push(format!("invalid ip-range {text}: it should be {range}"));
    }
    if !range.overlaps(subnet) {
        errors.push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
    }
    errors
}

fn address_error(text: &str, subnet: Subnet) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    match text.parse::<IpAddr>() {
        Err(_) => Some("invalid address".into()),
        Ok(address) if address.is_ipv4() != subnet.is_ipv4() => {
            Some(format!("parent subnet is an {} block", family(subnet)))
        }
        Ok(address) if !subnet.contains(address) => {
            Some(format!("parent subnet {subnet} doesn't contain this address"))
        }
        Ok(_) => None,
    }
}

fn family(subnet: Subnet) -> &'static str {
    if subnet.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pool: PoolRequest) -> String {
        let ipam = IpamRequest { config: vec![pool], ..IpamRequest::default() };
        let asked = CreateRequest {
            name: "n".into(),
            enable_ipv6: Some(true),
            ipam: Some(ipam),
            ..Default::default()
        };
        request(asked).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_in_ranges_get_dockerd_s_words() {
        let pool = |subnet: &str| PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
        for (pool, message) in [
            (pool("10.1.0.0"), "invalid subnet 10.1.0.0: invalid CIDR block notation"),
            (pool(""), "invalid subnet : invalid CIDR block notation"),
            (pool("10.1.0.5/24"), "invalid subnet 10.1.0.5/24: it should be 10.1.0.0/24"),
            (
                PoolRequest { gateway: "10.2.0.1".into(), ..pool("10.1.0.0/24") },
                "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
            ),
            (
                PoolRequest { gateway: "x".into(), ..pool("10.1.0.0/24") },
                "invalid gateway x: invalid address",
            ),
            (
                PoolRequest { gateway: "fd00::1".into(), ..pool("10.1.0.0/24") },
                "invalid gateway fd00::1: parent subnet is an IPv4 block",
            ),
            (
                PoolRequest { ip_range: "10.2.0.0/24".into(), ..pool("10.1.0.0/24") },
                "invalid ip-range 10.2.0.0/24: parent subnet 10.1.0.0/24 doesn't contain ip-range",
            ),
            (
                PoolRequest { ip_range: "10.1.0.3/28".into(), ..pool("10.1.0.0/24") },
                "invalid ip-range 10.1.0.3/28: it should be 10.1.0.0/28",
            ),
        ] {
            assert_eq!(refusal(pool), format!("invalid network config:\n{message}"));
        }
        let two = PoolRequest { gateway: "x".into(), ip_range: "y".into(), ..pool("fd00::/64") };
        assert_eq!(
            refusal(two),
            "invalid network config:\n* invalid ip-range y: invalid CIDR block notation\n* invalid gateway x: invalid address"
        );
    }
}
