//! Which registries need no TLS, and which stand in for others.

use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use super::RegistryError;

/// Settings of registries, in JSON by dockerd's names for them (`daemon.json`); others than these are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Registries that may be reached without TLS, or with a certificate that nobody vouches for: `host[:port]` as it is in
    /// the images' names, or a network, `10.0.0.0/8`. Those on this computer always may.
    #[serde(rename = "insecure-registries")]
    pub insecure: Vec<String>,
    /// Addresses that serve what Docker Hub has, asked before it.
    #[serde(rename = "registry-mirrors")]
    pub mirrors: Vec<String>,
}

impl Settings {
    /// Those in a file; no file is no settings.
    pub(super) fn read(file: &Path) -> Result<Self, RegistryError> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(RegistryError::Invalid(format!("{}: {error}", file.display()))),
        };
        serde_json::from_str(&text)
            .map_err(|error| RegistryError::Invalid(format!("{}: {error}", file.display())))
    }

    /// Adds others, but for those that are there.
    pub(super) fn add(&mut self, others: Self) {
        let insecure = others.insecure.iter().map(|registry| without_scheme(registry).to_owned());
        add_new(&mut self.insecure, insecure);
        add_new(&mut self.mirrors, others.mirrors);
    }

    /// Whether TLS may be done without.
    pub(super) fn is_insecure(&self, domain: &str) -> bool {
        let host = host_of(domain);
        let address = host.parse::<IpAddr>().ok();
        host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.insecure.iter().any(|known| match (known.split_once('/'), address) {
                (Some((network, bits)), Some(address)) => contains(network, bits, address),
                _ => known == domain,
            })
    }
}

fn add_new(all: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// A registry is named without a scheme, but often written with one, and dockerd takes that.
fn without_scheme(registry: &str) -> &str {
    let rest = registry.strip_prefix("http://").or_else(|| registry.strip_prefix("https://"));
    rest.map_or(registry, |rest| rest.trim_end_matches('/'))
}

/// Whether a registry is on this computer, which no proxy serves.
pub(super) fn is_loopback(domain: &str) -> bool {
    let host = host_of(domain);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host without its port, an IPv6 address without its brackets.
fn host_of(domain: &str) -> &str {
    if let Some(rest) = domain.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match domain.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => domain,
    }
}

fn contains(network: &str, bits: &str, address: IpAddr) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(bits);
            u64::from(network.to_bits()) >> shift == u64::from(address.to_bits()) >> shift
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(bits);
            network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_the_listed_may_do_without_tls() {
        let insecure =
            ["reg.lan:5000", "http://old.lan/", "10.1.0.0/16", "fd00::/8"].map(str::to_owned).to_vec();
        let mut settings = Settings::default();
        settings.add(Settings { insecure, mirrors: Vec::new() });
        for (domain, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.0.1", true),
            ("[::1]:5000", true),
            ("reg.lan:5000", true),
            ("reg.lan:5001", false),
            ("old.lan", true),
            ("old.lan:1", false),
            ("10.1.2.3:5000", true),
            ("10.2.2.3:5000", false),
            ("[fd12::1]:5000", true),
            ("docker.io", false),
        ] {
            assert_eq!(settings.is_insecure(domain), expected, "{domain}");
        }
    }

    #[test]
    fn a_file_has_dockerds_names_and_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.json");
        assert_eq!(Settings::read(&file).unwrap(), Settings::default());
        fs::write(&file, r#"{"registry-mirrors":["https://m"],"debug":true}"#).unwrap();
        let expected = Settings { insecure: Vec::new(), mirrors: vec!["https://m".into()] };
        assert_eq!(Settings::read(&file).unwrap(), expected);
        fs::write(&file, r#"{"registry-mirrors":"https://m"}"#).unwrap();
        assert!(Settings::read(&file).is_err());
    }
}
