//! Which container a name stands for, as seen from another one: network by network, links first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::book::{Book, SandboxRecord};
use crate::network::BUILT_IN;
use crate::{Endpoint, Link};

/// What stands behind a name: one container, or several that share an alias.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) ipv4: Vec<Ipv4Addr>,
    pub(crate) ipv6: Vec<Ipv6Addr>,
}

/// Looks a name up for a container. `name.network` is looked for on that network only.
pub(crate) fn find(book: &Book, container: &str, name: &str) -> Option<Found> {
    let asking = book.sandbox(container)?;
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    networks(asking).find_map(|endpoint| on_network(book, endpoint, &name)).or_else(|| {
        let (name, network) = name.rsplit_once('.')?;
        let mut named = networks(asking).filter(|endpoint| endpoint.network.eq_ignore_ascii_case(network));
        named.find_map(|endpoint| on_network(book, endpoint, name))
    })
}

/// The first name of whoever has an address on one of a container's networks, with the network's name after it.
pub(crate) fn name_of(book: &Book, container: &str, address: IpAddr) -> Option<String> {
    let asking = book.sandbox(container)?;
    networks(asking).find_map(|own| {
        let mut neighbours = neighbours(book, own);
        let (_, found) = neighbours.find(|(_, endpoint)| addresses(endpoint).any(|a| a == address))?;
        Some(format!("{}.{}", found.dns_names.first()?, own.network))
    })
}

/// A container's ends on networks with names, the way out first.
fn networks(sandbox: &SandboxRecord) -> impl Iterator<Item = &Endpoint> {
    let mut endpoints: Vec<&Endpoint> = sandbox.endpoints.iter().map(|record| &record.endpoint).collect();
    endpoints.retain(|endpoint| !BUILT_IN.iter().any(|(name, _)| endpoint.network == *name));
    endpoints.sort_by_key(|endpoint| (std::cmp::Reverse(endpoint.gw_priority), &endpoint.network));
    endpoints.into_iter()
}

fn neighbours<'a>(
    book: &'a Book,
    own: &'a Endpoint,
) -> impl Iterator<Item = (&'a SandboxRecord, &'a Endpoint)> {
    let all = book.sandboxes().flat_map(|s| s.endpoints.iter().map(move |record| (s, &record.endpoint)));
    all.filter(|(_, endpoint)| endpoint.network_id == own.network_id)
}

fn on_network(book: &Book, own: &Endpoint, name: &str) -> Option<Found> {
    let linked = own.links.iter().filter(|link| link.alias.eq_ignore_ascii_case(name));
    let linked: Vec<&Link> = linked.collect();
    let mut found = Found::default();
    let mut any = false;
    for (sandbox, endpoint) in neighbours(book, own) {
        let is_linked = || linked.iter().any(|link| is_meant(sandbox, endpoint, &link.container));
        let is_named = || endpoint.dns_names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if if linked.is_empty() { is_named() } else { is_linked() } {
            any = true;
            for address in addresses(endpoint) {
                match address {
                    IpAddr::V4(address) => found.ipv4.push(address),
                    IpAddr::V6(address) => found.ipv6.push(address),
                }
            }
        }
    }
    any.then_some(found)
}

/// A link names a container by its name, its id, or whatever others call it.
fn is_meant(sandbox: &SandboxRecord, endpoint: &Endpoint, name: &str) -> bool {
    sandbox.name == name || sandbox.container == name || endpoint.dns_names.iter().any(|known| known == name)
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.link.iter().flat_map(|link| link.addresses()).map(|address| address.address)
}
