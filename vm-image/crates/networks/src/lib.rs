//! Container networks: drivers, addresses, published ports.
//!
//! [`Networks`] is the door. A container that starts is [attached](Networks::attach): it gets a sandbox, which is a
//! network namespace, an endpoint on a network, and its published ports, open. When it has stopped it is
//! [detached](Networks::detach). This crate knows nothing of images, processes or HTTP.
//!
//! ```text
//!            attach: grant an address, put on record -> namespace -> join -> open ports
//!   nothing ------------------------------------------------------------------------------> sandbox
//!      ^  <----- any failure: the same steps as detach, whatever was reached -------            |
//!      |                                                                                        |
//!      '----------------------------------------------------------------------------------------'
//!            detach: close ports -> isolate -> unbind the namespace -> off the record
//! ```
//!
//! What follows from this order:
//! - **Nothing is forgotten by a crash.** A sandbox is on record (`book`) before anything of it exists. What is on no
//!   record carries our mark (`drivers`) or lies in our directory, and goes at the next start. Containers outlive the
//!   engine, so [`Networks::restore`] takes over what is alive, its ports included.
//! - **No address is granted twice.** The granted ones are those on record (`ipam`); there is no second list.
//! - **Detaching is fast.** An endpoint is cut off at once, which frees its address; its devices go when the kernel gets
//!   round to it (`leftovers`).
//!
//! Everything is done with system calls and rtnetlink (`netlink`); no program is started. Calls that block for the
//! kernel run on blocking threads, and what must happen inside a container's namespace happens on threads that end
//! with it (`caisson_sys::netns`).
//!
//! A new driver is a file in `drivers`. What is not here yet: networks that users define, a firewall and with it the
//! way out, DNS, UDP ports, IPv6 inside containers. The records, the driver trait and the addresses of endpoints are
//! made for more than one network a container.

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
