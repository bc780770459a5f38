//! The ways to connect a container. A new driver is a file here and an entry in [`Drivers`].

mod bridge;
mod bridge_options;
mod interface;
mod nothing;
mod options;
mod overlay;
mod sublink;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use caisson_sys::netns::Netns;

pub(crate) use bridge_options::{BridgeOptions, GatewayMode};
pub(crate) use overlay::{VXLAN_PORT, vni};

use crate::DefaultPool;
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::{Netlink, NetlinkError};

/// Why a driver could not do its part.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DriverError(#[from] Reason);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error(transparent)]
    Change(#[from] NetlinkError),
    #[error("could not read the network configuration")]
    Read(#[from] io::Error),
    #[error("the device {0} is gone")]
    Gone(String),
    /// dockerd's words for what it cannot do.
    #[error("{0}")]
    Refused(String),
    /// The container's device cannot be as it is asked for, in dockerd's words.
    #[error("failed to add interface {device} to sandbox: {why}")]
    Interface { device: String, why: String },
}

impl DriverError {
    /// Whether it is one of the container's device, whose words say so.
    pub(crate) fn is_of_interface(&self) -> bool {
        matches!(self.0, Reason::Interface { .. })
    }
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

/// Why a driver cannot have a network like this, in dockerd's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The options make no sense.
    #[error("{0}")]
    Invalid(String),
    /// They do, but not with this driver.
    #[error("{0}")]
    Forbidden(String),
    /// dockerd answers some mistakes as if they were its own.
    #[error("{0}")]
    Internal(String),
}

/// What a driver gives a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// A network namespace of its own.
    pub(crate) namespace: bool,
    /// An address that neighbours reach.
    pub(crate) address: bool,
    /// Whether this system is the way out: then it has the gateway's address, and published ports lead in.
    pub(crate) routed: bool,
}

/// One way to connect a container. All calls block, for the kernel only.
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    /// Docker's name of it.
    fn name(&self) -> &'static str;

    /// What it gives.
    fn features(&self) -> Features;

    /// Whether it can have this network beside those that there are. May complete its options.
    fn check(&self, network: &mut NetworkRecord, others: &[NetworkRecord]) -> Result<(), Unfit>;

    /// Where its networks that name no IPv4 range get theirs from, if not from where all do.
    fn default_pool(&self) -> Option<DefaultPool> {
        None
    }

    /// Options of a network, under Docker's names, with those that the driver adds.
    fn options(&self, network: &NetworkRecord) -> BTreeMap<String, String> {
        network.options.clone()
    }

    /// Whether everything that leaves by an endpoint is sent straight to its device, for want of a gateway.
    fn is_straight(&self, _: &NetworkRecord) -> bool {
        false
    }

    /// Whether a range of the network of which nothing else was asked has a gateway, by its family.
    fn has_gateway(&self, _: &NetworkRecord, _ipv4: bool) -> bool {
        true
    }

    /// How the names of containers' devices begin that have none of their own, if not like those of other networks.
    fn interface_prefix<'a>(&self, _: &'a NetworkRecord) -> Option<&'a str> {
        None
    }

    /// Whether what all endpoints of a network share is there.
    fn is_made(&self, network: &NetworkRecord) -> Result<bool, DriverError>;

    /// Makes what all endpoints of a network share, unless it is there. Whether its rules are to be written, and it is to be
    /// [opened](Self::open) then: it is new to this process, or was not opened yet.
    fn make(&self, network: &NetworkRecord) -> Result<bool, DriverError>;

    /// Opens what a network that is made has for other systems to come in by, behind the rules that guard it.
    fn open(&self, _: &NetworkRecord) -> Result<(), DriverError> {
        Ok(())
    }

    /// The device of this system that has the network's own address, once it is made.
    fn device(&self, _: &NetworkRecord) -> Option<String> {
        None
    }

    /// The same of a network that is not made yet: the device that an engine before this one has left.
    fn left_device(&self, _: &NetworkRecord) -> Result<Option<String>, DriverError> {
        Ok(None)
    }

    /// A free name for the device of a new endpoint on this system, for drivers with one.
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
    fn is_joined(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<bool, DriverError>;

    /// Cuts an endpoint off, at once and for good: its address may be granted again.
    fn isolate(&self, record: &EndpointRecord, netns: Option<&Path>) -> Result<(), DriverError>;

    /// Removes what is left of an isolated endpoint. May take long.
    fn leave(&self, record: &EndpointRecord) -> Result<(), DriverError>;

    /// Removes what [`make`](Self::make) made, but for what `others` need, too.
    fn dismantle(&self, network: &NetworkRecord, others: &[NetworkRecord]) -> Result<(), DriverError>;
}

/// The drivers there are.
#[derive(Debug)]
pub(crate) struct Drivers([Box<dyn Driver>; 6]);

impl Drivers {
    /// All of them. `in_machine` tells whether this system is a machine on somebody's computer.
    pub(crate) fn new(in_machine: bool) -> Self {
        Self([
            Box::new(bridge::Bridge::new()),
            Box::new(overlay::Overlay::new()),
            Box::new(nothing::HOST),
            Box::new(nothing::NONE),
            Box::new(sublink::MACVLAN.in_machine(in_machine)),
            Box::new(sublink::IPVLAN.in_machine(in_machine)),
        ])
    }
}

impl Drivers {
    /// The driver of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&dyn Driver> {
        self.0.iter().find(|driver| driver.name() == name).map(|driver| &**driver)
    }

    /// The driver of a network on record.
    pub(crate) fn of(&self, network: &NetworkRecord) -> &dyn Driver {
        self.find(&network.driver).expect("only networks of these drivers are on record")
    }
}

/// Removes the devices of these networks' sandboxes that are gone: those that are not in `keep`. Devices of others,
/// which may be another engine's, are left alone. VXLANs go, too: they are made again with their networks, and with the
/// rules that guard them.
pub(crate) fn sweep(networks: &[NetworkRecord], keep: &dyn Fn(&str) -> bool) -> Result<(), DriverError> {
    let mut netlink = Netlink::open()?;
    for link in crate::netlink::links(&mut netlink)? {
        let Some(network) = link.alias.as_deref().and_then(|alias| alias.strip_prefix(MARK)) else {
            continue;
        };
        let is_swept = matches!(link.kind.as_deref(), Some("veth" | "vxlan"));
        let ours = is_swept && networks.iter().any(|known| known.id == network);
        if ours && !keep(&link.name) {
            crate::netlink::delete_link(&mut netlink, &link.name)?;
        }
    }
    Ok(())
}

/// What is written on the devices of a network begins so; its id follows.
const MARK: &str = "caisson:";

/// What is written on the devices of a network.
fn mark(network: &NetworkRecord) -> String {
    format!("{MARK}{}", network.id)
}
