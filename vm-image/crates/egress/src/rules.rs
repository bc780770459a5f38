//! What the kernel does with packets that leave the machine.
//!
//! `classify` sees what is routed to our device: a container's packets before routing (`pre`), this system's own as they
//! are sent (`out`). A flow that was decided is marked and goes on to the proxy; the first packet of a new one is queued
//! with the mark [`HELD`]. A queue's "accept" goes on at the *next* chain of the hook, which is why a pair of chains
//! right behind it (`decide`, `out_decide`) reads the mark that the verdict came with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caisson_nftables::{
    Chain, ChainKind, Direction, Family, Hook, Key, Mark, MarkSource, Reject, Rule, Table, Value, ct_state,
    ip_proto, nfproto, priority, tcp_flag,
};

/// The queue that held packets wait in.
pub(crate) const QUEUE: u16 = 0;
/// Where the proxy listens, on the loopback addresses only: containers cannot reach those.
pub(crate) const PROXY_PORT: u16 = 15001;
/// The device that everything outside is routed to.
pub(crate) const DEVICE: &str = "egress0";

/// The mark of packets that go to the proxy; the policy route looks at this bit alone.
pub(crate) const PROXIED: u32 = 0x1;
/// The mark of packets that are held; those of refusals must not overlap [`PROXIED`].
pub(crate) const HELD: u32 = 0x10;
pub(crate) const REFUSED: u32 = 0x12;
pub(crate) const NO_ROUTE: u32 = 0x14;
pub(crate) const HOST_UNREACHABLE: u32 = 0x18;
pub(crate) const PROHIBITED: u32 = 0x1a;

/// Right behind the chains that classify.
const BEHIND: i32 = priority::MANGLE + 1;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

fn rule() -> Rule {
    Rule::new()
}

fn mark(mark: u32) -> Rule {
    rule().is(Key::Mark, mark)
}

fn set(rule: Rule, mark: u32) -> Rule {
    rule.set_mark(Mark::Meta, MarkSource::Value(mark))
}

#[cfg(not(test))]
fn hold(rule: Rule) -> Rule {
    set(rule, HELD).queue(QUEUE)
}

/// Kernels on which tests run may lack the expression.
#[cfg(test)]
fn hold(rule: Rule) -> Rule {
    set(rule, HELD).legacy_queue(QUEUE)
}

/// The whole table.
pub(crate) fn table() -> Table {
    Table::new(Family::Inet, "caisson_egress")
        .chain(classify())
        .chain(verdict())
        .chain(pre())
        .chain(decide())
        .chain(out())
        .chain(
            Chain::base("out_decide", ChainKind::Route, Hook::Output, BEHIND)
                .rule(rule().is(Key::OifName, DEVICE).jump("verdict")),
        )
}

fn classify() -> Chain {
    let tcp = || rule().is(Key::L4Proto, ip_proto::TCP);
    let all_flags = tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK;
    Chain::new("classify")
        .comment("what leaves the machine")
        .rule(set(tcp().bits(Key::CtMark, PROXIED, PROXIED), PROXIED).return_().comment("decided"))
        .rule(
            hold(tcp().bits(Key::TcpFlags, all_flags, tcp_flag::SYN))
                .comment("held until the host has connected"),
        )
        .rule(
            set(tcp().is(Key::SocketTransparent, true).is(Key::SocketWildcard, false), PROXIED)
                .accept()
                .comment("of a connection that was forgotten"),
        )
        .rule(tcp().reject(Reject::TcpReset).comment("of no connection"))
        .rule(set(rule().is(Key::L4Proto, ip_proto::UDP), PROXIED).return_())
        .rule(hold(rule().is(Key::IcmpType, ECHO_REQUEST)))
        .rule(hold(rule().is(Key::Icmp6Type, ECHO_REQUEST_V6)))
        .rule(rule().reject(Reject::AdminProhibited).comment("no other protocol leaves"))
}

fn verdict() -> Chain {
    Chain::new("verdict")
        .comment("what the host said")
        .rule(mark(REFUSED).is(Key::L4Proto, ip_proto::TCP).reject(Reject::TcpReset))
        .rule(mark(REFUSED).reject(Reject::PortUnreachable))
        .rule(mark(HOST_UNREACHABLE).reject(Reject::HostUnreachable))
        .rule(mark(NO_ROUTE).reject(Reject::NoRoute))
        .rule(mark(PROHIBITED).reject(Reject::AdminProhibited))
        .rule(mark(HELD).drop())
        .rule(
            mark(PROXIED)
                .is(Key::L4Proto, ip_proto::TCP)
                .any_of(Key::CtState, ct_state::NEW)
                .set_mark(Mark::Ct, MarkSource::Of { mark: Mark::Ct, keep: u32::MAX, set: PROXIED }),
        )
}

/// What stays on its link: multicast, broadcast, and IPv6's link-local addresses, which mean nothing without a link. Those of
/// IPv4 (169.254.0.0/16) are the host's affair: whoever routes one here asks for what a program of the host's would
/// reach, a cloud's metadata for instance, or hears at once that there is nobody.
fn on_link() -> [Rule; 2] {
    let net = |address: &str, bits| Value::Net(address.parse().expect("an address"), bits);
    [
        rule().one_of(Key::Ip4Daddr, [net("224.0.0.0", 4), net("255.255.255.255", 32)]).return_(),
        rule().one_of(Key::Ip6Daddr, [net("ff00::", 8), net("fe80::", 10)]).return_(),
    ]
}

fn pre() -> Chain {
    Chain::base("pre", ChainKind::Filter, Hook::Prerouting, priority::MANGLE)
        .rule(rule().is(Key::IifName, "lo").accept())
        .rules(on_link())
        .rule(
            set(
                rule()
                    .is(Key::CtDirection, Direction::Reply)
                    .is(Key::SocketTransparent, true)
                    .is(Key::SocketWildcard, false),
                PROXIED,
            )
            .accept()
            .comment("an answer to a client of a published port, which is served here in its name"),
        )
        .rule(rule().is(Key::CtDirection, Direction::Reply).return_())
        .rule(rule().is(Key::FibDaddrOifName, DEVICE).goto("classify"))
}

fn decide() -> Chain {
    let proxied = |protocol, address: IpAddr| {
        rule()
            .is(Key::NfProto, protocol)
            .one_of(Key::L4Proto, [ip_proto::TCP, ip_proto::UDP])
            .is(Key::Mark, PROXIED)
            .is(Key::CtDirection, Direction::Original)
            .tproxy(address, PROXY_PORT)
            .accept()
    };
    Chain::base("decide", ChainKind::Filter, Hook::Prerouting, BEHIND)
        .rule(rule().jump("verdict"))
        .rule(proxied(nfproto::IPV4, Ipv4Addr::LOCALHOST.into()))
        .rule(proxied(nfproto::IPV6, Ipv6Addr::LOCALHOST.into()))
}

fn out() -> Chain {
    Chain::base("out", ChainKind::Route, Hook::Output, priority::MANGLE)
        .rules(on_link())
        .rule(rule().is(Key::OifName, DEVICE).is(Key::CtDirection, Direction::Original).goto("classify"))
}
