//! Which address a container gets, and which range a network.
//!
//! There is no list of granted addresses: the granted ones are those in the sandbox records. So none can be lost, or
//! be granted twice, by a crash between two files.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::{IpamConfig, Subnet};

/// Docker's default pools for networks, in its order: sixteen /16 (of which the bridge prefers the first), then /20.
fn default_pools() -> impl Iterator<Item = Subnet> {
    let wide = (17..=31).map(|second| Subnet::containing(Ipv4Addr::new(172, second, 0, 0), 16));
    let narrow = (0..=15).map(|n| Subnet::containing(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    wide.chain(narrow)
}

/// A range that none of `routed` overlaps: `preferred` if possible, else the first of Docker's default pools.
pub(crate) fn choose_range(preferred: Option<Subnet>, routed: &[Subnet]) -> Option<IpamConfig> {
    let free = |range: &Subnet| !routed.iter().any(|route| route.overlaps(*range));
    let subnet = preferred.into_iter().chain(default_pools()).find(free)?;
    Some(IpamConfig { subnet, gateway: Ipv4Addr::from_bits(subnet.base().to_bits() + 1) })
}

/// The lowest address that a container may have and that is not taken, as dockerd grants them.
pub(crate) fn next_free(config: &IpamConfig, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = config.subnet.base().to_bits().checked_add(1)?;
    let last = config.subnet.last().to_bits();
    let free = |address: &Ipv4Addr| *address != config.gateway && !taken.contains(address);
    (first..last).map(Ipv4Addr::from_bits).find(free)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(subnet: &str) -> IpamConfig {
        choose_range(Some(subnet.parse().unwrap()), &[]).unwrap()
    }

    #[test]
    fn the_bridge_gets_the_range_that_users_know() {
        let chosen = choose_range(None, &["10.0.0.0/8".parse().unwrap()]).unwrap();
        assert_eq!(chosen.subnet.to_string(), "172.17.0.0/16");
        assert_eq!(chosen.gateway.to_string(), "172.17.0.1");
    }

    #[test]
    fn a_route_of_the_system_moves_it() {
        let chosen = |routes: &[&str]| {
            let routes: Vec<Subnet> = routes.iter().map(|r| r.parse().unwrap()).collect();
            choose_range(None, &routes).map(|c| c.subnet.to_string())
        };
        assert_eq!(chosen(&["172.17.5.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.1.0/24"]).unwrap(), "192.168.16.0/20");
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.0.0/16"]), None);
    }

    #[test]
    fn a_small_range_is_granted_to_its_end_and_no_further() {
        let config = config("10.1.2.0/29");
        let mut taken = BTreeSet::new();
        while let Some(address) = next_free(&config, &taken) {
            assert!(taken.insert(address));
        }
        let granted: Vec<String> = taken.iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(granted, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    }

    proptest! {
        #[test]
        fn nothing_is_granted_twice_or_lost_whatever_the_order(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
            prefix in 24u8..=30,
        ) {
            let config = config(&format!("10.9.8.0/{prefix}"));
            let capacity = (1usize << (32 - prefix)) - 3;
            let mut taken = BTreeSet::new();
            for (grant, which) in steps {
                if grant {
                    match next_free(&config, &taken) {
                        Some(address) => {
                            prop_assert!(taken.insert(address), "{address} granted twice");
                            prop_assert!(config.subnet.contains(address));
                            prop_assert!(address != config.gateway && address != config.subnet.last());
                            let below = taken.range(..address).count() as u32;
                            prop_assert_eq!(address.to_bits(), config.gateway.to_bits() + 1 + below, "not the lowest");
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
        fn ranges_overlap_exactly_when_they_share_an_address(a: u32, b: u32, p in 0u8..=32, q in 0u8..=32) {
            let (a, b) = (Subnet::containing(a.into(), p), Subnet::containing(b.into(), q));
            let share = a.base().max(b.base()) <= a.last().min(b.last());
            prop_assert_eq!(a.overlaps(b), share);
            prop_assert_eq!(a.to_string().parse::<Subnet>().unwrap(), a);
        }
    }
}
