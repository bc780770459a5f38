//! What is no packet of a container's, seen before anything else looks at it.

use caisson_nftables::{Chain, ChainKind, Direction, Hook, Key, Rule, Value, priority};

use super::{Bridge, destination, net, source};
use crate::drivers::VXLAN_PORT;

/// Behind the following of connections, before the machine's way out.
const FOLLOWED: i32 = priority::MANGLE - 10;

/// What goes nowhere, whoever has sent it.
///
/// The kernel sees to loopback addresses, too, but not on bridges that lead to published ports (`own`).
pub(super) fn nowhere(bridges: &[Bridge<'_>]) -> Chain {
    let outside =
        |key| Rule::new().is_not(Key::IifName, "lo").is(key, range("127.0.0.0", 8)).counter().drop();
    Chain::base("raw", ChainKind::Filter, Hook::Prerouting, priority::RAW)
        .rule(outside(Key::Ip4Daddr).comment("loopback addresses are reached from within only"))
        .rule(outside(Key::Ip4Saddr).comment("nobody else has a loopback address"))
        .rules(bridges.iter().filter_map(other_nodes))
        .rules(bridges.iter().flat_map(shut_in))
}

/// What would come out of a VXLAN: a network has no other nodes.
fn other_nodes(bridge: &Bridge<'_>) -> Option<Rule> {
    let vni = Value::Vni(bridge.vni?);
    let speaks = Rule::new().is(Key::UdpDport, VXLAN_PORT).is(Key::VxlanVni, vni);
    Some(bridge.comment(speaks.counter().drop(), "no other node speaks"))
}

/// What has somebody else's address, and would be taken out of the machine. Answers may have: a container that routes for
/// others, a node of a cluster for instance, is asked for them.
pub(super) fn posing(bridges: &[Bridge<'_>]) -> Chain {
    Chain::base("posing", ChainKind::Filter, Hook::Prerouting, FOLLOWED)
        .rules(bridges.iter().flat_map(|bridge| own_addresses(bridge, || bridge.from())))
}

pub(super) fn range(address: &str, prefix: u8) -> Value {
    Value::Net(address.parse().expect("an address"), prefix)
}

/// What a sender without an address has instead, and what is of a link only.
fn own_link(ipv4: bool) -> Vec<Value> {
    if ipv4 { vec![range("0.0.0.0", 32)] } else { vec![range("::", 128), range("fe80::", 10)] }
}

/// Multicast and broadcast, and what is of a link only: they go no further by themselves.
fn on_link(ipv4: bool) -> Vec<Value> {
    if ipv4 {
        vec![range("224.0.0.0", 4), range("255.255.255.255", 32)]
    } else {
        vec![range("ff00::", 8), range("fe80::", 10)]
    }
}

/// A bridge whose gateway is another system's carries what that system sends.
pub(super) fn own_addresses(bridge: &Bridge<'_>, from: impl Fn() -> Rule) -> Vec<Rule> {
    let rule = |ipv4| {
        let own = bridge.ranges(ipv4).iter().copied().map(net).chain(own_link(ipv4));
        let foreign = from().is(Key::CtDirection, Direction::Original).not_one_of(source(ipv4), own);
        bridge.comment(foreign.counter().drop(), "nobody has another's address")
    };
    let families = [true, false].into_iter().filter(|ipv4| !(*ipv4 && bridge.options.inhibits_ipv4()));
    families.map(rule).collect()
}

fn shut_in(bridge: &Bridge<'_>) -> Vec<Rule> {
    if !bridge.internal {
        return Vec::new();
    }
    let rule = |ipv4| {
        let own = bridge.ranges(ipv4).iter().copied().map(net).chain(on_link(ipv4));
        let outwards = bridge.from().not_one_of(destination(ipv4), own).counter().drop();
        bridge.comment(outwards, "internal, nobody gets out")
    };
    [true, false].map(rule).into()
}
