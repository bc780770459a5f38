//! `host` and `none` (Docker calls its driver `null`): a container that uses the engine's own network, and one that has
//! nothing but a loopback device. There is nothing to make for either.

use std::path::Path;

use caisson_sys::netns::Netns;

use super::{Driver, DriverError, Features, Unfit};
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::Netlink;

/// A driver without devices.
#[derive(Debug)]
pub(super) struct Nothing {
    name: &'static str,
    namespace: bool,
}

pub(super) const HOST: Nothing = Nothing { name: "host", namespace: false };
pub(super) const NONE: Nothing = Nothing { name: "null", namespace: true };

impl Driver for Nothing {
    fn name(&self) -> &'static str {
        self.name
    }

    fn features(&self) -> Features {
        Features { namespace: self.namespace, address: false, routed: false }
    }

    fn check(&self, _: &mut NetworkRecord, _: &[NetworkRecord]) -> Result<(), Unfit> {
        Err(Unfit::Forbidden(format!("only one instance of \"{}\" network is allowed", self.name)))
    }

    fn is_made(&self, _: &NetworkRecord) -> Result<bool, DriverError> {
        Ok(true)
    }

    fn make(&self, _: &NetworkRecord) -> Result<bool, DriverError> {
        Ok(false)
    }

    fn new_device(&self) -> Result<Option<String>, DriverError> {
        Ok(None)
    }

    fn join(
        &self,
        _: &NetworkRecord,
        _: &EndpointRecord,
        _: &Netns,
        _: &mut Netlink,
    ) -> Result<(), DriverError> {
        Ok(())
    }

    fn is_joined(&self, _: &EndpointRecord, _: Option<&Path>) -> Result<bool, DriverError> {
        Ok(true)
    }

    fn isolate(&self, _: &EndpointRecord, _: Option<&Path>) -> Result<(), DriverError> {
        Ok(())
    }

    fn leave(&self, _: &EndpointRecord) -> Result<(), DriverError> {
        Ok(())
    }

    fn dismantle(&self, _: &NetworkRecord, _: &[NetworkRecord]) -> Result<(), DriverError> {
        Ok(())
    }
}
