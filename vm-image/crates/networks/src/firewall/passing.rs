//! What passes through this system, from or to one of our bridges.

use caisson_nftables::{Chain, ChainKind, Hook, Key, Rule, ct_state, ct_status, ip_proto, priority};

use super::{Bridge, destination, family, port_of, raw};
use crate::book::PortRecord;
use crate::drivers::GatewayMode;

pub(super) fn chain(bridges: &[Bridge<'_>], ports: &[PortRecord], native: bool) -> Chain {
    let mut chain = Chain::base("forward", ChainKind::Filter, Hook::Forward, priority::FILTER);
    let (internal, open): (Vec<_>, Vec<_>) = bridges.iter().partition(|bridge| bridge.internal);
    for bridge in internal {
        let leaving = bridge.from().is_not(Key::OifName, bridge.device);
        chain = chain
            .rule(bridge.comment(bridge.entering().counter().drop(), "internal, nobody comes in"))
            .rule(bridge.comment(leaving.counter().drop(), "internal, nobody gets out"))
            .rules(neighbours(bridge));
    }
    for bridge in open.iter().filter(|_| native) {
        let leaving = || bridge.from().is_not(Key::OifName, bridge.device);
        chain = chain.rules(raw::own_addresses(bridge, leaving));
    }
    let devices: Vec<&str> = open.iter().map(|bridge| bridge.device).collect();
    if devices.is_empty() {
        return chain;
    }
    let to_us = || Rule::new().one_of(Key::OifName, devices.iter().copied());
    let answers = to_us().any_of(Key::CtState, ct_state::ESTABLISHED | ct_state::RELATED).accept();
    let published = to_us().any_of(Key::CtStatus, ct_status::DNAT).accept();
    chain = chain.rule(answers.comment("answers")).rule(published.comment("published ports"));
    for bridge in &open {
        chain = chain.rules(apart(bridge, &open));
    }
    for bridge in &open {
        let shut = bridge.comment(bridge.entering().counter().drop(), "nobody else comes in");
        chain = chain.rules(openings(bridge, ports)).rules(neighbours(bridge)).rule(shut);
    }
    chain
}

/// From one container of a network to another by way of its gateway, where neighbours are apart: what the switch does not
/// pass, the router must not either.
fn neighbours(bridge: &Bridge<'_>) -> Option<Rule> {
    let back = bridge.from().is(Key::OifName, bridge.device);
    (!bridge.options.icc).then(|| bridge.comment(back.counter().drop(), "neighbours are apart"))
}

/// From one network into others; those that are routed decide for themselves who comes in.
fn apart(bridge: &Bridge<'_>, all: &[&Bridge<'_>]) -> Vec<Rule> {
    let others = || all.iter().filter(|other| other.device != bridge.device);
    let mut rules = Vec::new();
    let into = |rule: Rule, devices: Vec<&str>| {
        (!devices.is_empty()).then(|| {
            bridge.comment(rule.one_of(Key::OifName, devices).counter().drop(), "networks are apart")
        })
    };
    let closed = others().filter(|other| !other.is_routed(true) && !other.is_routed(false));
    rules.extend(into(bridge.from(), closed.map(|other| other.device).collect()));
    for ipv4 in [true, false] {
        let half = others().filter(|other| !other.is_routed(ipv4) && other.is_routed(!ipv4));
        let rule = bridge.from().is(Key::NfProto, family(ipv4));
        rules.extend(into(rule, half.map(|other| other.device).collect()));
    }
    rules
}

/// Who comes in though it is no answer and no port of this system's.
fn openings(bridge: &Bridge<'_>, ports: &[PortRecord]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for ipv4 in [true, false] {
        match bridge.options.mode(ipv4) {
            GatewayMode::Routed => {
                let ping = if ipv4 { ip_proto::ICMP } else { ip_proto::ICMPV6 };
                let ping = bridge.entering().is(Key::NfProto, family(ipv4)).is(Key::L4Proto, ping).accept();
                rules.push(bridge.comment(ping, "routed"));
                rules
                    .extend(published(bridge, ports, ipv4).map(|port| open(bridge, bridge.entering(), port)));
            }
            GatewayMode::NatUnprotected => {
                let all = bridge.entering().is(Key::NfProto, family(ipv4)).accept();
                rules.push(bridge.comment(all, "unprotected"));
            }
            GatewayMode::Nat | GatewayMode::Isolated => {
                for trusted in &bridge.options.trusted {
                    let from = || bridge.entering().is(Key::IifName, trusted.as_str());
                    rules.extend(published(bridge, ports, ipv4).map(|port| open(bridge, from(), port)));
                }
            }
        }
    }
    rules
}

fn published<'a>(
    bridge: &Bridge<'_>,
    ports: &'a [PortRecord],
    ipv4: bool,
) -> impl Iterator<Item = &'a PortRecord> {
    let mut known = Vec::new();
    let here: Vec<&PortRecord> = ports
        .iter()
        .filter(|port| port.target.is_ipv4() == ipv4 && bridge.holds(port.target.ip()))
        .filter(|port| {
            let where_to = (port.target, port.published.protocol);
            let is_new = !known.contains(&where_to);
            known.push(where_to);
            is_new
        })
        .collect();
    here.into_iter()
}

fn open(bridge: &Bridge<'_>, from: Rule, port: &PortRecord) -> Rule {
    let to = from.is(destination(port.target.is_ipv4()), port.target.ip());
    let to = to.is(port_of(port.published.protocol), port.target.port());
    bridge.comment(to.accept(), "published by a container")
}
