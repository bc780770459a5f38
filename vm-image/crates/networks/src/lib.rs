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
//! A new driver is a file in `drivers`. What passes between networks, and what comes in and leaves, is in `firewall`; names
//! are answered by `dns`; published ports are opened by `ports`, and what containers on the network `host` listen on is
//! found by `listeners` where that network is not the computer's own.

mod attach;
mod book;
mod create;
mod detach;
mod dns;
mod drivers;
mod error;
mod files;
mod firewall;
mod grant;
mod ids;
mod ipam;
mod join;
mod leftovers;
mod listeners;
mod netlink;
mod network;
mod networks;
mod ports;
mod publish;
mod records;
mod remove;
mod restore;
mod sandbox;
mod sockets;
mod subnet;
#[cfg(test)]
mod tests;
mod turns;

pub use caisson_guest_proto::PortProtocol;
pub use drivers::DriverError;
pub use error::{
    AttachError, CreateError, DetachError, DetachFailure, DisconnectError, ErrorKind, NoSuchNetwork,
    OpenError, RemoveError,
};
pub use files::StateError;
pub use firewall::FirewallError;
pub use ipam::{DefaultPool, InvalidPool, IpamPool};
pub use network::{Attachment, CreateRequest, IpamRequest, Network, PoolRequest};
pub use networks::{Networks, Options};
pub use ports::{PublishError, Publisher, Wanted};
pub use restore::Restored;
pub use sandbox::{
    AttachRequest, ContainerPort, Endpoint, EndpointLink, HostPort, HostPorts, InvalidMac, Join, Link,
    LinkAddress, Mac, PortBinding, PublishedPort, Sandbox,
};
pub use subnet::{InvalidSubnet, Subnet};
