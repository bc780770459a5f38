//! Ports: from `-p` and `EXPOSE` to what the networks publish, and back to what clients are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caisson_docker_api::Empty;
use caisson_docker_api::container::{Config, HostConfig, Port, PortBinding as Wish, PortMap};
use caisson_networks::{ContainerPort, HostPorts, PortBinding, PortProtocol, PublishedPort};

use crate::error::ApiError;

/// The port and protocol of `80/tcp`.
pub(crate) fn parse(text: &str) -> Result<(u16, PortProtocol), ApiError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = number.parse().map_err(|_| invalid(number))?;
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => {
            return Err(ApiError::not_implemented("SCTP ports are not supported by this version of Caisson"));
        }
        other => return Err(ApiError::invalid(format!("invalid proto: {other}"))),
    };
    Ok((port, protocol))
}

fn invalid(text: &str) -> ApiError {
    ApiError::invalid(format!("invalid port specification: {text:?}"))
}

/// Adds the published ports to the exposed ones, as dockerd does when a container is made.
pub(crate) fn expose_published(config: &mut Config, host: &HostConfig) {
    let published = host.port_bindings.iter().flatten().map(|(port, _)| (port.clone(), Empty {}));
    let exposed: BTreeMap<_, _> =
        config.exposed_ports.take().into_iter().flatten().chain(published).collect();
    config.exposed_ports = (!exposed.is_empty()).then_some(exposed);
}

/// The exposed ports that `--publish-all` leaves out, since they cannot be published: those of SCTP.
fn is_left_out(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("/sctp")
}

/// What to tell who makes the container.
pub(crate) fn warning(config: &Config, host: &HostConfig) -> Option<String> {
    let left_out = config.exposed_ports.iter().flatten().map(|(name, _)| name.as_str());
    let left_out: Vec<&str> = left_out.filter(|name| host.publish_all_ports && is_left_out(name)).collect();
    (!left_out.is_empty())
        .then(|| format!("SCTP ports cannot be published here, and are left out: {}", left_out.join(", ")))
}

/// What to publish.
pub(crate) fn bindings(config: &Config, host: &HostConfig) -> Result<Vec<PortBinding>, ApiError> {
    let mut bindings = Vec::new();
    for (name, wishes) in host.port_bindings.iter().flatten() {
        let (port, protocol) = parse(name)?;
        for wish in wishes.iter().flatten() {
            bindings.push(binding(port, protocol, wish)?);
        }
    }
    if !host.publish_all_ports {
        // What is only exposed leads nowhere, and may be of a kind that cannot be published.
        return Ok(bindings);
    }
    let bound: BTreeSet<_> = bindings.iter().map(|b| (b.container_port, b.protocol)).collect();
    let exposed = config.exposed_ports.iter().flatten().map(|(name, _)| name);
    for name in exposed.filter(|name| !is_left_out(name)) {
        let (port, protocol) = parse(name)?;
        if !bound.contains(&(ContainerPort(port), protocol)) {
            bindings.push(binding(port, protocol, &Wish::default())?);
        }
    }
    Ok(bindings)
}

fn binding(port: u16, protocol: PortProtocol, wish: &Wish) -> Result<PortBinding, ApiError> {
    let host_ip = match wish.host_ip.as_str() {
        "" => None,
        text => Some(
            text.parse::<IpAddr>().map_err(|_| ApiError::invalid(format!("invalid IP address: {text}")))?,
        ),
    };
    Ok(PortBinding {
        container_port: ContainerPort(port),
        protocol,
        host_ip,
        host_ports: host_ports(&wish.host_port)?,
    })
}

fn host_ports(text: &str) -> Result<HostPorts, ApiError> {
    if text.is_empty() {
        return Ok(HostPorts::Ephemeral);
    }
    let number = |n: &str| n.parse::<u16>().map_err(|_| invalid(text));
    match text.split_once('-') {
        None => Ok(HostPorts::exactly(number(text)?)),
        Some((first, last)) => {
            let range = number(first)?..=number(last)?;
            if range.is_empty() || *range.start() == 0 {
                Err(invalid(text))
            } else {
                Ok(HostPorts::FirstFreeOf(range))
            }
        }
    }
}

/// The `Ports` of an inspect: every exposed port, with what leads to it.
pub(crate) fn map(config: &Config, published: &[PublishedPort]) -> PortMap {
    let exposed = config.exposed_ports.iter().flatten().map(|(name, _)| (normal(name), None));
    let mut map: PortMap = exposed.collect();
    for port in published {
        let name = format!("{}/{}", port.container_port, port.protocol);
        // One that is reached under the container's own address has no number here.
        let number = Some(port.host_port).filter(|number| number.0 != 0);
        let host_port = number.map(|number| number.to_string()).unwrap_or_default();
        let binding = Wish { host_ip: port.host_ip.to_string(), host_port };
        map.entry(name).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// The `Ports` of a list, in the order of their numbers.
pub(crate) fn list(config: &Config, published: &[PublishedPort]) -> Vec<Port> {
    let open = published.iter().map(|port| Port {
        ip: port.host_ip.to_string(),
        private_port: port.container_port.0,
        public_port: port.host_port.0,
        kind: port.protocol.to_string(),
    });
    let mut ports: Vec<Port> = open.collect();
    for name in config.exposed_ports.iter().flatten().map(|(name, _)| name) {
        let Ok((number, protocol)) = parse(name) else { continue };
        let kind = protocol.to_string();
        if !ports.iter().any(|p| p.private_port == number && p.kind == kind) {
            ports.push(Port { ip: String::new(), private_port: number, public_port: 0, kind });
        }
    }
    ports.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.kind).cmp(&(b.private_port, &b.ip, b.public_port, &b.kind))
    });
    ports
}

fn normal(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{name}/tcp") }
}

#[cfg(test)]
mod tests {
    use caisson_networks::HostPort;

    use super::*;

    fn host(bindings: &[(&str, &str, &str)]) -> HostConfig {
        let map: PortMap = bindings
            .iter()
            .map(|(port, ip, host)| {
                ((*port).to_owned(), Some(vec![Wish { host_ip: (*ip).into(), host_port: (*host).into() }]))
            })
            .collect();
        HostConfig { port_bindings: Some(map), ..HostConfig::default() }
    }

    #[test]
    fn wishes_become_bindings() {
        let made = bindings(
            &Config::default(),
            &host(&[("80/tcp", "127.0.0.1", "8080"), ("53/udp", "", ""), ("9", "", "90-92")]),
        );
        let ports: Vec<_> = made
            .unwrap()
            .into_iter()
            .map(|b| (b.container_port.0, b.protocol, b.host_ip, b.host_ports))
            .collect();
        assert!(ports.contains(&(
            80,
            PortProtocol::Tcp,
            Some("127.0.0.1".parse().unwrap()),
            HostPorts::FirstFreeOf(8080..=8080)
        )));
        assert!(ports.contains(&(53, PortProtocol::Udp, None, HostPorts::Ephemeral)));
        assert!(ports.contains(&(9, PortProtocol::Tcp, None, HostPorts::FirstFreeOf(90..=92))));
    }

    #[test]
    fn bad_ports_are_named() {
        for (wish, message) in [
            (("80/tcp", "", "x"), "invalid port specification: \"x\""),
            (("x/tcp", "", "1"), "invalid port specification: \"x\""),
            (("80/tcp", "", "9-8"), "invalid port specification: \"9-8\""),
            (("80/foo", "", "1"), "invalid proto: foo"),
        ] {
            assert_eq!(bindings(&Config::default(), &host(&[wish])).unwrap_err().message, message);
        }
    }

    #[test]
    fn all_exposed_ports_can_be_published() {
        let config =
            Config { exposed_ports: Some([("80/tcp".to_owned(), Empty {})].into()), ..Config::default() };
        let all = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        assert_eq!(bindings(&config, &all).unwrap()[0].host_ports, HostPorts::Ephemeral);
        assert!(bindings(&config, &HostConfig::default()).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_published_can_be_exposed() {
        let exposed = Some([("38412/sctp".to_owned(), Empty {})].into());
        let config = Config { exposed_ports: exposed, ..Config::default() };
        assert!(bindings(&config, &HostConfig::default()).unwrap().is_empty());
        assert!(warning(&config, &HostConfig::default()).is_none());
        let all = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        assert!(bindings(&config, &all).unwrap().is_empty());
        assert!(warning(&config, &all).unwrap().ends_with("left out: 38412/sctp"));
    }

    #[test]
    fn exposed_ports_are_shown_with_what_leads_to_them() {
        let exposed = ["80/tcp", "53/udp"].map(|p| (p.to_owned(), Empty {}));
        let config = Config { exposed_ports: Some(exposed.into()), ..Config::default() };
        let published = PublishedPort {
            container_port: ContainerPort(80),
            protocol: PortProtocol::Tcp,
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port: HostPort(8080),
        };
        let map = map(&config, std::slice::from_ref(&published));
        assert_eq!(map["53/udp"], None);
        assert_eq!(map["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        let list = list(&config, &[published]);
        assert_eq!(
            list.iter().map(|p| (p.private_port, p.public_port)).collect::<Vec<_>>(),
            [(53, 0), (80, 8080)]
        );
    }
}
