//! A network as its users see it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Endpoint;

/// An IPv4 range such as `172.17.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no [`Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range in CIDR form")]
pub struct InvalidSubnet(String);

impl Subnet {
    /// The range of this prefix length that holds `address`; prefix lengths over 32 are taken as 32.
    #[must_use]
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: Ipv4Addr::from_bits(address.to_bits() & Self::mask(prefix)), prefix }
    }

    /// The first address, which names the range.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// The prefix length, 0 to 32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address; for a bridge it is the broadcast address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !Self::mask(self.prefix))
    }

    /// Whether the range holds this address.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::containing(address, self.prefix) == self
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl std::str::FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(invalid)?;
        Ok(Self::containing(address, prefix))
    }
}

impl TryFrom<String> for Subnet {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// Where a network's addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// The whole range.
    pub subnet: Subnet,
    /// The bridge's own address, which is the containers' default route.
    pub gateway: Ipv4Addr,
}

/// A network and who is on it, as `docker network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// 64 hexadecimal digits, the same for the life of the data root.
    pub id: String,
    /// `bridge`, `host` or `none`.
    pub name: String,
    /// The driver's name as Docker knows it: `bridge`, `host` or `null`.
    pub driver: &'static str,
    /// `local`.
    pub scope: &'static str,
    /// When this data root was first used.
    pub created: OffsetDateTime,
    /// None for networks without addresses of their own.
    pub ipam: Option<IpamConfig>,
    /// The driver's options, under Docker's names.
    pub options: BTreeMap<String, String>,
    /// Who is on it, in the order of the container ids.
    pub attachments: Vec<Attachment>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// The container's name when it was attached.
    pub name: String,
    /// Its end on this network.
    pub endpoint: Endpoint,
}
