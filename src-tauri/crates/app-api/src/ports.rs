//! Ports of containers on this computer.

use serde::{Deserialize, Serialize};
use specta::Type;

/// A port that this computer listens on for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct PortForwardStatus {
    /// Unique: the container's full id, a slash, a number.
    pub key: String,
    /// The container's full id.
    pub container_id: String,
    /// The address on this computer.
    pub host_ip: String,
    /// The port on this computer.
    pub host_port: u16,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// Where it leads inside the machine: address and port.
    pub target: String,
    /// How many connections go through it now.
    pub connections: u32,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; never published here.
    Sctp,
}
