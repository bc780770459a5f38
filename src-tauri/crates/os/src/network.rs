//! What the system knows of the networks around it.

use crate::imp;
use std::net::SocketAddr;

/// The name servers that the system names, in the order in which they are asked; empty where it does not tell.
///
/// For what the system's own resolver call cannot answer. Read anew at each call: it changes with the network.
pub fn name_servers() -> Vec<SocketAddr> {
    imp::name_servers()
}
