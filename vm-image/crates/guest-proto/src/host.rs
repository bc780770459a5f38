//! What the host tells of itself, so that pulls and networks do in the machine as they would on the host.
//!
//! The guest's agent puts each fact into a file of its own, whole, before the engine starts and whenever it is told
//! again; whoever needs one reads the file anew. So nothing in the guest has to be started again for a change.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The most routes in a [`HostFact::Routes`]; a frame holds them.
pub const MAX_ROUTES: usize = 4096;
/// The longest text in a [`HostFact::Authorities`], in bytes; a frame holds it.
pub const MAX_AUTHORITIES: usize = 768 << 10;
/// The longest list in a [`HostFact::RegistryCertificates`], in bytes of its JSON; a frame holds it.
pub const MAX_REGISTRY_CERTIFICATES: usize = 768 << 10;

/// Where the guest finds [`HostFact::Routes`]: an address and prefix length a line, `10.0.0.0/8`.
pub const GUEST_HOST_ROUTES: &str = "/run/caisson/host/routes";
/// Where the guest finds [`HostFact::Proxies`], as variables: `HTTP_PROXY=http://10.0.0.1:3128`, one a line.
pub const GUEST_HOST_PROXIES: &str = "/run/caisson/host/proxies";
/// Where the guest finds [`HostFact::Authorities`].
pub const GUEST_HOST_AUTHORITIES: &str = "/run/caisson/host/authorities.pem";
/// Where the guest finds the variables that every container gets, one a line; there are none unless
/// [`HostProxies::in_containers`].
pub const GUEST_CONTAINER_ENVIRONMENT: &str = "/run/caisson/host/container-environment";
/// Where the guest finds [`HostFact::Registries`], as JSON with dockerd's keys.
pub const GUEST_REGISTRY_SETTINGS: &str = "/run/caisson/host/registries.json";
/// The directory in which the guest finds [`HostFact::RegistryCertificates`], a directory for each registry; for root alone.
pub const GUEST_REGISTRY_CERTIFICATES: &str = "/run/caisson/host/certs.d";

/// Something about the host. Each kind is told once after the welcome, and again, whole, when it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostFact {
    /// Where the host's own routes lead, at most [`MAX_ROUTES`]: networks in the guest keep clear of these ranges, or
    /// containers could not reach what is behind them.
    Routes {
        /// Without default routes and what every computer has (loopback, link-local, multicast).
        routes: Vec<HostRoute>,
    },
    /// The proxies that programs of the host use.
    Proxies(HostProxies),
    /// The certificate authorities that the host trusts.
    Authorities {
        /// Their certificates (RFC 7468), at most [`MAX_AUTHORITIES`] bytes.
        pem: String,
    },
    /// How the host's user wants registries to be reached.
    Registries(HostRegistries),
    /// What registries have of their own: authorities, and certificates to show with their keys.
    RegistryCertificates {
        /// All of them, at most [`MAX_REGISTRY_CERTIFICATES`].
        files: Vec<RegistryFile>,
    },
}

/// A range of addresses that a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostRoute {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits of it count.
    pub prefix: u8,
}

impl fmt::Display for HostRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Proxies as programs take them from their environment. One on the host's own loopback is named
/// `host.docker.internal`, by which the guest reaches it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProxies {
    /// For `http://`: an URL, maybe with a user and a password.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// What is reached without a proxy: names, domains, addresses and ranges with commas between.
    pub no_proxy: Option<String>,
    /// Whether the user wishes containers to have them in their environment.
    pub in_containers: bool,
}

impl HostProxies {
    /// The variables that say so.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https), ("NO_PROXY", &self.no_proxy)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// Settings of registries by the names that dockerd has for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRegistries {
    /// Those that may be reached without TLS: `host[:port]` or networks.
    #[serde(rename = "insecure-registries")]
    pub insecure: Vec<String>,
    /// Addresses that serve what Docker Hub has.
    #[serde(rename = "registry-mirrors")]
    pub mirrors: Vec<String>,
}

impl HostRegistries {
    /// What is in [`GUEST_REGISTRY_SETTINGS`].
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("lists of texts have a JSON form")
    }
}

/// A file of a registry's: `*.crt` to trust, `NAME.cert` to show, `NAME.key` to go with it (RFC 7468).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryFile {
    /// Whose it is: `host[:port]`, without the colon where the host's names cannot have one.
    pub registry: String,
    /// Its name.
    pub name: String,
    /// What is in it. It may be a secret.
    pub text: String,
}

/// Without the text, which no log is to have.
impl fmt::Debug for RegistryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_what_other_versions_expect() {
        let route = HostRoute { address: "10.0.0.0".parse().unwrap(), prefix: 8 };
        let proxies = HostProxies { https: Some("http://p:1".into()), ..HostProxies::default() };
        for (fact, expected) in [
            (
                HostFact::Routes { routes: vec![route] },
                r#"{"type":"routes","routes":[{"address":"10.0.0.0","prefix":8}]}"#,
            ),
            (
                HostFact::Proxies(proxies),
                r#"{"type":"proxies","http":null,"https":"http://p:1","no_proxy":null,"in_containers":false}"#,
            ),
            (HostFact::Authorities { pem: "x".into() }, r#"{"type":"authorities","pem":"x"}"#),
            (
                HostFact::Registries(HostRegistries { insecure: vec!["r:1".into()], mirrors: Vec::new() }),
                r#"{"type":"registries","insecure-registries":["r:1"],"registry-mirrors":[]}"#,
            ),
            (
                HostFact::RegistryCertificates { files: vec![file("x")] },
                r#"{"type":"registry_certificates","files":[{"registry":"r:1","name":"a.key","text":"x"}]}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&fact).unwrap(), expected);
        }
    }

    fn file(text: &str) -> RegistryFile {
        RegistryFile { registry: "r:1".into(), name: "a.key".into(), text: text.into() }
    }

    #[test]
    fn no_log_has_a_key() {
        let fact = HostFact::RegistryCertificates { files: vec![file("secret")] };
        assert_eq!(format!("{fact:?}"), "RegistryCertificates { files: [r:1/a.key] }");
    }

    #[test]
    fn the_longest_facts_fit_into_a_frame() {
        let longest =
            HostRoute { address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(), prefix: 128 };
        let line = format!("{}\n", "A".repeat(64));
        for fact in [
            HostFact::Routes { routes: vec![longest; MAX_ROUTES] },
            HostFact::Authorities { pem: line.repeat(MAX_AUTHORITIES / line.len()) },
            HostFact::RegistryCertificates { files: vec![file(&"A".repeat(MAX_REGISTRY_CERTIFICATES))] },
        ] {
            crate::frame::encode(&crate::ToGuest::Host { fact }).unwrap();
        }
    }
}
