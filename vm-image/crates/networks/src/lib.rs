//! Container networks: drivers, addresses, published ports.

mod attach;
mod book;
mod detach;
mod drivers;
mod error;
mod files;
mod ids;
mod ipam;
mod leftovers;
mod netlink;
mod network;
mod networks;
mod ports;
mod restore;
mod sandbox;
#[cfg(test)]
mod tests;
mod turns;

pub use caisson_guest_proto::PortProtocol;
pub use drivers::DriverError;
pub use error::{AttachError, DetachError, DetachFailure, ErrorKind, NoSuchNetwork, OpenError};
pub use files::StateError;
pub use network::{Attachment, InvalidSubnet, IpamConfig, Network, Subnet};
pub use networks::Networks;
pub use ports::{PublishError, Publisher};
pub use restore::Restored;
pub use sandbox::{
    AttachRequest, ContainerPort, Endpoint, EndpointLink, HostPort, HostPorts, Mac, NetworkMode, PortBinding,
    PublishedPort, Sandbox,
};
