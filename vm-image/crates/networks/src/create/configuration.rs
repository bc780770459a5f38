//! Configuration networks: networks that are none themselves, and whose ranges, options and labels others take.

use crate::CreateRequest;
use crate::book::{Book, NetworkRecord};
use crate::error::CreateError;

/// Checks that a request that makes a configuration, or uses one, asks for nothing else.
pub(super) fn check(request: &CreateRequest) -> Result<(), CreateError> {
    let forbidden = |message: &str| Err(CreateError::Forbidden(message.into()));
    if request.config_only
        && (request.ingress || request.internal || request.attachable || !request.scope.is_empty())
    {
        return forbidden(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
        );
    }
    if request.config_from.is_none() {
        return Ok(());
    }
    if request.config_only {
        return forbidden("a configuration network cannot depend on another configuration network");
    }
    let ipam = request.ipam.as_ref();
    let asks_for_addresses = ipam.is_some_and(|ipam| {
        !matches!(ipam.driver.as_str(), "" | "default")
            || !ipam.config.is_empty()
            || ipam.options.as_ref().is_some_and(|options| !options.is_empty())
    });
    if asks_for_addresses || request.enable_ipv6 == Some(true) || !request.labels.is_empty() {
        return forbidden(
            "user specified configurations are not supported if the network depends on a configuration network",
        );
    }
    if !request.options.is_empty() {
        return forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        );
    }
    Ok(())
}

impl Book {
    /// Gives a network what the configuration of this name has.
    pub(super) fn take_configuration(
        &self,
        from: &str,
        network: &mut NetworkRecord,
    ) -> Result<(), CreateError> {
        let configuration = self.finished().find(|other| other.config_only && other.name == from);
        let configuration = configuration.ok_or_else(|| CreateError::NoConfiguration(from.to_owned()))?;
        network.ipv4 = configuration.ipv4;
        network.ipv6 = configuration.ipv6;
        network.pools.clone_from(&configuration.pools);
        network.ipam_options.clone_from(&configuration.ipam_options);
        network.options.clone_from(&configuration.options);
        network.labels.clone_from(&configuration.labels);
        Ok(())
    }
}
