//! Which address a container gets, and which ranges a network.
//!
//! There is no list of granted addresses: the granted ones are those in the sandbox records. So none can be lost, or
//! be granted twice, by a crash between two files. Likewise the ranges in use are those of the networks on record and
//! those that some route of this system, or of the machine's host, leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::Subnet;
use crate::subnet::bits;

/// Where networks that name no range get theirs from (`--default-address-pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPool {
    /// All of it.
    pub base: Subnet,
    /// The prefix length of what one network gets.
    pub size: u8,
}

/// Why a text is no [`DefaultPool`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid default address pool {0:?}: it is written base=<range>,size=<prefix length>")]
pub struct InvalidPool(String);

impl std::str::FromStr for DefaultPool {
    type Err = InvalidPool;

    /// Reads dockerd's `base=10.10.0.0/16,size=24`.
    fn from_str(text: &str) -> Result<Self, InvalidPool> {
        let invalid = || InvalidPool(text.to_owned());
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.split_once('=').ok_or_else(invalid)? {
                ("base", range) => base = range.parse::<Subnet>().ok(),
                ("size", prefix) => size = prefix.parse::<u8>().ok(),
                _ => return Err(invalid()),
            }
        }
        let (base, size) = base.zip(size).ok_or_else(invalid)?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        if size < base.prefix() || size > longest {
            return Err(invalid());
        }
        Ok(Self { base, size })
    }
}

impl DefaultPool {
    /// Docker's: sixteen /16, of which the default bridge prefers the first, then /20; IPv6 from the engine's own
    /// unique local range (RFC 4193).
    pub(crate) fn dockers(ula: Subnet) -> Vec<Self> {
        let wide = (17..=31).map(|second| Subnet::containing(Ipv4Addr::new(172, second, 0, 0), 16));
        let mut pools: Vec<Self> = wide.map(|base| Self { base, size: 16 }).collect();
        pools.push(Self { base: Subnet::containing(Ipv4Addr::new(192, 168, 0, 0), 16), size: 20 });
        pools.push(Self { base: ula, size: 64 });
        pools
    }

    fn ranges(self) -> impl Iterator<Item = Subnet> {
        let last = self.base.last();
        let mut next = Some(Subnet::containing(self.base.base(), self.size));
        std::iter::from_fn(move || {
            let range = next?;
            next = match range.last() {
                end if end == last => None,
                end => range_after(end, range.prefix()),
            };
            Some(range)
        })
    }
}

fn range_after(end: IpAddr, prefix: u8) -> Option<Subnet> {
    let next = match end {
        IpAddr::V4(end) => IpAddr::V4(Ipv4Addr::from_bits(end.to_bits().checked_add(1)?)),
        IpAddr::V6(end) => IpAddr::V6(Ipv6Addr::from_bits(end.to_bits().checked_add(1)?)),
    };
    Some(Subnet::containing(next, prefix))
}

/// A unique local range (RFC 4193) that nobody else is likely to have.
pub(crate) fn new_ula() -> Subnet {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&rand::random::<[u8; 5]>());
    Subnet::containing(Ipv6Addr::from(octets), 48)
}

/// The ranges in a file, one a line. A file that is not there has none, and a line that is no range is passed over.
pub(crate) fn read_ranges(file: &Path) -> Vec<Subnet> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!(file = %file.display(), %error, "cannot read which ranges to avoid");
            return Vec::new();
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let read = lines.filter_map(|line| {
        line.parse::<Subnet>()
            .inspect_err(|error| warn!(file = %file.display(), %error, "no range to avoid"))
            .ok()
    });
    read.collect()
}

/// A range of a network, with what is settled about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    /// The whole range.
    pub subnet: Subnet,
    /// The part of it that containers get addresses from by themselves.
    pub range: Option<Subnet>,
    /// The network's own address in it, which is the containers' way out; `None` if it has none.
    pub gateway: Option<IpAddr>,
    /// Whether the range was asked for; only then may containers ask for addresses of it.
    pub asked: bool,
    /// Whether the gateway is told to those who ask: dockerd keeps quiet of one that it chose for a range that was
    /// asked for.
    pub tells_gateway: bool,
    /// Addresses that containers do not get by themselves, by the names that the user has for them.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl IpamPool {
    /// A range of which nothing is asked: its first address is the gateway's.
    pub(crate) fn of(subnet: Subnet) -> Self {
        let gateway = Some(first_address(subnet));
        Self { subnet, range: None, gateway, asked: false, tells_gateway: true, auxiliary: BTreeMap::new() }
    }

    /// The lowest address that a container may have and that is not taken, as dockerd grants them.
    pub(crate) fn next_free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let range = self.range.unwrap_or(self.subnet);
        let mut offset = 0;
        loop {
            let address = range.at(offset)?;
            if self.is_grantable(address) && !taken.contains(&address) {
                return Some(address);
            }
            offset += 1;
        }
    }

    /// Whether a container may ask for this address. As dockerd has it, what is reserved is in use: the ends of the range,
    /// the gateway, and what the user keeps back.
    pub(crate) fn may_be_asked_for(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && self.is_grantable(address)
    }

    fn is_grantable(&self, address: IpAddr) -> bool {
        let reserved = has_reserved_ends(self.subnet)
            && (address == self.subnet.base() || (address.is_ipv4() && address == self.subnet.last()));
        !reserved && Some(address) != self.gateway && !self.auxiliary.values().any(|a| *a == address)
    }
}

/// The first address of a range that a device may have.
pub(crate) fn first_address(subnet: Subnet) -> IpAddr {
    let first = if has_reserved_ends(subnet) { 1 } else { 0 };
    subnet.at(first).unwrap_or(subnet.base())
}

/// Ranges of one or two addresses have none to spare (RFC 3021, RFC 6164).
fn has_reserved_ends(subnet: Subnet) -> bool {
    subnet.prefix() < if subnet.is_ipv4() { 31 } else { 127 }
}

/// A range of one family that overlaps none of `used`: `preferred` if possible, else the first of the pools that is free.
pub(crate) fn choose_range(
    ipv4: bool,
    preferred: Option<Subnet>,
    pools: &[DefaultPool],
    used: &[Subnet],
) -> Option<Subnet> {
    let used: BTreeSet<Subnet> = used.iter().copied().filter(|range| range.is_ipv4() == ipv4).collect();
    let free = |range: &Subnet| !used.iter().any(|other| other.overlaps(*range));
    if let Some(preferred) = preferred.filter(|range| range.is_ipv4() == ipv4 && free(range)) {
        return Some(preferred);
    }
    pools.iter().filter(|pool| pool.base.is_ipv4() == ipv4).find_map(|pool| first_free(*pool, &used))
}

/// The first free range of a pool. What is in use is leapt over, not walked through: an IPv6 pool has 65536 ranges, and
/// one route may cover them all.
fn first_free(pool: DefaultPool, used: &BTreeSet<Subnet>) -> Option<Subnet> {
    if used.iter().any(|other| other.contains(pool.base.base()) && other.contains(pool.base.last())) {
        return None;
    }
    let mut ranges = pool.ranges();
    let mut beyond = None;
    ranges.find(|range| {
        if beyond.is_some_and(|beyond| bits(range.base()) <= beyond) {
            return false;
        }
        match used.iter().find(|other| other.overlaps(*range)) {
            Some(other) => {
                beyond = Some(bits(other.last()));
                false
            }
            None => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pools() -> Vec<DefaultPool> {
        DefaultPool::dockers("fd12:3456:789a::/48".parse().unwrap())
    }

    fn chosen(ipv4: bool, used: &[&str]) -> Option<String> {
        let used: Vec<Subnet> = used.iter().map(|r| r.parse().unwrap()).collect();
        choose_range(ipv4, None, &pools(), &used).map(|range| range.to_string())
    }

    #[test]
    fn the_bridge_gets_the_range_that_users_know() {
        let range = choose_range(true, None, &pools(), &["10.0.0.0/8".parse().unwrap()]).unwrap();
        assert_eq!(range.to_string(), "172.17.0.0/16");
        assert_eq!(IpamPool::of(range).gateway.unwrap().to_string(), "172.17.0.1");
    }

    #[test]
    fn a_route_of_the_system_moves_it() {
        assert_eq!(chosen(true, &["172.17.5.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(chosen(true, &["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(chosen(true, &["172.16.0.0/12", "192.168.1.0/24"]).unwrap(), "192.168.16.0/20");
        assert_eq!(chosen(true, &["172.16.0.0/12", "192.168.0.0/16"]), None);
        assert_eq!(chosen(false, &["172.16.0.0/12"]).unwrap(), "fd12:3456:789a::/64");
        assert_eq!(chosen(false, &["fd12:3456:789a::/63"]).unwrap(), "fd12:3456:789a:2::/64");
        assert_eq!(chosen(false, &["fd00::/8"]), None);
    }

    #[test]
    fn the_last_range_of_all_is_the_end() {
        let pool: DefaultPool = "base=255.255.254.0/23,size=24".parse().unwrap();
        let ranges: Vec<String> = pool.ranges().map(|range| range.to_string()).collect();
        assert_eq!(ranges, ["255.255.254.0/24", "255.255.255.0/24"]);
        for bad in ["", "base=10.0.0.0/8", "base=10.0.0.0/8,size=4", "base=10.0.0.0/8,size=33", "size=24"] {
            assert!(bad.parse::<DefaultPool>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_small_range_is_granted_to_its_end_and_no_further() {
        for (subnet, expected) in [
            ("10.1.2.0/29", vec!["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]),
            ("10.1.2.0/31", vec!["10.1.2.1"]),
            ("10.1.2.0/32", vec![]),
            ("fd00::/126", vec!["fd00::2", "fd00::3"]),
        ] {
            let pool = IpamPool::of(subnet.parse().unwrap());
            let mut taken = BTreeSet::new();
            while let Some(address) = pool.next_free(&taken) {
                assert!(taken.insert(address));
            }
            assert_eq!(taken.iter().map(IpAddr::to_string).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_the_user_keeps_back_is_not_granted() {
        let pool = IpamPool {
            range: Some("10.20.5.0/30".parse().unwrap()),
            gateway: Some("10.20.5.2".parse().unwrap()),
            auxiliary: BTreeMap::from([("h".to_owned(), "10.20.5.1".parse().unwrap())]),
            ..IpamPool::of("10.20.0.0/16".parse().unwrap())
        };
        let mut taken = BTreeSet::new();
        while let Some(address) = pool.next_free(&taken) {
            taken.insert(address);
        }
        // The ends of a part are addresses like any other.
        assert_eq!(taken.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.20.5.0", "10.20.5.3"]);
    }

    #[test]
    fn what_is_reserved_is_not_granted_to_those_who_ask_for_it() {
        let pool = IpamPool {
            auxiliary: BTreeMap::from([("h".to_owned(), "10.1.2.5".parse().unwrap())]),
            ..IpamPool::of("10.1.2.0/29".parse().unwrap())
        };
        let may = |address: &str| pool.may_be_asked_for(address.parse().unwrap());
        for reserved in ["10.1.2.0", "10.1.2.1", "10.1.2.5", "10.1.2.7", "10.1.2.8"] {
            assert!(!may(reserved), "{reserved}");
        }
        assert!(may("10.1.2.2") && may("10.1.2.6"));
        let pair = IpamPool::of("10.1.2.0/31".parse().unwrap());
        assert!(pair.may_be_asked_for("10.1.2.1".parse().unwrap()), "a range of two has no ends to spare");
    }

    proptest! {
        #[test]
        fn nothing_is_granted_twice_or_lost_whatever_the_order(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
            prefix in 24u8..=30,
        ) {
            let pool = IpamPool::of(format!("10.9.8.0/{prefix}").parse().unwrap());
            let capacity = (1usize << (32 - prefix)) - 3;
            let mut taken = BTreeSet::new();
            for (grant, which) in steps {
                if grant {
                    match pool.next_free(&taken) {
                        Some(address) => {
                            prop_assert!(taken.insert(address), "{address} granted twice");
                            prop_assert!(pool.subnet.contains(address));
                            prop_assert!(Some(address) != pool.gateway && address != pool.subnet.last());
                            let below = taken.range(..address).count() as u128;
                            prop_assert_eq!(bits(address), bits(pool.gateway.unwrap()) + 1 + below, "not the lowest");
                        }
                        None => prop_assert_eq!(taken.len(), capacity),
                    }
                } else if !taken.is_empty() {
                    let address = *which.get(&taken.iter().copied().collect::<Vec<_>>());
                    taken.remove(&address);
                }
            }
        }

        #[test]
        fn chosen_ranges_never_overlap_what_is_in_use(
            routes in prop::collection::vec((any::<u32>(), 8u8..=30), 0..8),
            networks in 1usize..40,
        ) {
            let mut used: Vec<Subnet> =
                routes.into_iter().map(|(a, p)| Subnet::containing(Ipv4Addr::from(a), p)).collect();
            for n in 0..networks {
                let Some(range) = choose_range(n % 2 == 0, None, &pools(), &used) else { continue };
                prop_assert!(!used.iter().any(|other| other.overlaps(range)));
                used.push(range);
            }
        }
    }
}
