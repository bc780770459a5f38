//! The files that every container with networks finds as its own: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! They are written anew at each start into the container's directory and mounted over the image's. One without any
//! network (`NetworkDisabled`) has none, as under dockerd; it finds them empty.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;

use caisson_networks::Sandbox;

use super::record::{Definition, Directory};
use super::resolv_conf;

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Whom else a container finds in its `/etc/hosts`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Others<'a> {
    /// The addresses and names of those that it links to.
    pub(crate) linked: &'a [(IpAddr, String)],
    /// What `host-gateway` stands for in `--add-host`.
    pub(crate) host_gateways: &'a [IpAddr],
}

/// Whether a container has them.
pub(crate) fn are_of(definition: &Definition) -> bool {
    !definition.config.network_disabled
}

/// Writes all three.
pub(crate) fn write(
    definition: &Definition,
    directory: &Directory,
    sandbox: &Sandbox,
    others: Others<'_>,
) -> io::Result<()> {
    std::fs::write(directory.hostname(), format!("{}\n", definition.config.hostname))?;
    rewrite(definition, directory, sandbox, others)
}

/// Gives a container that lives in another one's network the other's files. They are the very same, by a second name: what the other
/// changes is changed here, too, and they stay when the other is removed.
pub(crate) fn share(other: &Directory, own: &Directory) -> io::Result<()> {
    for (its, own) in [
        (other.hostname(), own.hostname()),
        (other.hosts(), own.hosts()),
        (other.resolv_conf(), own.resolv_conf()),
    ] {
        match std::fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::hard_link(its, own)?,
        }
    }
    Ok(())
}

/// Writes what depends on the networks. The files stay the same files: the container has them mounted.
pub(crate) fn rewrite(
    definition: &Definition,
    directory: &Directory,
    sandbox: &Sandbox,
    others: Others<'_>,
) -> io::Result<()> {
    let host_network = sandbox.netns.is_none();
    let hosts_of_host = if host_network { std::fs::read_to_string("/etc/hosts").ok() } else { None };
    std::fs::write(directory.hosts(), hosts(definition, sandbox, others, hosts_of_host.as_deref())?)?;
    let of_host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    std::fs::write(directory.resolv_conf(), resolv_conf::compose(&definition.host_config, &of_host, sandbox))
}

fn hosts(
    definition: &Definition,
    sandbox: &Sandbox,
    others: Others<'_>,
    base: Option<&str>,
) -> io::Result<String> {
    let mut text = base.unwrap_or(HOSTS).to_owned();
    for extra in definition.host_config.extra_hosts.iter().flatten() {
        match extra.split_once([':', '=']) {
            Some((_, "host-gateway")) if others.host_gateways.is_empty() => {
                return Err(io::Error::other("unable to derive the IP value for host-gateway"));
            }
            Some((name, "host-gateway")) => {
                for gateway in others.host_gateways {
                    let _ = writeln!(text, "{gateway}\t{name}");
                }
            }
            Some((name, address)) => {
                let _ = writeln!(text, "{}\t{name}", address.trim_matches(['[', ']']));
            }
            None => {}
        }
    }
    for (address, names) in others.linked {
        let _ = writeln!(text, "{address}\t{names}");
    }
    let names = match definition.config.domainname.as_str() {
        "" => definition.config.hostname.clone(),
        domain => format!("{0}.{domain} {0}", definition.config.hostname),
    };
    let links = sandbox.endpoints.iter().filter_map(|endpoint| endpoint.link.as_ref());
    for address in links.flat_map(|link| link.addresses()) {
        let _ = writeln!(text, "{}\t{names}", address.address);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::{Config, HostConfig};
    use caisson_docker_api::time::Timestamp;
    use caisson_networks::{Endpoint, EndpointLink, LinkAddress, Mac};

    use super::*;

    fn definition(host_config: HostConfig) -> Definition {
        Definition {
            id: "1".repeat(64),
            name: "web".into(),
            created: Timestamp::ZERO,
            image: String::new(),
            config: Config { hostname: "box".into(), ..Config::default() },
            host_config,
            networks: Default::default(),
            links: Vec::new(),
            mounts: Vec::new(),
            raw_sockets: false,
            path: String::new(),
            args: Vec::new(),
        }
    }

    fn sandbox() -> Sandbox {
        let address = "172.17.0.2".parse().unwrap();
        let gateway = Some("172.17.0.1".parse().unwrap());
        let ipv4 = Some(LinkAddress { address, prefix: 16, gateway });
        let endpoint = Endpoint {
            network: "bridge".into(),
            network_id: String::new(),
            driver: "bridge".into(),
            endpoint_id: String::new(),
            interface: "eth0".into(),
            link: Some(EndpointLink { mac: Mac::of(address), ipv4, ipv6: None, link_local: Vec::new() }),
            dns_names: Vec::new(),
            links: Vec::new(),
            gw_priority: 0,
            straight: false,
        };
        Sandbox {
            container: String::new(),
            netns: Some("/n".into()),
            endpoints: vec![endpoint],
            published: Vec::new(),
            resolver: false,
        }
    }

    #[test]
    fn who_lives_in_another_s_network_has_the_other_s_files() {
        let root = tempfile::tempdir().unwrap();
        let [donor, joiner] = ["donor", "joiner"].map(|id| Directory::new(root.path(), id));
        for directory in [&donor, &joiner] {
            std::fs::create_dir(directory.path()).unwrap();
        }
        let definition = definition(HostConfig::default());
        write(&definition, &donor, &sandbox(), Others::default()).unwrap();
        std::fs::write(joiner.hosts(), "of a run before").unwrap();
        share(&donor, &joiner).unwrap();
        share(&donor, &joiner).unwrap();
        assert_eq!(std::fs::read_to_string(joiner.hostname()).unwrap(), "box\n");
        let linked = [("172.17.0.9".parse().unwrap(), "later".to_owned())];
        rewrite(&definition, &donor, &sandbox(), Others { linked: &linked, ..Others::default() }).unwrap();
        assert!(std::fs::read_to_string(joiner.hosts()).unwrap().contains("172.17.0.9\tlater"));
    }

    #[test]
    fn hosts_has_the_container_and_what_was_added() {
        let extra =
            Some(vec!["db:10.0.0.1".into(), "host.docker.internal:host-gateway".into(), "six=[::2]".into()]);
        let definition = definition(HostConfig { extra_hosts: extra, ..HostConfig::default() });
        let linked = [("172.17.0.9".parse().unwrap(), "cache box2 redis".to_owned())];
        let host_gateways = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        let others = Others { linked: &linked, host_gateways: &host_gateways };
        let text = hosts(&definition, &sandbox(), others, None).unwrap();
        let end = "10.0.0.1\tdb\n192.0.2.1\thost.docker.internal\n2001:db8::1\thost.docker.internal\n::2\tsix\n\
            172.17.0.9\tcache box2 redis\n172.17.0.2\tbox\n";
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with(end), "{text}");
        let none = hosts(&definition, &sandbox(), Others::default(), None).unwrap_err();
        assert_eq!(none.to_string(), "unable to derive the IP value for host-gateway");
    }
}
