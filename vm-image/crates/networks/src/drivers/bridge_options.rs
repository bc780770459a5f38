//! What can be asked of a bridge: dockerd's driver options, under its names. As dockerd, we keep and show those that neither
//! knows, and they do nothing.

use std::net::IpAddr;

use super::options::{DEFAULT_MTU, boolean, mtu, unreadable};
use super::overlay::OVERLAY;
use super::{DriverError, Reason, Unfit};
use crate::book::NetworkRecord;

pub(super) const NAME: &str = "com.docker.network.bridge.name";
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
pub(super) const IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const SOURCES: [&str; 2] = ["com.docker.network.host_ipv4", "com.docker.network.host_ipv6"];
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

/// Ethernet's, less what a VXLAN takes, as dockerd's.
const OVERLAY_MTU: u32 = 1450;

/// How packets pass between a bridge's containers and the rest of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayMode {
    /// Out under this system's address; in through published ports.
    Nat,
    /// The same, and to any port of a container's own address.
    NatUnprotected,
    /// Out and in under the container's own address: in to the ports that are published, which are none of this system's.
    Routed,
    /// Not at all, and this system has no address on the bridge.
    Isolated,
}

/// What is asked of a bridge beyond its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeOptions {
    /// Whether containers on it reach each other.
    pub(crate) icc: bool,
    /// Whether what leaves it gets this system's address.
    pub(crate) masquerade: bool,
    /// Where ports are published that name no address.
    pub(crate) host_binding: Option<IpAddr>,
    /// For IPv4 and for IPv6.
    pub(crate) modes: [GatewayMode; 2],
    /// The addresses, of both families, that what leaves gets instead of that of the device by which it leaves.
    pub(crate) sources: [Option<IpAddr>; 2],
    /// Devices by which published ports of containers may be reached under the containers' own addresses.
    pub(crate) trusted: Vec<String>,
    /// Whether this system has no IPv4 address on the bridge, so that its gateway is somebody else.
    pub(super) inhibit_ipv4: bool,
    /// The size of the largest packet, in bytes.
    pub(super) mtu: u32,
}

impl BridgeOptions {
    /// Reads a network's options.
    pub(crate) fn of(network: &NetworkRecord) -> Result<Self, Unfit> {
        let options = &network.options;
        let address = |name: &str| match options.get(name).map(|text| (text, text.parse::<IpAddr>())) {
            None => Ok(None),
            Some((_, Ok(address))) => Ok(Some(address)),
            Some((text, Err(_))) => Err(unreadable(name, text, "nil ip")),
        };
        let mode = |name: &str| match options.get(name).map(String::as_str) {
            None | Some("nat") => Ok(GatewayMode::Nat),
            Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
            Some("routed") => Ok(GatewayMode::Routed),
            Some("isolated") => Ok(GatewayMode::Isolated),
            Some(other) => Err(unreadable(name, other, &format!("unknown gateway mode {other}"))),
        };
        let trusted = options.get(TRUSTED).map(|list| list.split(':').filter(|name| !name.is_empty()));
        Ok(Self {
            icc: boolean(options, ICC)?.unwrap_or(true),
            masquerade: boolean(options, MASQUERADE)?.unwrap_or(true),
            host_binding: address(HOST_BINDING)?.filter(|address| !address.is_unspecified()),
            modes: [mode(GATEWAY_MODES[0])?, mode(GATEWAY_MODES[1])?],
            sources: [address(SOURCES[0])?, address(SOURCES[1])?],
            trusted: trusted.into_iter().flatten().map(str::to_owned).collect(),
            inhibit_ipv4: boolean(options, INHIBIT_IPV4)?.unwrap_or(false),
            mtu: mtu(options)?.unwrap_or(if network.driver == OVERLAY { OVERLAY_MTU } else { DEFAULT_MTU }),
        })
    }

    /// Of a network on record, whose options were read when it was made.
    pub(super) fn of_record(network: &NetworkRecord) -> Result<Self, DriverError> {
        Self::of(network).map_err(|unfit| Reason::Refused(unfit.to_string()).into())
    }

    /// Whether this system has no IPv4 address on the bridge, so that its gateway is somebody else.
    pub(crate) fn inhibits_ipv4(&self) -> bool {
        self.inhibit_ipv4
    }

    /// How packets of this family pass.
    pub(crate) fn mode(&self, ipv4: bool) -> GatewayMode {
        self.modes[usize::from(!ipv4)]
    }

    /// What becomes the source of what leaves, where it is not the leaving device's address.
    pub(crate) fn source(&self, ipv4: bool) -> Option<IpAddr> {
        self.sources[usize::from(!ipv4)].filter(|address| address.is_ipv4() == ipv4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> NetworkRecord {
        NetworkRecord {
            options: [(name.to_owned(), value.to_owned())].into(),
            ..NetworkRecord::new("n", "bridge")
        }
    }

    #[test]
    fn options_are_read_and_mistakes_get_dockerds_words() {
        let read = |name: &str, value: &str| BridgeOptions::of(&with(name, value));
        assert_eq!(read(GATEWAY_MODES[1], "routed").unwrap().mode(false), GatewayMode::Routed);
        assert_eq!(read(GATEWAY_MODES[1], "routed").unwrap().mode(true), GatewayMode::Nat);
        assert_eq!(read(TRUSTED, "a:b").unwrap().trusted, ["a", "b"]);
        assert_eq!(read(SOURCES[0], "10.9.9.9").unwrap().source(true), "10.9.9.9".parse().ok());
        assert_eq!(read("com.example.unknown", "x").unwrap(), BridgeOptions::of(&with("", "")).unwrap());
        for (name, value, why) in [
            (GATEWAY_MODES[0], "foo", "unknown gateway mode foo"),
            (SOURCES[0], "zz", "nil ip"),
            (INHIBIT_IPV4, "x", "strconv.ParseBool: parsing \"x\": invalid syntax"),
        ] {
            let expected = format!("failed to parse {name} value: {value} ({why})");
            assert_eq!(read(name, value).unwrap_err().to_string(), expected);
        }
    }
}
