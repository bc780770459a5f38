//! Why a port is not open, in dockerd's words.

use std::net::{IpAddr, SocketAddr};

use caisson_guest_proto::{PortForward, PortProtocol, PublishRefused, RefusalCode};

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another container of this engine has it.
    #[error("Bind for {host_ip}:{host_port} failed: port is already allocated (held by container {holder})")]
    Allocated {
        /// Where the other one listens.
        host_ip: IpAddr,
        /// The port of both.
        host_port: u16,
        /// The other container's name.
        holder: String,
    },
    /// The system, or the machine's host, refused.
    #[error("failed to bind host port {address}/{protocol}: {}{}", .refused.message, held_by(.refused))]
    Refused {
        /// Where it was to listen.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: PortProtocol,
        /// The reason.
        refused: Box<PublishRefused>,
    },
    /// The machine's host cannot be asked.
    #[error("failed to bind host port {address}/{protocol}: the host of this machine does not answer")]
    Away {
        /// Where it was to listen.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: PortProtocol,
    },
    /// UDP.
    #[error("publishing udp ports is not supported yet")]
    Udp,
    /// The range of host ports is empty.
    #[error("the range of host ports is empty")]
    NoPort,
}

impl PublishError {
    pub(crate) fn refused(forward: &PortForward, refused: PublishRefused) -> Self {
        Self::Refused { address: address(forward), protocol: forward.protocol, refused: Box::new(refused) }
    }

    pub(crate) fn away(forward: &PortForward) -> Self {
        Self::Away { address: address(forward), protocol: forward.protocol }
    }

    /// Whether another number might do.
    pub(crate) fn is_taken(&self) -> bool {
        match self {
            Self::Allocated { .. } => true,
            Self::Refused { refused, .. } => refused.code == RefusalCode::InUse,
            Self::Away { .. } | Self::Udp | Self::NoPort => false,
        }
    }

    /// Whether the address is not one of the host's.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused { refused, .. } if refused.code == RefusalCode::NotAvailable)
    }
}

fn address(forward: &PortForward) -> SocketAddr {
    SocketAddr::new(forward.host_ip, forward.host_port)
}

fn held_by(refused: &PublishRefused) -> String {
    refused.holder.as_ref().map(|holder| format!(" (held by {holder})")).unwrap_or_default()
}
