//! Links on the default bridge (`--link`), of the time before networks had names: the linking container finds the other's
//! addresses in its `/etc/hosts` and in its environment. As dockerd 28.5 does it: the other has to run when this one
//! starts, its address is kept up to date in `/etc/hosts` whenever it starts again, and it can be called
//! `<this one>/<alias>`. On networks that users have made, links are the network's own
//! ([`move_links`](super::networks::wishes::move_links)).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use caisson_docker_api::container::{Config, HostConfig};
use caisson_networks::{PortProtocol, Sandbox};
use serde::{Deserialize, Serialize};

use super::record::Definition;
use super::state::State;
use super::task::{Request, Task};
use super::{Containers, Handle, Register, ports};
use crate::error::ApiError;

/// A link of a container's, on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegacyLink {
    /// The other container's id.
    container: String,
    /// Its name when the link was made: it is called so even when it is gone.
    name: String,
    /// What this one calls it.
    alias: String,
}

/// What a running container that is linked gives.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Lines of `/etc/hosts`: an address and the names that stand for it.
    pub(super) hosts: Vec<(IpAddr, String)>,
    /// Variables, `NAME=value`.
    pub(super) environment: Vec<String>,
}

impl Containers {
    /// Takes the links out of a new container's configuration, their containers found.
    pub(super) fn take_links(&self, host: &mut HostConfig) -> Result<Vec<LegacyLink>, ApiError> {
        let mut links: Vec<LegacyLink> = Vec::new();
        for text in host.links.take().into_iter().flatten() {
            let (name, alias) = parse(&text)?;
            let target = self.link_target(name)?;
            // A second one of the same alias is nobody's.
            if !alias.is_empty() && !links.iter().any(|link| link.alias == alias) {
                let definition = target.definition();
                let (container, name) = (definition.id.clone(), definition.name.clone());
                links.push(LegacyLink { container, name, alias: alias.to_owned() });
            }
        }
        Ok(links)
    }

    /// Who is meant: a container that lives in another's network is that one.
    fn link_target(&self, name: &str) -> Result<Handle, ApiError> {
        let within = |error: ApiError| {
            ApiError::invalid(error.within(&format!("could not get container for {name}")).message)
        };
        if name.is_empty() {
            return Err(within(ApiError::invalid("invalid name or ID supplied: \"\"")));
        }
        let mut target = self.find(name).map_err(within)?;
        let mut passed = HashSet::new();
        while let Some(other) = target.definition().host_config.network_mode.strip_prefix("container:") {
            // Two that were made for each other's network can never start.
            if !passed.insert(target.id.clone()) {
                let circle = format!("container {} lives in its own network", target.short_id());
                return Err(within(ApiError::invalid(circle)));
            }
            target = self.find(other).map_err(within)?;
        }
        if target.definition().host_config.network_mode == "host" {
            return Err(ApiError::invalid(
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
            ));
        }
        Ok(target)
    }

    /// The links as clients are told of them, `/db:/web/alias`; `None` without any.
    pub(super) fn told_links(&self, definition: &Definition) -> Option<Vec<String>> {
        let told = definition.links.iter().map(|link| {
            let name = self
                .find(&link.container)
                .map_or_else(|_| link.name.clone(), |h| h.definition().name.clone());
            format!("/{name}:/{}/{}", definition.name, link.alias)
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then_some(told)
    }

    /// Takes a link off the container that has it; the other one stays. `name` is `parent/alias`.
    pub(crate) async fn remove_link(&self, name: &str) -> Result<(), ApiError> {
        let name = name.trim_start_matches('/');
        let Some((parent, alias)) = name.split_once('/') else {
            return Err(ApiError::internal("Conflict, cannot remove the default link name of the container"));
        };
        let parent = self.find(parent)?;
        parent.ask(|answer| Request::Unlink(alias.to_owned(), answer)).await
    }
}

impl Register {
    /// The container that another one calls so: `parent/alias`.
    pub(super) fn linked(&self, name: &str) -> Option<Handle> {
        let (parent, alias) = name.trim_start_matches('/').split_once('/')?;
        let entries = self.entries();
        let parent = entries.handles.get(entries.names.get(parent)?)?.definition();
        let link = parent.links.iter().find(|link| link.alias == alias)?;
        entries.handles.get(&link.container).cloned()
    }

    fn linking_to(&self, id: &str) -> Vec<Handle> {
        let links_to = |handle: &&Handle| handle.definition().links.iter().any(|link| link.container == id);
        self.entries().handles.values().filter(links_to).cloned().collect()
    }

    /// What the links of a container give now; all of them must run.
    pub(super) fn follow_links(&self, definition: &Definition) -> Result<Linked, ApiError> {
        let mut all = Linked::default();
        if !is_linking(definition) {
            return Ok(all);
        }
        for link in &definition.links {
            let (hosts, environment) = self.follow(definition, link)?;
            all.hosts.extend(hosts);
            all.environment.extend(environment);
        }
        Ok(all)
    }

    /// The lines of `/etc/hosts` of those that run, for a container whose links may have changed.
    pub(super) fn linked_hosts(&self, definition: &Definition) -> Vec<(IpAddr, String)> {
        let links = definition.links.iter().filter(|_| is_linking(definition));
        links.filter_map(|link| self.follow(definition, link).ok()).flat_map(|(hosts, _)| hosts).collect()
    }

    fn follow(&self, definition: &Definition, link: &LegacyLink) -> Result<Followed, ApiError> {
        let target = self.get(&link.container).ok();
        let other = target.as_ref().map(|target| target.definition());
        let name = other.as_ref().map_or(&link.name, |other| &other.name);
        let state = target.as_ref().map(Handle::state);
        let running = state.as_ref().and_then(|state| state.running());
        let (Some(other), Some(running)) = (&other, running) else {
            return Err(ApiError::internal(format!(
                "Cannot link to a non running container: /{name} AS /{}/{}",
                definition.name, link.alias
            )));
        };
        let addresses = addresses(&running.sandbox);
        let Some(first) = addresses.first() else {
            return Err(ApiError::internal(format!(
                "container {} not attached to default bridge network",
                other.id
            )));
        };
        let names = names(&link.alias, &other.config.hostname, name);
        let environment = environment(&format!("/{}/{}", definition.name, link.alias), *first, &other.config);
        Ok((addresses.iter().map(|address| (*address, names.clone())).collect(), environment))
    }
}

type Followed = (Vec<(IpAddr, String)>, Vec<String>);

impl Task {
    /// Tells those that link to this container where it is now. Nobody waits for them.
    pub(super) fn tell_linking(&self) {
        for parent in self.register.linking_to(&self.definition.id) {
            // One whose queue is full, or that has gone, reads it at its next change or start.
            let _ = parent.requests.try_send(Request::RefreshLinks);
        }
    }

    /// Those that this container links to may be elsewhere.
    pub(super) async fn refresh_links(&mut self) {
        if let State::Running(running) = self.state() {
            self.rewrite_files(&running).await;
        }
    }

    pub(super) async fn unlink(&mut self, alias: &str) -> Result<(), ApiError> {
        if !self.definition.links.iter().any(|link| link.alias == alias) {
            return Err(ApiError::not_found(format!("No such container: {}/{alias}", self.definition.name)));
        }
        self.redefine(|definition| definition.links.retain(|link| link.alias != alias)).await?;
        self.refresh_links().await;
        Ok(())
    }
}

/// The names that these have for other containers, `/web/alias`, by the others' ids.
pub(super) fn linked_names(parents: impl Iterator<Item = Arc<Definition>>) -> HashMap<String, Vec<String>> {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for parent in parents {
        for link in &parent.links {
            let name = format!("/{}/{}", parent.name, link.alias);
            names.entry(link.container.clone()).or_default().push(name);
        }
    }
    names.values_mut().for_each(|names| names.sort());
    names
}

/// Links count on the default bridge only.
fn is_linking(definition: &Definition) -> bool {
    super::networks::network_of(&definition.host_config.network_mode) == "bridge"
}

/// `name` or `name:alias`.
fn parse(text: &str) -> Result<(&str, &str), ApiError> {
    if text.is_empty() {
        return Err(ApiError::internal("empty string specified for links"));
    }
    match text.split(':').collect::<Vec<_>>()[..] {
        [name] => Ok((name, name.trim_start_matches('/'))),
        [name, alias] => Ok((name, alias.trim_start_matches('/'))),
        _ => Err(ApiError::internal(format!("bad format for links: {text}"))),
    }
}

fn addresses(sandbox: &Sandbox) -> Vec<IpAddr> {
    let bridge = sandbox.endpoints.iter().find(|endpoint| endpoint.network == "bridge");
    let link = bridge.and_then(|endpoint| endpoint.link.as_ref());
    link.map(|link| link.addresses().map(|address| address.address).collect()).unwrap_or_default()
}

fn names(alias: &str, hostname: &str, name: &str) -> String {
    if alias == name { format!("{alias} {hostname}") } else { format!("{alias} {hostname} {name}") }
}

/// What is told of a linked container: its ports, ranges of them, its name, its own variables.
fn environment(name: &str, address: IpAddr, config: &Config) -> Vec<String> {
    let alias = name.rsplit('/').next().unwrap_or(name).to_uppercase().replace('-', "_");
    let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    let url = |(port, protocol): (u16, PortProtocol)| format!("{protocol}://{host}:{port}");
    let prefix = |(port, protocol): (u16, PortProtocol)| {
        format!("{alias}_PORT_{port}_{}", protocol.to_string().to_uppercase())
    };
    let ports = exposed(config);
    let mut told = Vec::new();
    told.extend(ports.first().map(|first| format!("{alias}_PORT={}", url(*first))));
    let mut range: Option<((u16, PortProtocol), (u16, PortProtocol))> = None;
    for (n, &port) in ports.iter().enumerate() {
        let own = prefix(port);
        told.push(format!("{own}={}", url(port)));
        told.push(format!("{own}_ADDR={address}"));
        told.push(format!("{own}_PORT={}", port.0));
        told.push(format!("{own}_PROTO={}", port.1));
        let follows =
            range.is_some_and(|(_, last)| last.1 == port.1 && last.0.checked_add(1) == Some(port.0));
        if let (true, Some((first, _))) = (follows, range) {
            range = Some((first, port));
        }
        // A range is told when what comes after it has been, as dockerd does.
        let is_last = n + 1 == ports.len();
        if let Some((first, last)) = range.filter(|(first, last)| first != last && (!follows || is_last)) {
            let own = prefix(first);
            for (end, port) in [("START", first), ("END", last)] {
                told.push(format!("{own}_{end}={}", url(port)));
                told.push(format!("{own}_PORT_{end}={}", port.0));
            }
        }
        if !follows {
            range = Some((port, port));
        }
    }
    told.push(format!("{alias}_NAME={name}"));
    let own = config.env.iter().flatten().filter_map(|entry| entry.split_once('='));
    let own = own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    told.extend(own.map(|(name, value)| format!("{alias}_ENV_{name}={value}")));
    told
}

/// TCP first, then by number.
fn exposed(config: &Config) -> Vec<(u16, PortProtocol)> {
    let names = config.exposed_ports.iter().flatten().map(|(name, _)| name);
    let mut all: Vec<_> = names.filter_map(|name| ports::parse(name).ok()).collect();
    all.sort_by_key(|(port, protocol)| (*protocol != PortProtocol::Tcp, *port));
    all
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::Empty;

    use super::super::testing::definition;
    use super::*;

    #[test]
    fn names_by_links_are_found_for_all_at_once() {
        let parent = |name: &str, aliases: &[&str]| {
            let link = |alias: &&str| LegacyLink {
                container: "db-id".into(),
                name: "db".into(),
                alias: (*alias).to_owned(),
            };
            Arc::new(Definition { links: aliases.iter().map(link).collect(), ..definition(name) })
        };
        let names = linked_names([parent("web", &["x", "db"]), parent("app", &["db"])].into_iter());
        assert_eq!(names["db-id"], ["/app/db", "/web/db", "/web/x"]);
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn links_are_read_as_dockerd_reads_them() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("/db:/x").unwrap(), ("/db", "x"));
        assert_eq!(parse("").unwrap_err().message, "empty string specified for links");
        assert_eq!(parse("a:b:c").unwrap_err().message, "bad format for links: a:b:c");
    }

    /// As dockerd 28.5.2 told it of the same container.
    #[test]
    fn the_environment_tells_ports_and_ranges_in_dockerds_order() {
        let exposed = ["80/tcp", "8000/tcp", "8001/tcp", "53/udp", "54/udp"];
        let config = Config {
            exposed_ports: Some(exposed.map(|port| (port.to_owned(), Empty {})).into()),
            env: Some(["PATH=/bin", "HOME=/x", "A=1", "EMPTY="].map(str::to_owned).into()),
            ..Config::default()
        };
        let told = environment("/w/my-db", "172.17.0.2".parse().unwrap(), &config);
        let names: Vec<&str> = told.iter().map(|entry| entry.split('=').next().unwrap()).collect();
        let port =
            |port: &str| ["", "_ADDR", "_PORT", "_PROTO"].map(|part| format!("MY_DB_PORT_{port}{part}"));
        let ends = |port: &str| {
            ["_START", "_PORT_START", "_END", "_PORT_END"].map(|part| format!("MY_DB_PORT_{port}{part}"))
        };
        let mut expected = vec!["MY_DB_PORT".to_owned()];
        expected.extend([port("80_TCP"), port("8000_TCP"), port("8001_TCP"), port("53_UDP")].concat());
        expected.extend([ends("8000_TCP"), port("54_UDP"), ends("53_UDP")].concat());
        expected.extend(["MY_DB_NAME", "MY_DB_ENV_A", "MY_DB_ENV_EMPTY"].map(str::to_owned));
        assert_eq!(names, expected);
        assert!(told.contains(&"MY_DB_PORT=tcp://172.17.0.2:80".to_owned()));
        assert!(told.contains(&"MY_DB_PORT_8000_TCP_PORT_END=8001".to_owned()));
        assert!(told.contains(&"MY_DB_NAME=/w/my-db".to_owned()));
    }
}
