//! Container networks: drivers, addresses, published ports.

mod error;
mod network;
mod networks;
mod publisher;
mod sandbox;

pub use caisson_guest_proto::PortProtocol;
pub use error::{AttachError, DetachError, ErrorKind, NoSuchNetwork, OpenError};
pub use network::{Attachment, InvalidSubnet, IpamConfig, Network, Subnet};
pub use networks::{Networks, Restored};
pub use publisher::Publisher;
pub use sandbox::{
    AttachRequest, ContainerPort, Endpoint, EndpointLink, HostPort, HostPorts, Mac, NetworkMode, PortBinding,
    PublishedPort, Sandbox,
};
