//! Connections of this system itself to published ports: led straight to the containers, past the ports' own sockets.
//!
//! In the machine there is no other way: the ports' sockets are those of its host. Natively the sockets stay. They keep the numbers from others, and serve what cannot be led: UDP, where a conversation has no
//! end that would free its way; IPv6, whose loopback address is never routed; what comes from containers; and bridges on
//! which this system has no address to send from. As behind the sockets, the client's address is the gateway's.
//!
//! What goes to a loopback address comes from one, too, and the kernel keeps these off all other devices unless
//! `route_localnet` is set. So it is, for the bridges that it takes, and only behind the rules of `raw` that keep off what
//! others send (CVE-2020-8558).
//!
//! When a way ends, so do the connections that have gone it: nobody else may get their packets. Those that end while there is no engine,
//! because it was killed and then their container died, are the next one's to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use caisson_guest_proto::PortProtocol;
use caisson_nftables::{
    Chain, ChainKind, Hook, Key, NatTarget, Rule, Set, Table, Value, ct_status, fib_type, nfproto, priority,
};
use tracing::{debug, warn};

use super::Bridge;
use crate::book::PortRecord;
use crate::sockets;

/// Maps from published ports to where they lead: those of one address, and those of all.
const OF_ONE: &str = "own_ports";
const OF_ALL: &str = "own_ports_of_all";

/// From a published port to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
    /// The bridge behind which the container is.
    device: String,
}

impl Way {
    fn is_of_loopback(&self) -> bool {
        self.from.ip().is_loopback() || self.from.ip().is_unspecified()
    }

    /// Whether a connection of this system goes it. One to a port of all addresses comes from the very address that it
    /// goes to, or both are loopback addresses.
    fn carries(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let address = match self.from.ip() {
            all if all.is_unspecified() => remote.ip() == local.ip() || remote.ip().is_loopback(),
            one => remote.ip() == one,
        };
        address && remote.port() == self.from.port()
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ways {
    all: BTreeSet<Way>,
    /// Whether those of loopback addresses are open.
    loopback: bool,
}

impl Ways {
    /// Those that there can be; of loopback addresses none is open yet. While a port passes from one container to the
    /// next it is on record of both, and its socket knows best whose it is.
    pub(super) fn of(bridges: &[Bridge<'_>], ports: &[PortRecord]) -> Self {
        let way = |port: &PortRecord| {
            let published = &port.published;
            let from = SocketAddr::new(published.host_ip, published.host_port.0);
            let bridge = bridges.iter().find(|bridge| bridge.holds(port.target.ip()))?;
            let fits = published.protocol == PortProtocol::Tcp && from.is_ipv4() && port.target.is_ipv4();
            let led = fits && !port.is_routed() && bridge.has_own_ipv4();
            led.then(|| Way { from, to: port.target, device: bridge.device.to_owned() })
        };
        let mut all: BTreeMap<SocketAddr, Vec<Way>> = BTreeMap::new();
        for way in ports.iter().filter_map(way) {
            all.entry(way.from).or_default().push(way);
        }
        let all = all.into_values().filter(|ways| ways.len() == 1).flatten().collect();
        Self { all, loopback: false }
    }

    /// Whether any is of a loopback address.
    pub(super) fn has_loopback(&self) -> bool {
        self.all.iter().any(Way::is_of_loopback)
    }

    /// Whether all devices to which those of loopback addresses lead route these already.
    pub(super) fn is_open(&self) -> bool {
        self.loopback_devices().into_iter().all(is_switched_on)
    }

    /// Opens those of loopback addresses, if this system lets us. A device that is gone takes its own ways with it only.
    pub(super) fn open_loopback(mut self) -> Self {
        let is_open = |device: &&str| {
            let switched = switch(device, true);
            if let Err(error) = &switched {
                debug!(%error, device, "connections to published ports of loopback addresses are not led");
            }
            switched.is_ok()
        };
        let (open, shut): (Vec<&str>, Vec<&str>) = self.loopback_devices().into_iter().partition(is_open);
        let loopback = !open.is_empty();
        let shut: BTreeSet<String> = shut.into_iter().map(str::to_owned).collect();
        if loopback {
            self.all.retain(|way| !way.is_of_loopback() || !shut.contains(&way.device));
        }
        Self { loopback, ..self }
    }

    /// Closes the devices of which no way of a loopback address is open. One that is gone is closed.
    pub(super) fn close_loopback<'a>(&self, devices: impl Iterator<Item = &'a str>) {
        let open = if self.loopback { self.loopback_devices() } else { BTreeSet::new() };
        for device in devices.filter(|device| !open.contains(device)) {
            match switch(device, false) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(%error, device, "loopback addresses are still routed to a bridge");
                }
                _ => {}
            }
        }
    }

    /// Ends the connections by the ways of before that are no more.
    pub(super) fn end(&self, before: &Self) {
        let gone: Vec<&Way> = before.all.difference(&self.all).collect();
        if gone.is_empty() {
            return;
        }
        let is_one = |local, remote| gone.iter().any(|way| way.carries(local, remote));
        if let Err(error) = sockets::end_connections(is_one) {
            // Then they end when their clients have waited long enough.
            debug!(%error, "connections to published ports that are closed are left");
        }
    }

    /// The bridges to which they lead.
    pub(super) fn devices(&self) -> impl Iterator<Item = &str> {
        let devices: BTreeSet<&str> = self.all.iter().map(|way| way.device.as_str()).collect();
        devices.into_iter()
    }

    fn loopback_devices(&self) -> BTreeSet<&str> {
        self.all.iter().filter(|way| way.is_of_loopback()).map(|way| way.device.as_str()).collect()
    }

    /// Adds what leads the connections.
    pub(super) fn lead(&self, table: Table) -> Table {
        if self.all.is_empty() {
            return table;
        }
        let (of_all, of_one): (Vec<&Way>, Vec<&Way>) =
            self.all.iter().partition(|way| way.from.ip().is_unspecified());
        let of_one = of_one.into_iter().filter(|way| self.loopback || !way.is_of_loopback());
        let to = |way: &Way| Value::from(vec![way.to.ip().into(), way.to.port().into()]);
        let target = [Key::Ip4Daddr, Key::TcpDport];
        let one = of_one.fold(Set::map(OF_ONE, target, target), |map, way| {
            map.entry(vec![way.from.ip().into(), way.from.port().into()], to(way))
        });
        let all = of_all
            .into_iter()
            .fold(Set::map(OF_ALL, [Key::TcpDport], target), |map, way| map.entry(way.from.port(), to(way)));
        let chain = Chain::base("output", ChainKind::Nat, Hook::Output, priority::DSTNAT)
            .rule(to_here().dnat(mapped(&target, OF_ONE)).comment("published ports of one address"))
            .rule(self.to_us().dnat(mapped(&[Key::TcpDport], OF_ALL)).comment("published ports"));
        table.set(one).set(all).chain(chain)
    }

    fn to_us(&self) -> Rule {
        if self.loopback {
            to_here()
        } else {
            to_here().is_not(Key::Ip4Daddr, super::raw::range("127.0.0.0", 8))
        }
    }

    /// What is led has the gateway's address.
    pub(super) fn sources(&self) -> Vec<Rule> {
        let own = |device: &str| {
            Rule::new()
                .is(Key::OifName, device)
                .any_of(Key::CtStatus, ct_status::DNAT)
                .is(Key::FibSaddrType, fib_type::LOCAL)
                .masquerade()
                .comment("to a published port of this system")
        };
        self.devices().map(own).collect()
    }
}

/// To an address of this system. What a machine's host has published at another of its addresses is reached through the host.
fn to_here() -> Rule {
    Rule::new().is(Key::NfProto, nfproto::IPV4).is(Key::FibDaddrType, fib_type::LOCAL)
}

fn mapped(keys: &[Key], map: &str) -> NatTarget {
    NatTarget::Map { keys: keys.to_vec(), map: map.to_owned(), ipv6: false, ports: true }
}

/// Sets whether packets from and to loopback addresses may pass a device.
fn switch(device: &str, on: bool) -> io::Result<()> {
    let file = switch_of(device);
    let wanted = if on { "1" } else { "0" };
    if fs::read_to_string(&file)?.trim() != wanted {
        fs::write(&file, wanted)?;
    }
    Ok(())
}

fn is_switched_on(device: &str) -> bool {
    fs::read_to_string(switch_of(device)).is_ok_and(|text| text.trim() == "1")
}

fn switch_of(device: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{device}/route_localnet")
}

impl Bridge<'_> {
    /// Whether this system has an IPv4 address on it.
    fn has_own_ipv4(&self) -> bool {
        !self.options.inhibits_ipv4() && self.gateways.iter().any(IpAddr::is_ipv4)
    }
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::PortForward;

    use super::*;
    use crate::IpamPool;
    use crate::book::NetworkRecord;

    fn port(key: &str, from: &str, to: &str) -> PortRecord {
        let from: SocketAddr = from.parse().unwrap();
        PortRecord::of(&PortForward {
            key: key.into(),
            host_ip: from.ip(),
            host_port: from.port(),
            protocol: PortProtocol::Tcp,
            target: to.parse().unwrap(),
        })
    }

    /// What a table has of the ways to these ports of a network.
    fn led(ports: &[PortRecord], loopback: bool) -> String {
        let mut network = NetworkRecord::new("net", "bridge");
        network.pools = vec![IpamPool::of("172.18.0.0/16".parse().unwrap())];
        let networks = [(network, "br0".to_owned())];
        let bridges: Vec<Bridge<'_>> = networks.iter().filter_map(Bridge::of).collect();
        let ways = Ways { loopback, ..Ways::of(&bridges, ports) };
        ways.lead(Table::new(caisson_nftables::Family::Inet, "t")).to_string()
    }

    #[test]
    fn loopback_addresses_are_led_where_they_may_be_routed() {
        let ports =
            [port("a/0", "127.0.0.1:81", "172.18.0.2:80"), port("a/1", "0.0.0.0:82", "172.18.0.2:80")];
        assert!(led(&ports, true).contains("127.0.0.1 . 81 : 172.18.0.2 . 80"));
        let without = led(&ports, false);
        assert!(
            !without.contains("127.0.0.1 . 81") && without.contains("ip daddr != 127.0.0.0/8"),
            "{without}"
        );
    }

    #[test]
    fn what_is_passed_on_or_cannot_be_led_is_left_to_its_socket() {
        let passed_on =
            [port("a/0", "0.0.0.0:81", "172.18.0.2:80"), port("b/0", "0.0.0.0:81", "172.18.0.3:80")];
        assert!(!led(&passed_on, true).contains("172.18."));
        for (from, to) in [("[::]:81", "172.18.0.2:80"), ("0.0.0.0:81", "10.9.9.9:80")] {
            assert!(!led(&[port("a/0", from, to)], true).contains(" : "), "{from}");
        }
    }

    #[test]
    fn a_way_carries_what_goes_to_its_port_of_this_system() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let way =
            |from: &str| Way { from: address(from), to: address("172.17.0.2:80"), device: "br0".into() };
        for (from, local, remote, carried) in [
            ("0.0.0.0:8080", "127.0.0.1:4000", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "127.0.0.1:4000", "127.0.0.9:8080", true),
            ("0.0.0.0:8080", "10.1.1.1:4000", "10.1.1.1:8080", true),
            ("0.0.0.0:8080", "10.1.1.1:4000", "10.2.2.2:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:4000", "127.0.0.1:8081", false),
            ("127.0.0.1:8080", "127.0.0.1:4000", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "10.1.1.1:4000", "10.1.1.1:8080", false),
        ] {
            assert_eq!(way(from).carries(address(local), address(remote)), carried, "{from} {remote}");
        }
    }
}
