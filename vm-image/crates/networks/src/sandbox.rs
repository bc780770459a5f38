//! What a container asks for and what it gets: its network namespace, its endpoints, its published ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use caisson_guest_proto::PortProtocol;
use serde::{Deserialize, Serialize};

/// A container that is about to start.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// The container's id; a container has at most one sandbox.
    pub container: String,
    /// The container's name, for messages and for `network inspect`.
    pub name: String,
    /// The networks that it joins, in this order: the first one's device is `eth0`. None of them makes a sandbox
    /// without a network, which can be [connected](crate::Networks::connect) later.
    pub networks: Vec<Join>,
    /// What to publish, where a network with a way out is joined; else it is left aside, as dockerd does.
    pub ports: Vec<PortBinding>,
    /// The name servers that the user chose for this container (`--dns`); none is those of the system.
    pub name_servers: Vec<IpAddr>,
    /// A network namespace that was made for it and that nobody has used yet; none is a new one of the engine's own user namespace.
    pub namespace: Option<Arc<OwnedFd>>,
    /// The directory of the cgroup in which its processes will be, by which its listeners on the network `host` are known.
    pub cgroup: Option<PathBuf>,
}

/// What a container wants of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Join {
    /// The network's name or id.
    pub network: String,
    /// The address that it wants; `None` is the next free one.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The hardware address that it wants.
    pub mac: Option<Mac>,
    /// Link-local addresses that its device is to have besides.
    pub link_local: Vec<IpAddr>,
    /// The names by which others on this network find it, in the order in which dockerd has them.
    pub dns_names: Vec<String>,
    /// Names of its own for other containers (`--link` on a user-defined network).
    pub links: Vec<Link>,
    /// Of all its networks, the one with the highest priority is the way out.
    pub gw_priority: i64,
    /// The driver's options, under Docker's names.
    pub driver_options: BTreeMap<String, String>,
}

/// `--link db:database`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The name or id of the other container.
    pub container: String,
    /// What this one calls it.
    pub alias: String,
}

/// A port inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerPort(pub u16);

/// A port that was bound on the host (or, for an engine without a host, on its own system).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPort(pub u16);

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which host ports will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPorts {
    /// One of the system's ephemeral range (`-p 80`, or a host port of 0).
    Ephemeral,
    /// The first free one of these (`-p 8080:80`, `-p 8000-8010:80`). None of them is 0.
    FirstFreeOf(RangeInclusive<u16>),
}

impl HostPorts {
    /// Exactly this one; 0 means [`HostPorts::Ephemeral`], as in the Docker API.
    #[must_use]
    pub fn exactly(port: u16) -> Self {
        if port == 0 { Self::Ephemeral } else { Self::FirstFreeOf(port..=port) }
    }
}

/// One wish of `-p`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Where it leads.
    pub container_port: ContainerPort,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The address to bind; `None` binds all addresses of both families, under the same port.
    pub host_ip: Option<IpAddr>,
    /// The ports that will do.
    pub host_ports: HostPorts,
}

/// One port that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Where it leads.
    pub container_port: ContainerPort,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The bound address. A binding without an address has two of these: `0.0.0.0` and `::`.
    pub host_ip: IpAddr,
    /// The bound port.
    pub host_port: HostPort,
}

/// What a container got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The container's id.
    pub container: String,
    /// The network namespace, bound to this path; `None` means the engine's own (network `host`).
    pub netns: Option<PathBuf>,
    /// One for each network, in the order in which they were joined.
    pub endpoints: Vec<Endpoint>,
    /// The open ports, in the order of the request.
    pub published: Vec<PublishedPort>,
    /// Whether this container's names are answered by us at 127.0.0.11.
    pub resolver: bool,
}

/// A container's end on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Docker's name of the network's driver.
    pub driver: String,
    /// 64 hexadecimal digits, new for each attach.
    pub endpoint_id: String,
    /// The container's device; empty on networks without one.
    pub interface: String,
    /// `None` on networks without addresses (`host`, `none`).
    pub link: Option<EndpointLink>,
    /// The names by which others on this network find it.
    pub dns_names: Vec<String>,
    /// Names of its own for other containers.
    pub links: Vec<Link>,
    /// Of all its networks, the one with the highest priority is the way out.
    pub gw_priority: i64,
    /// Everything that leaves by it is sent straight to its device, for want of a gateway.
    #[serde(default)]
    pub straight: bool,
}

/// The addresses of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLink {
    /// The hardware address.
    pub mac: Mac,
    /// On a network with IPv4.
    pub ipv4: Option<LinkAddress>,
    /// On a network with IPv6.
    pub ipv6: Option<LinkAddress>,
    /// Those that the user has added, and that mean something on this link only.
    #[serde(default)]
    pub link_local: Vec<LinkAddress>,
}

/// An address in its range, and the way out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// The prefix length of the network.
    pub prefix: u8,
    /// The way out; `None` on an internal network.
    pub gateway: Option<IpAddr>,
}

impl EndpointLink {
    /// The addresses that there are, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = LinkAddress> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// The same, and the link-local ones.
    pub(crate) fn all_addresses(&self) -> impl Iterator<Item = LinkAddress> {
        self.addresses().chain(self.link_local.iter().copied())
    }
}

impl Sandbox {
    /// The endpoint that is the container's way out over IPv4 (or IPv6): of those with a gateway, that with the highest
    /// priority, then the one whose network's name is first, as dockerd chooses.
    #[must_use]
    pub fn way_out(&self, ipv4: bool) -> Option<&Endpoint> {
        way_out(self.endpoints.iter(), ipv4)
    }
}

/// See [`Sandbox::way_out`].
pub(crate) fn way_out<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, ipv4: bool) -> Option<&'a Endpoint> {
    let leads_out = |endpoint: &&Endpoint| gateway(endpoint, ipv4).is_some() || goes_straight(endpoint, ipv4);
    endpoints
        .filter(leads_out)
        .min_by_key(|endpoint| (std::cmp::Reverse(endpoint.gw_priority), &endpoint.network))
}

/// The way out that an endpoint offers.
pub(crate) fn gateway(endpoint: &Endpoint, ipv4: bool) -> Option<IpAddr> {
    let link = endpoint.link.as_ref()?;
    if ipv4 { link.ipv4 } else { link.ipv6 }?.gateway
}

/// Whether an endpoint is a way out without a gateway.
pub(crate) fn goes_straight(endpoint: &Endpoint, ipv4: bool) -> bool {
    let has_family = |link: &EndpointLink| if ipv4 { link.ipv4.is_some() } else { link.ipv6.is_some() };
    endpoint.straight && endpoint.link.as_ref().is_some_and(has_family)
}

/// A hardware address; shown as `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address that goes with an IP address.
    ///
    /// Derived rather than random: a container that comes back with the address of one that just left is reached at
    /// once by neighbours who still remember the pair. Of an IPv6 address the last four bytes count.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => *address.octets().last_chunk().expect("it has sixteen"),
        };
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl std::str::FromStr for Mac {
    type Err = InvalidMac;

    /// Reads six pairs of digits with `:` or `-` between them.
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

/// Why a text is no [`Mac`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address: {0}")]
pub struct InvalidMac(String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
