//! Where this computer's routes lead.

#[cfg_attr(target_os = "linux", path = "routes/linux.rs")]
#[cfg_attr(target_os = "macos", path = "routes/macos.rs")]
#[cfg_attr(windows, path = "routes/windows.rs")]
mod imp;
#[cfg(any(target_os = "macos", test))]
mod message;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Routes to more than this stand for the rest of the world: VPNs cut a default route in two halves, or in eights.
const SHORTEST: u8 = 8;

/// A range of addresses that a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits of it count.
    pub prefix: u8,
}

/// The ranges that this computer's routes lead to, in order, none of them within another: its networks, and those behind
/// VPNs. Without default routes and what every computer has (loopback, link-local, multicast).
///
/// # Errors
/// The system does not tell.
pub fn routes() -> io::Result<Vec<Route>> {
    imp::routes().map(narrowed)
}

impl Route {
    /// The range that `address` is in; `None` if there are not that many bits.
    fn of(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    fn contains(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && Self::of(other.address, self.prefix) == Some(*self)
    }

    /// Whether it is somewhere else than every computer's own.
    fn leads_away(&self) -> bool {
        let own = match self.address {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast(),
        };
        !own && self.prefix >= SHORTEST && !self.address.is_unspecified()
    }
}

fn narrowed(mut routes: Vec<Route>) -> Vec<Route> {
    routes.retain(Route::leads_away);
    // Two ranges are apart, or one is within the other. So in this order whatever is within a range follows it before
    // anything else does, and a computer with the whole Internet's table is not kept busy.
    routes.sort();
    let mut widest: Vec<Route> = Vec::new();
    for route in routes {
        if !widest.last().is_some_and(|last| last.contains(&route)) {
            widest.push(route);
        }
    }
    widest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn route(text: &str) -> Route {
        let (address, prefix) = text.split_once('/').unwrap();
        Route::of(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    #[test]
    fn only_the_widest_ranges_that_lead_away_are_left() {
        let all = [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "192.168.1.7/24",
            "192.168.1.1/32",
            "10.0.0.0/8",
            "10.3.0.0/16",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "172.20.5.0/32",
            "::/0",
            "2000::/3",
            "fe80::/64",
            "ff00::/8",
            "::1/128",
            "fd00:1::/64",
            "fd00:1::5/128",
            "10.3.0.0/16",
        ];
        let left = ["10.0.0.0/8", "172.20.5.0/32", "192.168.1.0/24", "fd00:1::/64"];
        assert_eq!(narrowed(all.map(route).into()), left.map(route));
    }

    /// As many as the Internet has of IPv4: compared each with each this took hours.
    #[test]
    fn a_whole_table_is_narrowed_in_no_time() {
        let networks = |count: u32, prefix: u8| {
            let at = move |number: u32| Ipv4Addr::from_bits((16 << 24) + (number << (32 - prefix)));
            (0..count).rev().map(move |number| Route { address: at(number).into(), prefix })
        };
        let before = Instant::now();
        let left =
            narrowed(networks(1 << 19, 24).chain(networks(1 << 18, 23)).chain(networks(7, 32)).collect());
        assert_eq!(left.len(), 1 << 18);
        assert!(left.iter().all(|route| route.prefix == 23) && left.is_sorted());
        assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    }

    #[test]
    fn a_range_has_no_more_bits_than_its_family() {
        assert_eq!(Route::of("1.2.3.4".parse().unwrap(), 33), None);
        assert_eq!(Route::of("::1".parse().unwrap(), 129), None);
        assert_eq!(route("1.2.3.4/0").address, "0.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(route("1::1/128").address, "1::1".parse::<IpAddr>().unwrap());
    }

    #[cfg_attr(windows, ignore = "wine 8 has no such table; to be run on Windows")]
    #[test]
    fn this_computer_tells_its_routes() {
        assert!(routes().unwrap().iter().all(Route::leads_away));
    }
}
