//! Why a port is not open, in dockerd's words.

use std::fmt;
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
    #[error("failed to bind host port for {wanted}: {}{}", .refused.message, held_by(.refused))]
    Refused {
        /// Where it was to listen and to lead.
        wanted: Box<Wanted>,
        /// The reason.
        refused: Box<PublishRefused>,
    },
    /// The machine's host cannot be asked.
    #[error("failed to bind host port for {0}: the host of this machine does not answer")]
    Away(Box<Wanted>),
    /// Other containers of this engine have all of a range.
    #[error("all ports are allocated")]
    AllAllocated,
    /// The range of host ports is empty.
    #[error("the range of host ports is empty")]
    NoPort,
}

impl PublishError {
    pub(crate) fn refused(forward: &PortForward, refused: PublishRefused) -> Self {
        Self::Refused { wanted: Wanted::of(forward), refused: Box::new(refused) }
    }

    pub(crate) fn away(forward: &PortForward) -> Self {
        Self::Away(Wanted::of(forward))
    }

    /// Whether another number might do.
    pub(crate) fn is_taken(&self) -> bool {
        match self {
            Self::Allocated { .. } | Self::AllAllocated => true,
            Self::Refused { refused, .. } => refused.code == RefusalCode::InUse,
            Self::Away(_) | Self::NoPort => false,
        }
    }

    /// Whether the address is not one of the host's.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused { refused, .. } if refused.code == RefusalCode::NotAvailable)
    }
}

/// A port that was not opened, as dockerd writes it: `0.0.0.0:8080:172.17.0.2:80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    listen: SocketAddr,
    target: SocketAddr,
    protocol: PortProtocol,
}

impl Wanted {
    fn of(forward: &PortForward) -> Box<Self> {
        let listen = SocketAddr::new(forward.host_ip, forward.host_port);
        Box::new(Self { listen, target: forward.target, protocol: forward.protocol })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.listen, self.target, self.protocol)
    }
}

fn held_by(refused: &PublishRefused) -> String {
    refused.holder.as_ref().map(|holder| format!(" (held by {holder})")).unwrap_or_default()
}
