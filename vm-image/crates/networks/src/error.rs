//! What can go wrong with a sandbox, in dockerd's words where it has them.
//!
//! Each error says its own level only; an error with its sources, joined by `: `, is the message that `docker run`
//! prints after `failed to set up container networking: `.

use std::io;
use std::path::PathBuf;

use crate::drivers::DriverError;
use crate::files::StateError;
use crate::ports::PublishError;

/// What the HTTP edge needs to know of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such network.
    NotFound,
    /// The request can never work.
    Invalid,
    /// The container has a sandbox already.
    Conflict,
    /// Everything else; dockerd answers 500 for a port that is taken, too.
    Internal,
}

/// There is no such network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchNetwork {
    /// Nothing has this name or id.
    #[error("network {0} not found")]
    Unknown(String),
    /// Several ids begin so.
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
}

impl NoSuchNetwork {
    /// What the HTTP edge makes of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Ambiguous(..) => ErrorKind::Invalid,
        }
    }
}

/// Why networks could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The records cannot be used.
    #[error("could not open the records of the networks")]
    Records(#[from] StateError),
    /// A network cannot be put in order.
    #[error("could not set up the network {0}")]
    Network(String, #[source] DriverError),
    /// Namespaces cannot be kept there.
    #[error("could not use {path} for network namespaces")]
    Namespaces {
        /// The directory.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("could not start the thread that removes sandboxes")]
    Thread(#[source] io::Error),
}

/// Why a container got no sandbox, or lost a port.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The id cannot be the name of a file.
    #[error("invalid container id {0:?}")]
    InvalidContainer(String),
    /// It has one.
    #[error("container {0} has a network sandbox already")]
    Attached(String),
    /// All addresses are granted.
    #[error("no available IPv4 addresses on this network's address pools: {network} ({network_id})")]
    NoAddress {
        /// The network's name.
        network: String,
        /// The network's id.
        network_id: String,
    },
    /// There is no namespace for it.
    #[error("failed to create a network namespace for container {container}")]
    Namespace {
        /// The container's id.
        container: String,
        /// The reason.
        source: io::Error,
    },
    /// The driver failed.
    #[error("failed to create endpoint {name} on network {network}")]
    Endpoint {
        /// The container's name.
        name: String,
        /// The network's name.
        network: String,
        /// The reason.
        source: DriverError,
    },
    /// A port could not be published.
    #[error("driver failed programming external connectivity on endpoint {name} ({endpoint_id})")]
    Publish {
        /// The container's name.
        name: String,
        /// The endpoint's id.
        endpoint_id: String,
        /// The reason.
        source: PublishError,
    },
    /// It could not be put on record.
    #[error("could not record the network sandbox of container {container}")]
    Record {
        /// The container's id.
        container: String,
        /// The reason.
        source: StateError,
    },
}

impl AttachError {
    /// What the HTTP edge makes of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidContainer(_)
            | Self::Publish { source: PublishError::Udp | PublishError::NoPort, .. } => ErrorKind::Invalid,
            Self::Attached(_) => ErrorKind::Conflict,
            Self::NoAddress { .. }
            | Self::Namespace { .. }
            | Self::Endpoint { .. }
            | Self::Publish { .. }
            | Self::Record { .. } => ErrorKind::Internal,
        }
    }
}

/// What of a sandbox could not be removed. All that could be is removed.
#[derive(Debug, thiserror::Error)]
#[error("could not remove the network sandbox of container {container}: {}", list(.failures))]
pub struct DetachError {
    /// The container's id.
    pub container: String,
    /// What failed, in the order in which it was tried; at least one.
    pub failures: Vec<DetachFailure>,
}

/// One failure of a removal.
#[derive(Debug, thiserror::Error)]
pub enum DetachFailure {
    /// An endpoint could not be cut off; its address stays granted.
    #[error("endpoint {0}")]
    Endpoint(String, #[source] DriverError),
    /// The namespace is still bound to its file.
    #[error("network namespace {}", .0.display())]
    Namespace(PathBuf, #[source] io::Error),
    /// It could not be taken off the record.
    #[error("record")]
    Record(#[from] StateError),
}

fn list(failures: &[DetachFailure]) -> String {
    failures.iter().map(|failure| chain(failure)).collect::<Vec<_>>().join("; ")
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
