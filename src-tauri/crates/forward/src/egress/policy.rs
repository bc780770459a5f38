//! Where the guest may go: wherever a program of the user's may, but for what is this daemon's own.

use caisson_guest_proto::HOST_ADDRESS;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// What the guest may reach.
///
/// This computer's loopback is reached by one reserved address only, and there not the daemon's own doors. Loopback
/// addresses themselves mean the guest's own, so they are never asked for; a guest that does lies.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    /// The daemon's own doors on loopback addresses.
    pub own_doors: Vec<SocketAddr>,
}

impl EgressPolicy {
    /// The addresses to try for what the guest asked for, in order; empty where it may not go.
    pub(super) fn places(&self, to: SocketAddr) -> Vec<SocketAddr> {
        let mut places: Vec<_> =
            self.hosts(to.ip()).into_iter().map(|ip| SocketAddr::new(ip, to.port())).collect();
        places.retain(|place| !self.own_doors.contains(place));
        places
    }

    /// The computer that stands for `to`, if the guest may speak to it.
    pub(super) fn host(&self, to: IpAddr) -> Option<IpAddr> {
        self.hosts(to).into_iter().next()
    }

    fn hosts(&self, to: IpAddr) -> Vec<IpAddr> {
        match to.to_canonical() {
            IpAddr::V4(HOST_ADDRESS) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            to if to.is_loopback() || to.is_unspecified() || to.is_multicast() || is_broadcast(to) => {
                Vec::new()
            }
            to => vec![to],
        }
    }
}

fn is_broadcast(to: IpAddr) -> bool {
    to == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The error of a place that is not there for the guest.
pub(super) fn forbidden() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the machine may not go there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_reached_by_its_reserved_address_only() {
        let policy = EgressPolicy { own_doors: vec!["127.0.0.1:9".parse().unwrap()] };
        for (to, places) in [
            ("1.2.3.4:5", vec!["1.2.3.4:5"]),
            ("[2001:db8::1]:5", vec!["[2001:db8::1]:5"]),
            ("[::ffff:1.2.3.4]:5", vec!["1.2.3.4:5"]),
            ("192.0.0.254:5", vec!["127.0.0.1:5", "[::1]:5"]),
            ("192.0.0.254:9", vec!["[::1]:9"]),
            ("127.0.0.1:5", vec![]),
            ("127.9.9.9:5", vec![]),
            ("[::ffff:127.0.0.1]:5", vec![]),
            ("[::1]:5", vec![]),
            ("0.0.0.0:5", vec![]),
            ("[::]:5", vec![]),
            ("224.0.0.251:5353", vec![]),
            ("[ff02::fb]:5353", vec![]),
            ("255.255.255.255:67", vec![]),
        ] {
            let expected: Vec<SocketAddr> = places.iter().map(|place| place.parse().unwrap()).collect();
            assert_eq!(policy.places(to.parse().unwrap()), expected, "{to}");
        }
    }
}
