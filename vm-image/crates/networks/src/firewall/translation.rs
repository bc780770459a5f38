//! Whose address a packet has: published ports lead to containers, and what leaves has this system's address.

use std::net::IpAddr;

use caisson_nftables::{Chain, ChainKind, Hook, Key, NatTarget, Rule, ct_status, fib_type, priority};

use super::own::Ways;
use super::{Bridge, destination, family, net, port_of, source};
use crate::book::PortRecord;

/// Published ports.
pub(super) fn destinations(bridges: &[Bridge<'_>], ports: &[PortRecord], native: bool) -> Chain {
    let chain = Chain::base("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT);
    let devices: Vec<&str> = bridges.iter().map(|bridge| bridge.device).collect();
    if devices.is_empty() {
        return chain;
    }
    let own = Rule::new().one_of(Key::IifName, devices.iter().copied());
    if native {
        chain
            .rule(own.return_().comment("containers are served by the sockets of this system"))
            .rules(ports.iter().filter_map(|port| publish(port, to_us(port)?)))
    } else {
        let gateways: Vec<IpAddr> = bridges
            .iter()
            .filter(|bridge| !bridge.internal)
            .flat_map(|bridge| bridge.gateways.clone())
            .collect();
        chain.rules(ports.iter().filter_map(|port| publish(port, to_gateway(port, own.clone(), &gateways)?)))
    }
}

/// What comes to this system's addresses. `None` for a port of a loopback address.
fn to_us(port: &PortRecord) -> Option<Rule> {
    let at = port.published.host_ip;
    match at {
        loopback if loopback.is_loopback() => None,
        any if any.is_unspecified() => {
            Some(Rule::new().is(Key::NfProto, family(any.is_ipv4())).is(Key::FibDaddrType, fib_type::LOCAL))
        }
        one => Some(Rule::new().is(destination(one.is_ipv4()), one)),
    }
}

/// What comes from a container to a gateway's address. `None` for a port of one address: that is the host's.
fn to_gateway(port: &PortRecord, from: Rule, gateways: &[IpAddr]) -> Option<Rule> {
    let ipv4 = port.published.host_ip.is_ipv4();
    let gateways: Vec<IpAddr> =
        gateways.iter().copied().filter(|gateway| gateway.is_ipv4() == ipv4).collect();
    let all = port.published.host_ip.is_unspecified() && !gateways.is_empty();
    all.then(|| from.one_of(destination(ipv4), gateways))
}

/// `None` for a port that no rule can lead to: one that is none of this system's, or from one family to the other.
fn publish(port: &PortRecord, to: Rule) -> Option<Rule> {
    let published = &port.published;
    if port.is_routed() || published.host_ip.is_ipv4() != port.target.is_ipv4() {
        return None;
    }
    let target = NatTarget::To(port.target.ip(), Some(port.target.port()));
    let container = port.key.split('/').next().unwrap_or_default();
    let comment = format!("published by {}", &container[..container.len().min(12)]);
    Some(to.is(port_of(published.protocol), published.host_port.0).dnat(target).comment(comment))
}

/// What leaves gets this system's address. What a container sends to a port that its own neighbour, or itself, has
/// published gets it, too: else the answer would not come back the same way.
pub(super) fn sources(bridges: &[Bridge<'_>], own: &Ways, native: bool) -> Chain {
    let mut chain = Chain::base("postrouting", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    chain = chain.rules(own.sources());
    for bridge in bridges.iter().filter(|bridge| !bridge.internal) {
        for ipv4 in [true, false] {
            for range in bridge.ranges(ipv4) {
                let of_range = || Rule::new().is(source(ipv4), net(*range));
                if native {
                    chain = chain.rules(leave(bridge, ipv4, of_range()));
                } else {
                    let back =
                        of_range().is(Key::OifName, bridge.device).any_of(Key::CtStatus, ct_status::DNAT);
                    chain = chain.rule(bridge.comment(back.masquerade(), "to a port of its own network"));
                }
            }
        }
    }
    chain
}

/// The machine has no way out of its own, so this is for other systems: in the machine its agent takes over what leaves.
fn leave(bridge: &Bridge<'_>, ipv4: bool, of_range: Rule) -> Option<Rule> {
    if !bridge.options.masquerade || bridge.is_routed(ipv4) {
        return None;
    }
    let leaving = of_range.is_not(Key::OifName, bridge.device);
    let leaving = match bridge.options.source(ipv4) {
        Some(source) => leaving.snat(NatTarget::To(source, None)),
        None => leaving.masquerade(),
    };
    Some(bridge.comment(leaving, "leaves under our address"))
}
