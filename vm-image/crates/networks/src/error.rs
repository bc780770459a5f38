//! What can go wrong with a sandbox, in dockerd's words where it has them.
//!
//! Each error says its own level only; an error with its sources, joined by `: `, is the message that `docker run`
//! prints after `failed to set up container networking: `.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::drivers::DriverError;
use crate::files::StateError;
use crate::firewall::FirewallError;
use crate::ports::PublishError;

/// What the HTTP edge needs to know of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such network.
    NotFound,
    /// The request can never work.
    Invalid,
    /// Something of this kind is there already.
    Conflict,
    /// It is not to be done, whoever asks.
    Forbidden,
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
    /// The devices of sandboxes that are gone cannot be looked for.
    #[error("could not remove the devices of sandboxes that are gone")]
    Devices(#[source] DriverError),
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
    /// It has none.
    #[error("container {0} has no network sandbox of its own")]
    NotAttached(String),
    /// It is on this network already.
    #[error("endpoint with name {name} already exists in network {network}")]
    Joined {
        /// The container's name.
        name: String,
        /// The network's name.
        network: String,
    },
    /// One of its networks is not there.
    #[error(transparent)]
    NoNetwork(#[from] NoSuchNetwork),
    /// One of its networks is none.
    #[error("cannot create endpoint on configuration-only network {0}")]
    ConfigOnly(String),
    /// All addresses are granted.
    #[error("no available {family} addresses on this network's address pools: {network} ({network_id})")]
    NoAddress {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The network's name.
        network: String,
        /// The network's id.
        network_id: String,
    },
    /// Somebody has the address that was asked for.
    #[error("Address already in use")]
    AddressTaken,
    /// The network has no range with the address that was asked for.
    #[error("no configured subnet or ip-range contain the IP address {0}")]
    OutsideOfRange(IpAddr),
    /// The default bridge has no range left.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoRange,
    /// There is no namespace for it.
    #[error("failed to create a network namespace for container {container}")]
    Namespace {
        /// The container's id.
        container: String,
        /// The reason.
        source: io::Error,
    },
    /// Its networks could not be set apart from others.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Its names cannot be answered.
    #[error("failed to start the name server of container {container}")]
    Resolver {
        /// The container's id.
        container: String,
        /// The reason.
        source: io::Error,
    },
    /// Its device cannot be as asked.
    #[error(transparent)]
    Interface(DriverError),
    /// What was asked for as a link-local address is none.
    #[error("invalid link local IP address: {0}")]
    NotLinkLocal(IpAddr),
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
            Self::NoNetwork(error) => error.kind(),
            Self::InvalidContainer(_)
            | Self::OutsideOfRange(_)
            | Self::NotLinkLocal(_)
            | Self::Publish { source: PublishError::NoPort, .. } => ErrorKind::Invalid,
            Self::Attached(_) | Self::NotAttached(_) => ErrorKind::Conflict,
            Self::Joined { .. } | Self::AddressTaken | Self::ConfigOnly(_) => ErrorKind::Forbidden,
            Self::NoAddress { .. }
            | Self::NoRange
            | Self::Namespace { .. }
            | Self::Resolver { .. }
            | Self::Firewall(_)
            | Self::Interface(_)
            | Self::Endpoint { .. }
            | Self::Publish { .. }
            | Self::Record { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a network was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// What is asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It does, but not here.
    #[error("{0}")]
    Forbidden(String),
    /// dockerd answers some mistakes as if they were its own.
    #[error("{0}")]
    Refused(String),
    /// Another network has this name.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// There is no such driver.
    #[error("plugin {0:?} not found")]
    NoPlugin(String),
    /// There is no such configuration.
    #[error("configuration network {0:?} does not exist")]
    NoConfiguration(String),
    /// Another network has some of these addresses.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// All ranges of the default pools are in use.
    #[error("all predefined address pools have been fully subnetted")]
    NoRange(&'static str),
    /// The driver failed.
    #[error(transparent)]
    Driver(DriverError),
    /// It could not be set apart from others.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// It could not be put on record.
    #[error("could not record the network")]
    Record(#[from] StateError),
    /// Somebody removed it in the same moment.
    #[error(transparent)]
    Gone(#[from] NoSuchNetwork),
}

impl CreateError {
    /// What the HTTP edge makes of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::NoRange(_) => ErrorKind::Invalid,
            Self::Forbidden(_) | Self::Overlap => ErrorKind::Forbidden,
            Self::NameTaken(_) => ErrorKind::Conflict,
            Self::NoPlugin(_) | Self::NoConfiguration(_) => ErrorKind::NotFound,
            Self::Gone(error) => error.kind(),
            Self::Refused(_) | Self::Driver(_) | Self::Firewall(_) | Self::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Why a network was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error(transparent)]
    NoNetwork(#[from] NoSuchNetwork),
    /// Every engine has it.
    #[error("{0} is a pre-defined network and cannot be removed")]
    BuiltIn(String),
    /// Another network's configuration was taken from it.
    #[error("configuration network {0:?} is in use")]
    Configures(String),
    /// Somebody is on it.
    #[error("error while removing network: network {network} has active endpoints ({endpoints})")]
    InUse {
        /// The network's name.
        network: String,
        /// Who is on it.
        endpoints: String,
    },
    /// The driver failed.
    #[error("error while removing network")]
    Driver(#[source] DriverError),
    /// It could not be taken off the record.
    #[error("error while removing network")]
    Record(#[from] StateError),
}

impl RemoveError {
    /// What the HTTP edge makes of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoNetwork(error) => error.kind(),
            Self::BuiltIn(_) | Self::Configures(_) | Self::InUse { .. } => ErrorKind::Forbidden,
            Self::Driver(_) | Self::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Why a container was not taken off a network.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectError {
    /// It is not on it.
    #[error("container {container} is not connected to network {network}")]
    NotJoined {
        /// The container's id.
        container: String,
        /// The network.
        network: String,
    },
    /// The driver failed.
    #[error("could not cut the container off")]
    Driver(#[source] DriverError),
    /// It could not be recorded.
    #[error("could not record the change")]
    Record(#[from] StateError),
}

/// Errors in one text, as dockerd joins them: a list only if there are more than one.
pub(crate) fn join(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => many.iter().map(|error| format!("* {error}")).collect::<Vec<_>>().join("\n"),
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
