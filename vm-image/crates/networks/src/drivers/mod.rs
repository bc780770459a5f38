//! The ways to connect a container. A new driver is a file here and an entry in [`Drivers`].

mod bridge;
mod host;
mod none;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use caisson_sys::netns::Netns;

use crate::IpamConfig;
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::{Netlink, NetlinkError};

/// Why a driver could not do its part.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DriverError(#[from] Reason);

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Change(#[from] NetlinkError),
    #[error("could not read the network configuration")]
    Read(#[from] io::Error),
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoRange,
    #[error("the device {0} is gone")]
    Gone(String),
}

impl From<NetlinkError> for DriverError {
    fn from(error: NetlinkError) -> Self {
        Self(error.into())
    }
}

impl From<io::Error> for DriverError {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}

/// What a driver gives a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// A network namespace of its own.
    pub(crate) namespace: bool,
    /// An address that neighbours, and published ports, reach.
    pub(crate) address: bool,
}

/// One way to connect a container. All calls block, for the kernel only.
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    /// Docker's name of it.
    fn name(&self) -> &'static str;

    /// What it gives.
    fn features(&self) -> Features;

    /// Options of a network, under Docker's names.
    fn options(&self) -> BTreeMap<String, String>;

    /// The range that a network would have if it were made now; what it has, if it is made already.
    fn plan(&self, network: &NetworkRecord) -> Result<Option<IpamConfig>, DriverError>;

    /// Makes what all endpoints of a network share, unless it is there, and says which range it has. `in_use` says that
    /// endpoints with addresses exist, so that the range cannot move.
    fn prepare(&self, network: &NetworkRecord, in_use: bool) -> Result<Option<IpamConfig>, DriverError>;

    /// A free name for the device of a new endpoint, for drivers with one.
    fn new_device(&self) -> Result<Option<String>, DriverError>;

    /// Connects a namespace; `inside` is a socket in it. On failure [`isolate`](Self::isolate) and
    /// [`leave`](Self::leave) remove what is there.
    fn join(
        &self,
        network: &NetworkRecord,
        record: &EndpointRecord,
        netns: &Netns,
        inside: &mut Netlink,
    ) -> Result<(), DriverError>;

    /// Whether the endpoint is still connected.
    fn is_joined(&self, record: &EndpointRecord) -> Result<bool, DriverError>;

    /// Cuts an endpoint off, at once and for good: its address may be granted again.
    fn isolate(&self, record: &EndpointRecord) -> Result<(), DriverError>;

    /// Removes what is left of an isolated endpoint. May take long.
    fn leave(&self, record: &EndpointRecord) -> Result<(), DriverError>;

    /// Removes the endpoints of a network that are not in `keep` (names of devices).
    fn sweep(&self, network: &NetworkRecord, keep: &BTreeSet<&str>) -> Result<(), DriverError>;

    /// Removes what [`prepare`](Self::prepare) made.
    fn dismantle(&self, network: &NetworkRecord) -> Result<(), DriverError>;
}

/// The drivers there are.
#[derive(Debug)]
pub(crate) struct Drivers([Box<dyn Driver>; 3]);

impl Default for Drivers {
    fn default() -> Self {
        Self([Box::<bridge::Bridge>::default(), Box::new(host::Host), Box::new(none::None)])
    }
}

impl Drivers {
    /// The driver of a network on record.
    pub(crate) fn of(&self, network: &NetworkRecord) -> &dyn Driver {
        let found = self.0.iter().find(|driver| driver.name() == network.driver);
        found.expect("only networks of these drivers are on record").as_ref()
    }
}
