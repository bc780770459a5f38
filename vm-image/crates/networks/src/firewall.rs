//! What passes between networks, and between them and the rest: one table of the kernel's packet filter.
//!
//! The table is made anew from the records at each change and replaces the one before it in one transaction; nothing of it is
//! read back but whether there is one still, and when somebody else changes it, it is written again (`watch`). So it
//! is right after a start, whatever a crash left, and `nft list table inet caisson` shows all of it.
//!
//! - Nobody is somebody else: what leaves a bridge has an address of its network, whatever rights its sender has (`raw`).
//! - An internal network's packets stay in it. That is seen to before anything else looks at them (`raw`), so a container
//!   that makes itself a route goes nowhere, not by the machine's way out either.
//! - Neighbours are apart where their network says so (`enable_icc`): the switch does not pass packets between them, and
//!   this system, asked as a router, does not either (`passing`).
//! - Networks are apart: what comes from one of our bridges does not leave by another (`passing`), but to the published
//!   ports of a network that is routed.
//! - Nobody comes in but in answer, or through a published port: an address of a container is not reachable from other
//!   machines, even if they have a route to it, unless its network says so (`gateway_mode`).
//! - What leaves gets this system's address, unless the network says otherwise (`translation`).
//! - A published port leads from other machines straight to the container, which sees the client's own address. To ports of
//!   one loopback address they are not led.
//! - This system's own connections to published ports are led the same way (`own`): natively for speed, and in the machine, where
//!   ports have no sockets, so that a registry in a container is `localhost:5000` for the engine, too.
//!
//! Containers that ask for a published port of this system are served by its socket: the rules let what comes from
//! our own bridges pass to it, so that networks stay apart. In the machine the sockets are those of its host, and rules
//! lead containers that ask for a port at a gateway's address to where it leads.

mod own;
mod passing;
mod raw;
mod translation;
pub(crate) mod watch;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use caisson_guest_proto::PortProtocol;
use caisson_nftables::{Changes, Family, Kernel, KernelError, Key, Rule, Table, Value, nfproto};

use self::own::Ways;
use crate::Subnet;
use crate::book::{Book, NetworkRecord, PortRecord};
use crate::drivers::{self, BridgeOptions, GatewayMode};

/// The table's name, for those who look.
const TABLE: &str = "caisson";

/// Whether this system passes packets on.
const FORWARD_IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The rules of one engine.
#[derive(Debug)]
pub(crate) struct Firewall {
    /// Whether ports are opened on this system, so that rules may lead to containers.
    native: bool,
    /// Who writes, always the same, so that what others write is told from it. There from the first use on.
    kernel: OnceLock<Kernel>,
    /// What the kernel has. Held while it is replaced: the last one to ask is the last one to write.
    known: Mutex<Known>,
}

/// What is known of the table in the kernel.
#[derive(Debug, Default)]
struct Known {
    /// What this engine has written there, if there is to be one.
    written: Option<Table>,
    /// Whether it is there as it was written: nobody else has changed it since, as far as has been heard, and this engine
    /// has not tried to.
    is_whole: bool,
    /// The ways in it; until this engine has written one, those that the engine before it has left.
    own: Ways,
}

/// What the rules are made of.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// The networks whose devices are there, with the devices' names.
    pub(crate) bridges: Vec<(NetworkRecord, String)>,
    /// The published ports.
    pub(crate) ports: Vec<PortRecord>,
}

/// Why the rules are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("could not set the rules between networks")]
pub struct FirewallError(#[source] io::Error);

impl Firewall {
    /// `left` is what the engine before this one has made its rules of: they may still be there, or may have been.
    pub(crate) fn new(native: bool, left: &Recorded) -> Self {
        let known = Known { own: Ways::of(&left.known_bridges(), &left.ports), ..Known::default() };
        Self { native, kernel: OnceLock::new(), known: Mutex::new(known) }
    }

    /// Listens to what others do to the table.
    pub(crate) fn changes_of_others(&self) -> io::Result<Changes> {
        Changes::of_others(self.kernel()?, Family::Inet, TABLE)
    }

    /// Makes the kernel's table what the records say; they are looked at when nobody else writes any more, so that what
    /// is written last is what was read last. Blocks for the kernel.
    pub(crate) fn refresh(&self, recorded: impl FnOnce() -> Recorded) -> Result<(), FirewallError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut known, &recorded())
    }

    /// The same when somebody else has changed the table, whatever is left of it. `false` if there is to be none: before
    /// the first is written, one of this name is another engine's, or will be looked at when the networks are restored.
    pub(crate) fn restore(&self, recorded: impl FnOnce() -> Recorded) -> Result<bool, FirewallError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.written.is_none() {
            return Ok(false);
        }
        known.is_whole = false;
        self.write(&mut known, &recorded()).map(|()| true)
    }

    /// Whether the table is taken to be there as it was written. Waits for who is writing it.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.known.lock().unwrap().is_whole
    }

    fn kernel(&self) -> io::Result<&Kernel> {
        match self.kernel.get() {
            Some(kernel) => Ok(kernel),
            None => {
                let kernel = Kernel::open()?;
                Ok(self.kernel.get_or_init(|| kernel))
            }
        }
    }

    fn write(&self, known: &mut Known, recorded: &Recorded) -> Result<(), FirewallError> {
        let kernel = self.kernel().map_err(FirewallError)?;
        if recorded.bridges.is_empty() {
            return self.clear(kernel, known);
        }
        // Somebody else may have flushed all tables of this system a moment ago.
        let is_there = known.is_whole && kernel.has_table(Family::Inet, TABLE).map_err(refused)?;
        known.is_whole = is_there;
        let (bridges, ports) = (recorded.known_bridges(), &recorded.ports);
        let own = self.own_ways(kernel, &bridges, ports, is_there)?;
        let table = table(&bridges, ports, &own, self.native);
        if is_there && known.written.as_ref() == Some(&table) {
            return Ok(());
        }
        // A system that may not be made a router connects its containers all the same.
        if let Err(error) = pass_packets_on(&recorded.bridges) {
            tracing::warn!(%error, "this system does not pass packets on: containers have no way out");
        }
        // What fails may have been done all the same, if the kernel's answer is lost.
        known.is_whole = false;
        kernel.replace(&table).map_err(refused)?;
        // What an engine before this one has opened may be a bridge that nobody needs any more.
        own.close_loopback(bridges.iter().map(|bridge| bridge.device).chain(known.own.devices()));
        let now = Known { written: Some(table), is_whole: true, own };
        let before = std::mem::replace(known, now);
        known.own.end(&before.own);
        Ok(())
    }

    /// The ways of this system's own connections. Those of loopback addresses are opened only behind the rules that guard
    /// them, which are in every table. Where they are open already, that is no safer with a table without them first, which
    /// would shut them for a moment.
    fn own_ways(
        &self,
        kernel: &Kernel,
        bridges: &[Bridge<'_>],
        ports: &[PortRecord],
        is_guarded: bool,
    ) -> Result<Ways, FirewallError> {
        let own = Ways::of(bridges, ports);
        if !own.has_loopback() {
            return Ok(own);
        }
        if !is_guarded && !own.is_open() {
            kernel.replace(&table(bridges, ports, &own, self.native)).map_err(refused)?;
        }
        Ok(own.open_loopback())
    }

    /// Without bridges there is nothing to say.
    fn clear(&self, kernel: &Kernel, known: &mut Known) -> Result<(), FirewallError> {
        let before = std::mem::take(known);
        known.own.close_loopback(before.own.devices());
        known.own.end(&before.own);
        // What is deleted for nothing is a change all the same, for those who watch.
        if kernel.has_table(Family::Inet, TABLE).map_err(refused)? {
            kernel.delete(Family::Inet, TABLE).map_err(refused)?;
        }
        Ok(())
    }
}

impl Recorded {
    /// The networks as rules see them, but for those whose options cannot be read.
    fn known_bridges(&self) -> Vec<Bridge<'_>> {
        self.bridges.iter().filter_map(Bridge::of).collect()
    }
}

fn refused(error: KernelError) -> FirewallError {
    FirewallError(io::Error::other(error))
}

/// The published ports on record.
pub(crate) fn ports(book: &Book) -> Vec<PortRecord> {
    book.sandboxes().flat_map(|sandbox| sandbox.ports.iter().cloned()).collect()
}

/// Switches on what a router does.
fn pass_packets_on(bridges: &[(NetworkRecord, String)]) -> io::Result<()> {
    let ipv6 = bridges.iter().any(|(network, _)| network.pools_of(false).next().is_some());
    for (switch, wanted) in [(FORWARD_IPV4, true), (FORWARD_IPV6, ipv6)] {
        let is_on = || std::fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1");
        if wanted && Path::new(switch).exists() && !is_on() {
            std::fs::write(switch, "1")?;
        }
    }
    Ok(())
}

/// A network with a bridge, as rules see it.
struct Bridge<'a> {
    name: &'a str,
    device: &'a str,
    internal: bool,
    /// The number of its VXLAN, if it has one.
    vni: Option<u32>,
    options: BridgeOptions,
    /// The ranges of IPv4 and of IPv6.
    ranges: [Vec<Subnet>; 2],
    /// This system's own addresses on it.
    gateways: Vec<IpAddr>,
}

impl<'a> Bridge<'a> {
    /// `None` for one whose options cannot be read, which was refused when it was to be made.
    fn of((network, device): &'a (NetworkRecord, String)) -> Option<Self> {
        Some(Self {
            name: &network.name,
            device,
            internal: network.internal,
            vni: drivers::vni(network),
            options: BridgeOptions::of(network).ok()?,
            ranges: [true, false].map(|ipv4| network.pools_of(ipv4).map(|pool| pool.subnet).collect()),
            gateways: network.active_pools().filter_map(|pool| pool.gateway).collect(),
        })
    }

    fn ranges(&self, ipv4: bool) -> &[Subnet] {
        &self.ranges[usize::from(!ipv4)]
    }

    fn is_routed(&self, ipv4: bool) -> bool {
        self.options.mode(ipv4) == GatewayMode::Routed
    }

    /// Whether an address is of one of its networks.
    fn holds(&self, address: IpAddr) -> bool {
        self.ranges.iter().flatten().any(|range| range.contains(address))
    }

    /// What comes from it.
    fn from(&self) -> Rule {
        Rule::new().is(Key::IifName, self.device)
    }

    /// What comes in from elsewhere.
    fn entering(&self) -> Rule {
        Rule::new().is(Key::OifName, self.device).is_not(Key::IifName, self.device)
    }

    fn comment(&self, rule: Rule, what: &str) -> Rule {
        rule.comment(format!("{}: {what}", self.name))
    }
}

fn table(bridges: &[Bridge<'_>], ports: &[PortRecord], own: &Ways, native: bool) -> Table {
    let table = Table::new(Family::Inet, TABLE).chain(raw::nowhere(bridges));
    // What leaves the machine does not pass through it. Elsewhere packets within a bridge may be seen there as well, by
    // br_netfilter, and are none of ours.
    let table = if native { table } else { table.chain(raw::posing(bridges)) };
    let table = table
        .chain(passing::chain(bridges, ports, native))
        .chain(translation::destinations(bridges, ports, native))
        .chain(translation::sources(bridges, own, native));
    own.lead(table)
}

fn net(range: Subnet) -> Value {
    Value::Net(range.base(), range.prefix())
}

fn family(ipv4: bool) -> u8 {
    if ipv4 { nfproto::IPV4 } else { nfproto::IPV6 }
}

fn source(ipv4: bool) -> Key {
    if ipv4 { Key::Ip4Saddr } else { Key::Ip6Saddr }
}

fn destination(ipv4: bool) -> Key {
    if ipv4 { Key::Ip4Daddr } else { Key::Ip6Daddr }
}

fn port_of(protocol: PortProtocol) -> Key {
    match protocol {
        PortProtocol::Tcp => Key::TcpDport,
        PortProtocol::Udp => Key::UdpDport,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use caisson_sys::netns;

    use super::*;
    use crate::IpamPool;
    use crate::tests::OthersTable;

    fn network(options: &[(&str, &str)]) -> NetworkRecord {
        let mut network = NetworkRecord::new("net", "bridge");
        network.pools = vec![IpamPool::of("172.18.0.0/16".parse().unwrap())];
        network.options = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        network
    }

    fn recorded(options: &[(&str, &str)]) -> Recorded {
        Recorded { bridges: vec![(network(options), "br0".into())], ports: Vec::new() }
    }

    #[test]
    fn the_records_are_read_when_nobody_else_writes() {
        netns::isolated(|| {
            let firewall = Firewall::new(true, &Recorded::default());
            let mut is_alone = false;
            let read = || {
                is_alone = firewall.known.try_lock().is_err();
                recorded(&[])
            };
            firewall.refresh(read).unwrap();
            assert!(is_alone, "another one could read before us and write after us");
        });
    }

    #[test]
    fn what_somebody_else_has_flushed_is_written_again() {
        netns::isolated(|| {
            let firewall = Firewall::new(true, &Recorded::default());
            let is_there = || Kernel::open().unwrap().has_table(Family::Inet, TABLE).unwrap();
            firewall.refresh(|| recorded(&[])).unwrap();
            let flushed = Command::new("nft").args(["flush", "ruleset"]).status();
            assert!(flushed.expect("nft of package nftables").success());
            assert!(!is_there());
            firewall.refresh(|| recorded(&[])).unwrap();
            assert!(is_there());
        });
    }

    #[test]
    fn what_could_not_be_written_is_not_taken_to_be_there() {
        netns::isolated(|| {
            let firewall = Firewall::new(true, &Recorded::default());
            let before = || recorded(&[("com.docker.network.bridge.enable_icc", "false")]);
            firewall.refresh(before).unwrap();
            let others = OthersTable::hold();
            firewall.refresh(|| recorded(&[])).unwrap_err();
            firewall.refresh(before).unwrap_err();
            drop(others);
            firewall.refresh(before).unwrap();
        });
    }

    #[test]
    fn neighbours_that_are_apart_are_so_for_the_router_too() {
        const ICC: &str = "com.docker.network.bridge.enable_icc";
        let at = |network: NetworkRecord, what: &str| {
            let networks = [(network, "br0".into())];
            let bridges: Vec<Bridge<'_>> = networks.iter().filter_map(Bridge::of).collect();
            let text = table(&bridges, &[], &Ways::default(), true).to_string();
            text.lines().position(|line| line.contains(what))
        };
        let apart = r#"iifname "br0" oifname "br0" counter drop"#;
        assert_eq!(at(network(&[]), apart), None);
        let shut = || network(&[(ICC, "false")]);
        assert!(at(shut(), "answers").unwrap() < at(shut(), apart).unwrap());
        assert!(at(shut(), "published ports").unwrap() < at(shut(), apart).unwrap());
        let internal = NetworkRecord { internal: true, ..shut() };
        assert!(at(internal, apart).is_some());
    }
}
