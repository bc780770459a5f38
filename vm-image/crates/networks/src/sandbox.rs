//! What a container asks for and what it gets: its network namespace, its endpoints, its published ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use caisson_guest_proto::PortProtocol;
use serde::{Deserialize, Serialize};

/// A container that is about to start.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// The container's id; a container has at most one sandbox.
    pub container: String,
    /// The container's name, for messages and for `network inspect`.
    pub name: String,
    /// Which of the built-in networks it joins.
    pub mode: NetworkMode,
    /// What to publish. Only a `bridge` publishes; the other modes leave it aside, as dockerd does.
    pub ports: Vec<PortBinding>,
}

/// The built-in network that a container joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// An address of its own on the default bridge.
    Bridge,
    /// No namespace of its own: the engine's network is the container's.
    Host,
    /// A namespace with a loopback device only.
    None,
}

impl NetworkMode {
    /// The name of the network that this mode joins.
    #[must_use]
    pub fn network(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Where it leads.
    pub container_port: ContainerPort,
    /// TCP or UDP. UDP is refused for now.
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
    /// The network namespace, bound to this path; `None` means the engine's own (mode `host`).
    pub netns: Option<PathBuf>,
    /// One for each network. The modes of today join exactly one.
    pub endpoints: Vec<Endpoint>,
    /// The open ports, in the order of the request.
    pub published: Vec<PublishedPort>,
}

/// A container's end on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// 64 hexadecimal digits, new for each attach.
    pub endpoint_id: String,
    /// `None` on networks without addresses (`host`, `none`).
    pub link: Option<EndpointLink>,
}

/// The addresses of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLink {
    /// The hardware address.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length of the network.
    pub prefix: u8,
    /// The default route.
    pub gateway: Ipv4Addr,
}

/// A hardware address; shown as `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address that goes with an IP address, as Docker derives it.
    ///
    /// Derived rather than random: a container that comes back with the address of one that just left is reached at
    /// once by neighbours who still remember the pair.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
