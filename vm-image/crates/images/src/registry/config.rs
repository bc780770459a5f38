//! What the engine is told of registries.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use super::{Proxies, RegistryError};

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// A directory with `<host>[:port]/` for registries with certificates of their own: `*.crt` to trust, and
    /// `<name>.cert` with `<name>.key` to show (dockerd's `/etc/docker/certs.d`).
    pub certificates: Option<PathBuf>,
    /// Registries that may be reached without TLS, or with a certificate that nobody vouches for: `host[:port]` as it is in
    /// the images' names, or a network, `10.0.0.0/8`. Those on this computer always may.
    pub insecure: Vec<String>,
    /// Addresses that serve what Docker Hub has, asked before it.
    pub mirrors: Vec<String>,
    /// A file with certificates of authorities to trust besides this system's. Read anew for each client; there may be
    /// none.
    pub authorities: Option<PathBuf>,
    /// A file with the proxies, as variables, read anew for each client. `None` are those of the environment.
    pub proxies: Option<PathBuf>,
    /// How much goes on at once.
    pub at_once: AtOnce,
}

/// How many layers are on their way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    /// Down, of all pulls together.
    pub downloads: NonZeroU16,
    /// Up, of each push.
    pub uploads: NonZeroU16,
}

/// As in dockerd.
impl Default for AtOnce {
    fn default() -> Self {
        let number = |number| NonZeroU16::new(number).expect("it is not zero");
        Self { downloads: number(3), uploads: number(5) }
    }
}

impl RegistryConfig {
    /// The proxies between this engine and registries.
    pub fn proxies(&self) -> Result<Proxies, RegistryError> {
        self.proxies.as_deref().map_or_else(|| Ok(Proxies::of_environment()), Proxies::read)
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
        let insecure = ["reg.lan:5000", "old.lan", "10.1.0.0/16", "fd00::/8"].map(str::to_owned).to_vec();
        let config = RegistryConfig { insecure, ..RegistryConfig::default() };
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
            assert_eq!(config.is_insecure(domain), expected, "{domain}");
        }
    }
}
