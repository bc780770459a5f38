//! A network as its users see it, and as they ask for one.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::book::NetworkRecord;
use crate::{Endpoint, IpamPool};

/// A network and who is on it, as `docker network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// 64 hexadecimal digits, the same for the life of the data root.
    pub id: String,
    /// Its name; no two have the same.
    pub name: String,
    /// The driver's name as Docker knows it: `bridge`, `host`, `null` and so on.
    pub driver: String,
    /// When it was made; for the built-in ones, when this data root was first used.
    pub created: OffsetDateTime,
    /// Whether endpoints have IPv4 addresses.
    pub ipv4: bool,
    /// Whether endpoints have IPv6 addresses.
    pub ipv6: bool,
    /// No way out leads from it.
    pub internal: bool,
    /// As asked for; it means something to swarms only.
    pub attachable: bool,
    /// A configuration for other networks, and no network itself.
    pub config_only: bool,
    /// The network that this one's configuration was taken from, by name; else empty.
    pub config_from: String,
    /// The ranges, in the order of the request, those that were chosen last.
    pub pools: Vec<IpamPool>,
    /// Options of the address management, as asked for.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// The driver's options, under Docker's names.
    pub options: BTreeMap<String, String>,
    /// What users have written on it.
    pub labels: BTreeMap<String, String>,
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

/// A network that is to be made, as `POST /networks/create` asks for it (Engine API v1.51).
#[derive(Debug, Clone, Default)]
#[expect(
    missing_docs,
    reason = "each field is the one of the same name in the Engine API's NetworkCreateRequest"
)]
pub struct CreateRequest {
    pub name: String,
    pub driver: String,
    pub scope: String,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: Option<String>,
    pub ipam: Option<IpamRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// The addresses of a network that is to be made; texts as the user gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the one of the same name in the Engine API's IPAM")]
pub struct IpamRequest {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Vec<PoolRequest>,
}

/// One range of an [`IpamRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the one of the same name in the Engine API's IPAMConfig")]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

impl NetworkRecord {
    /// Whether every engine has it, so that nobody may remove it.
    #[must_use]
    pub(crate) fn is_built_in(&self) -> bool {
        BUILT_IN.iter().any(|(name, _)| self.name == *name)
    }

    /// Whether it is the one that containers join who name none.
    #[must_use]
    pub(crate) fn is_default_bridge(&self) -> bool {
        self.name == "bridge"
    }
}

impl Network {
    /// Whether every engine has it.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        BUILT_IN.iter().any(|(name, _)| self.name == *name)
    }
}

/// The networks that every engine has, and their drivers.
pub(crate) const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
