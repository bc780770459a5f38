//! `host`: a container without a network of its own. It uses the engine's, so there is nothing to make.

use std::collections::{BTreeMap, BTreeSet};

use caisson_sys::netns::Netns;

use super::{Driver, DriverError, Features};
use crate::IpamConfig;
use crate::book::{EndpointRecord, NetworkRecord};
use crate::netlink::Netlink;

#[derive(Debug)]
pub(super) struct Host;

impl Driver for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn features(&self) -> Features {
        Features { namespace: false, address: false }
    }

    fn options(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn plan(&self, _: &NetworkRecord) -> Result<Option<IpamConfig>, DriverError> {
        Ok(None)
    }

    fn prepare(&self, _: &NetworkRecord, _: bool) -> Result<Option<IpamConfig>, DriverError> {
        Ok(None)
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

    fn is_joined(&self, _: &EndpointRecord) -> Result<bool, DriverError> {
        Ok(true)
    }

    fn isolate(&self, _: &EndpointRecord) -> Result<(), DriverError> {
        Ok(())
    }

    fn leave(&self, _: &EndpointRecord) -> Result<(), DriverError> {
        Ok(())
    }

    fn sweep(&self, _: &NetworkRecord, _: &BTreeSet<&str>) -> Result<(), DriverError> {
        Ok(())
    }

    fn dismantle(&self, _: &NetworkRecord) -> Result<(), DriverError> {
        Ok(())
    }
}
