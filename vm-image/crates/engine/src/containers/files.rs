//! The files that every container finds as its own: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! They are written anew at each start into the container's directory and mounted over the image's.

use std::fmt::Write;
use std::io;

use caisson_networks::Sandbox;

use super::record::{Definition, Directory};

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Writes all three.
pub(crate) fn write(definition: &Definition, directory: &Directory, sandbox: &Sandbox) -> io::Result<()> {
    let host_network = sandbox.netns.is_none();
    let hosts_of_host = if host_network { std::fs::read_to_string("/etc/hosts").ok() } else { None };
    std::fs::write(directory.hosts(), hosts(definition, sandbox, hosts_of_host.as_deref()))?;
    std::fs::write(directory.hostname(), format!("{}\n", definition.config.hostname))?;
    let resolv_conf_of_host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    std::fs::write(directory.resolv_conf(), resolv_conf(definition, &resolv_conf_of_host, host_network))
}

fn hosts(definition: &Definition, sandbox: &Sandbox, base: Option<&str>) -> String {
    let mut text = base.unwrap_or(HOSTS).to_owned();
    let gateway = sandbox.endpoints.iter().find_map(|e| e.link.as_ref()).map(|link| link.gateway.to_string());
    for extra in definition.host_config.extra_hosts.iter().flatten() {
        let Some((name, address)) = extra.split_once([':', '=']) else { continue };
        let address = match (address, &gateway) {
            ("host-gateway", Some(gateway)) => gateway,
            (address, _) => address,
        };
        let _ = writeln!(text, "{}\t{name}", address.trim_matches(['[', ']']));
    }
    let names = match definition.config.domainname.as_str() {
        "" => definition.config.hostname.clone(),
        domain => format!("{0}.{domain} {0}", definition.config.hostname),
    };
    for link in sandbox.endpoints.iter().filter_map(|endpoint| endpoint.link.as_ref()) {
        let _ = writeln!(text, "{}\t{names}", link.address);
    }
    text
}

/// The host's resolver as the container can use it: servers on the host's loopback are out of its reach.
fn resolv_conf(definition: &Definition, of_host: &str, host_network: bool) -> String {
    let host = &definition.host_config;
    let mut text = String::new();
    let lines = |keyword: &'static str| {
        of_host.lines().filter(move |line| line.split_whitespace().next() == Some(keyword)).map(str::to_owned)
    };
    let given = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let servers: Vec<String> = match given(&host.dns) {
        none if none.is_empty() => {
            lines("nameserver").filter(|line| host_network || !is_loopback(line)).collect()
        }
        given => given.iter().map(|server| format!("nameserver {server}")).collect(),
    };
    let search: Vec<String> = match given(&host.dns_search) {
        none if none.is_empty() => lines("search").collect(),
        given if given == ["."] => Vec::new(),
        given => vec![format!("search {}", given.join(" "))],
    };
    let options: Vec<String> = match given(&host.dns_options) {
        none if none.is_empty() => lines("options").collect(),
        given => vec![format!("options {}", given.join(" "))],
    };
    for line in servers.iter().chain(&search).chain(&options) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn is_loopback(line: &str) -> bool {
    let address = line.split_whitespace().nth(1).and_then(|a| a.parse::<std::net::IpAddr>().ok());
    address.is_some_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::{Config, HostConfig};
    use caisson_docker_api::time::Timestamp;
    use caisson_networks::{Endpoint, EndpointLink, Mac};

    use super::*;

    fn definition(host_config: HostConfig) -> Definition {
        Definition {
            id: "1".repeat(64),
            name: "web".into(),
            created: Timestamp::ZERO,
            image: String::new(),
            config: Config { hostname: "box".into(), ..Config::default() },
            host_config,
            mounts: Vec::new(),
            path: String::new(),
            args: Vec::new(),
        }
    }

    fn sandbox() -> Sandbox {
        let address = "172.17.0.2".parse().unwrap();
        let link = EndpointLink {
            mac: Mac::of(address),
            address,
            prefix: 16,
            gateway: "172.17.0.1".parse().unwrap(),
        };
        let endpoint = Endpoint {
            network: "bridge".into(),
            network_id: String::new(),
            endpoint_id: String::new(),
            link: Some(link),
        };
        Sandbox {
            container: String::new(),
            netns: Some("/n".into()),
            endpoints: vec![endpoint],
            published: Vec::new(),
        }
    }

    #[test]
    fn hosts_has_the_container_and_what_was_added() {
        let extra =
            Some(vec!["db:10.0.0.1".into(), "host.docker.internal:host-gateway".into(), "six=[::2]".into()]);
        let text =
            hosts(&definition(HostConfig { extra_hosts: extra, ..HostConfig::default() }), &sandbox(), None);
        let end = "10.0.0.1\tdb\n172.17.0.1\thost.docker.internal\n::2\tsix\n172.17.0.2\tbox\n";
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with(end), "{text}");
    }

    #[test]
    fn resolvers_on_loopback_stay_on_the_host() {
        let of_host = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan\noptions edns0\n";
        let plain = definition(HostConfig::default());
        assert_eq!(resolv_conf(&plain, of_host, false), "nameserver 10.0.0.2\nsearch lan\noptions edns0\n");
        assert!(resolv_conf(&plain, of_host, true).contains("127.0.0.53"));
        let given = HostConfig {
            dns: Some(vec!["1.1.1.1".into()]),
            dns_search: Some(vec![".".into()]),
            ..HostConfig::default()
        };
        assert_eq!(resolv_conf(&definition(given), of_host, false), "nameserver 1.1.1.1\noptions edns0\n");
    }
}
