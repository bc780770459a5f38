//! Against the kernel, each test in a network namespace of its own; read back with Debian's `nft`.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::process::Command;
use std::time::Duration;

use caisson_sys::netns;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the kernel has, in the words of `nft`.
fn listed() -> String {
    let output =
        Command::new("nft").args(["-n", "list", "ruleset"]).output().expect("nft of package nftables");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Each line without what is around it and without runs of spaces.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn assert_listed(expected: &str) {
    let listed = listed();
    assert_eq!(lines(&listed), lines(expected), "the kernel has:\n{listed}");
}

fn one_rule(rule: Rule) -> Table {
    Table::new(Family::Inet, "t")
        .chain(Chain::base("c", ChainKind::Filter, Hook::Prerouting, priority::MANGLE).rule(rule))
}

/// Rules with what `nft` calls them.
fn matches() -> Vec<(Rule, &'static str)> {
    let rate = NonZeroU64::new(5).unwrap();
    let rule = Rule::new;
    vec![
        (rule().is(Key::IifName, "lo").accept(), "iifname \"lo\" accept"),
        (rule().is_not(Key::IifName, "br-*").counter(), "iifname != \"br-*\" counter packets 0 bytes 0"),
        (rule().is(Key::NfProto, nfproto::IPV6).return_(), "meta nfproto 10 return"),
        (rule().is(Key::L4Proto, ip_proto::UDP).drop(), "meta l4proto 17 drop"),
        (rule().bits(Key::Mark, 0x11u32, 0x10u32).drop(), "meta mark & 0x00000011 == 0x00000010 drop"),
        (rule().is(Key::Ip4Saddr, address("10.1.2.3")).accept(), "ip saddr 10.1.2.3 accept"),
        (rule().is(Key::Ip4Daddr, (address("10.1.2.3"), 20)).accept(), "ip daddr 10.1.0.0/20 accept"),
        (rule().is_not(Key::Ip6Saddr, address("fd00::1")).accept(), "ip6 saddr != fd00::1 accept"),
        (rule().is(Key::Ip6Daddr, (address("fe80::"), 10)).accept(), "ip6 daddr fe80::/10 accept"),
        (rule().is(Key::TcpDport, 80u16).accept(), "tcp dport 80 accept"),
        (rule().between(Key::UdpSport, 1000u16, 2000u16).accept(), "udp sport 1000-2000 accept"),
        (
            rule().is(Key::UdpDport, 4789u16).is(Key::VxlanVni, Value::Vni(4097)).drop(),
            "udp dport 4789 @th,96,24 0x1001 drop",
        ),
        (
            rule().bits(Key::TcpFlags, 0x17u8, tcp_flag::SYN).accept(),
            "tcp flags 0x2 / 0x1,0x2,0x4,0x10 accept",
        ),
        (rule().is(Key::IcmpType, 8u8).accept(), "icmp type 8 accept"),
        (rule().is(Key::Icmp6Type, 128u8).accept(), "icmpv6 type 128 accept"),
        (
            rule().any_of(Key::CtState, ct_state::ESTABLISHED | ct_state::RELATED).accept(),
            "ct state 0x2,0x4 accept",
        ),
        (rule().any_of(Key::CtStatus, ct_status::DNAT).accept(), "ct status 0x20 accept"),
        (rule().is(Key::CtMark, 7u32).accept(), "ct mark 0x00000007 accept"),
        (rule().is(Key::CtDirection, Direction::Reply).return_(), "ct direction 1 return"),
        (rule().is(Key::FibDaddrType, fib_type::LOCAL).accept(), "fib daddr type 2 accept"),
        (rule().is(Key::FibDaddrOifName, "egress0").accept(), "fib daddr oifname \"egress0\" accept"),
        (
            rule()
                .is(Key::L4Proto, ip_proto::TCP)
                .is(Key::SocketTransparent, true)
                .is(Key::SocketWildcard, false)
                .accept(),
            "meta l4proto 6 socket transparent 1 socket wildcard 0 accept",
        ),
        (
            rule()
                .one_of(Key::Ip4Daddr, [(address("224.0.0.0"), 4), (address("255.255.255.255"), 32)])
                .return_(),
            "ip daddr { 224.0.0.0/4, 255.255.255.255 } return",
        ),
        (
            rule().one_of(Key::L4Proto, [ip_proto::TCP, ip_proto::UDP]).accept(),
            "meta l4proto { 6, 17 } accept",
        ),
        (rule().not_one_of(Key::TcpDport, [1u16, 2]).accept(), "tcp dport != { 1, 2 } accept"),
        (rule().limit(rate, Per::Second, 9).accept(), "limit rate 5/second burst 9 packets accept"),
        (rule().set_mark(Mark::Meta, MarkSource::Value(1)), "meta mark set 0x00000001"),
        (
            rule().set_mark(Mark::Ct, MarkSource::Of { mark: Mark::Ct, keep: u32::MAX, set: 1 }),
            "ct mark set ct mark | 0x00000001",
        ),
        (
            rule().set_mark(Mark::Meta, MarkSource::Of { mark: Mark::Ct, keep: 0xff, set: 0 }),
            "meta mark set ct mark & 0x000000ff",
        ),
        (
            rule().is(Key::L4Proto, ip_proto::TCP).reject(Reject::TcpReset),
            "meta l4proto 6 reject with tcp reset",
        ),
        (rule().reject(Reject::AdminProhibited), "reject with icmpx 3"),
        (rule().reject(Reject::NoRoute), "reject with icmpx 0"),
        (
            rule()
                .is(Key::NfProto, nfproto::IPV4)
                .is(Key::L4Proto, ip_proto::TCP)
                .tproxy(address("127.0.0.1"), 15001),
            "meta nfproto 2 meta l4proto 6 tproxy ip to 127.0.0.1:15001",
        ),
        (
            rule()
                .is(Key::NfProto, nfproto::IPV6)
                .is(Key::L4Proto, ip_proto::TCP)
                .tproxy(address("::1"), 15001),
            "meta nfproto 10 meta l4proto 6 tproxy ip6 to [::1]:15001",
        ),
    ]
}

#[test]
fn each_kind_of_match_and_statement_arrives_as_meant() {
    netns::isolated(|| {
        let kernel = Kernel::open().unwrap();
        let listed = matches().into_iter().map(|(rule, _)| {
            kernel.replace(&one_rule(rule)).unwrap();
            lines(&listed()).swap_remove(3)
        });
        let listed: Vec<_> = listed.collect();
        let expected: Vec<_> = matches().into_iter().map(|(_, expected)| expected).collect();
        assert_eq!(listed.join("\n"), expected.join("\n"));
    });
}

#[test]
fn a_whole_table_is_listed_as_it_was_written() {
    netns::isolated(|| {
        let table = Table::new(Family::Inet, "caisson")
            .set(
                Set::new("local", [Key::Ip4Daddr])
                    .element((address("10.0.0.0"), 8))
                    .range(address("192.168.1.5"), address("192.168.1.9")),
            )
            .set(
                Set::map("ports", [Key::Ip4Daddr, Key::TcpDport], [Key::Ip4Daddr, Key::TcpDport])
                    .entry(
                        vec![address("127.0.0.1").into(), 8080u16.into()],
                        Value::from(vec![address("172.17.0.2").into(), 80u16.into()]),
                    )
                    .comment("published"),
            )
            .set(
                Set::verdicts("by_port", [Key::TcpDport])
                    .entry(22u16, Verdict::Drop)
                    .entry(80u16, Verdict::Jump("web".into())),
            )
            .set(Set::new("bridges", [Key::IifName]).element("br0").element("br1"))
            .chain(Chain::new("web").rule(Rule::new().counter().accept().comment("the web")))
            .chain(
                Chain::base("in", ChainKind::Filter, Hook::Input, priority::FILTER)
                    .policy(Policy::Drop)
                    .rule(Rule::new().not_in_set([Key::Ip4Daddr], "local").drop())
                    .rule(Rule::new().in_set([Key::IifName], "bridges").goto("web"))
                    .rule(Rule::new().verdict_map([Key::TcpDport], "by_port")),
            )
            .chain(
                Chain::base("nat", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT)
                    .rule(Rule::new().dnat(NatTarget::Map {
                        keys: vec![Key::Ip4Daddr, Key::TcpDport],
                        map: "ports".into(),
                        ipv6: false,
                        ports: true,
                    }))
                    .rule(Rule::new().is(Key::TcpDport, 81u16).redirect(8081))
                    .rule(
                        Rule::new()
                            .is(Key::Ip6Daddr, address("fd00::1"))
                            .is(Key::UdpDport, 53u16)
                            .dnat(NatTarget::To(address("fd00::2"), Some(53))),
                    ),
            )
            .chain(
                Chain::base("out", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT)
                    .rule(
                        Rule::new()
                            .is(Key::Ip4Saddr, (address("172.17.0.0"), 16))
                            .is_not(Key::OifName, "docker0")
                            .masquerade(),
                    )
                    .rule(
                        Rule::new()
                            .is(Key::NfProto, nfproto::IPV4)
                            .snat(NatTarget::To(address("10.9.9.9"), None)),
                    ),
            );
        Kernel::open().unwrap().replace(&table).unwrap();
        assert_listed(
            r#"table inet caisson {
            set local {
                type ipv4_addr
                flags interval
                elements = { 10.0.0.0/8, 192.168.1.5-192.168.1.9 }
            }

            map ports {
                type ipv4_addr . inet_service : ipv4_addr . inet_service
                comment "published"
                elements = { 127.0.0.1 . 8080 : 172.17.0.2 . 80 }
            }

            map by_port {
                type inet_service : verdict
                elements = { 22 : drop, 80 : jump web }
            }

            set bridges {
                type ifname
                elements = { "br0",
                             "br1" }
            }

            chain web {
                counter packets 0 bytes 0 accept comment "the web"
            }

            chain in {
                type filter hook input priority 0; policy drop;
                ip daddr != @local drop
                iifname @bridges goto web
                tcp dport vmap @by_port
            }

            chain nat {
                type nat hook prerouting priority -100; policy accept;
                dnat ip to ip daddr . tcp dport map @ports
                tcp dport 81 redirect to :8081
                ip6 daddr fd00::1 udp dport 53 dnat ip6 to [fd00::2]:53
            }

            chain out {
                type nat hook postrouting priority 100; policy accept;
                ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
                meta nfproto 2 snat ip to 10.9.9.9
            }
        }"#,
        );
        let printed = lines(&table.to_string());
        for line in
            ["ip daddr != @local drop", "counter accept comment \"the web\"", "tcp dport vmap @by_port"]
        {
            assert!(printed.iter().any(|printed| printed == line), "{line} in\n{table}");
        }
    });
}

#[test]
fn a_refused_rule_is_named_and_changes_nothing() {
    netns::isolated(|| {
        let kernel = Kernel::open().unwrap();
        kernel.replace(&one_rule(Rule::new().accept())).unwrap();
        let before = listed();
        let table = one_rule(Rule::new().drop())
            .chain(Chain::new("d").rule(Rule::new().is(Key::IifName, "lo").jump("nowhere")));
        let error = kernel.replace(&table).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(r#"add the rule "iifname "lo" jump nowhere" to chain d"#), "{said}");
        assert_eq!(error.reason().kind(), std::io::ErrorKind::NotFound);
        assert_eq!(listed(), before);
    });
}

#[test]
fn replacing_and_deleting_leave_nothing_behind() {
    netns::isolated(|| {
        let kernel = Kernel::open().unwrap();
        let table = one_rule(Rule::new().one_of(Key::TcpDport, [1u16, 2]).accept());
        for _ in 0..3 {
            kernel.replace(&table).unwrap();
        }
        assert_eq!(listed().matches("table").count(), 1);
        assert!(kernel.has_table(Family::Inet, "t").unwrap());
        assert!(!kernel.has_table(Family::Ip, "t").unwrap() && !kernel.has_table(Family::Inet, "u").unwrap());
        for _ in 0..2 {
            kernel.delete(Family::Inet, "t").unwrap();
        }
        assert_eq!(listed(), "");
        assert!(!kernel.has_table(Family::Inet, "t").unwrap());
    });
}

fn nft(command: &str) {
    let done = Command::new("nft").arg(command).output().expect("nft of package nftables");
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A table with something of each kind that can be taken out of it.
fn full_table() -> Table {
    let set = Set::new("s", [Key::TcpDport]).element(1u16).element(2u16);
    let rules = (0..2000u16).map(|n| Rule::new().is(Key::TcpDport, n).accept());
    let chain = Chain::base("c", ChainKind::Filter, Hook::Forward, priority::FILTER).rules(rules);
    Table::new(Family::Inet, "t").set(set).chain(chain)
}

#[test]
fn what_others_change_in_a_table_is_heard_of_once_and_what_one_does_oneself_is_not() {
    netns::isolated(|| {
        let (own, other) = (Kernel::open().unwrap(), Kernel::open().unwrap());
        let changes = Changes::of_others(&own, Family::Inet, "t").unwrap();
        let is_told = || {
            let mut polled = [rustix::event::PollFd::new(&changes, rustix::event::PollFlags::IN)];
            let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut polled, Some(&at_once)).unwrap() > 0
        };
        for command in [
            "flush chain inet t c",
            "flush set inet t s",
            "delete element inet t s { 2 }",
            "insert rule inet t c accept",
            "add chain inet t d",
            "chain inet t c { policy drop; }",
            "delete table inet t",
            "flush ruleset",
        ] {
            own.replace(&full_table()).unwrap();
            assert!(!is_told(), "before {command}");
            nft(command);
            assert!(is_told(), "{command}");
            assert_eq!(changes.take(), Some(Change::Made { by: Some("nft".into()) }), "{command}");
            assert!(!is_told() && changes.take().is_none(), "after {command}");
        }
        own.replace(&full_table()).unwrap();
        for (family, name) in [(Family::Inet, "u"), (Family::Ip, "t")] {
            other.replace(&Table::new(family, name)).unwrap();
            assert!(is_told());
            assert_eq!(changes.take(), None, "another table");
        }
    });
}

#[test]
fn more_changes_than_can_be_heard_are_told_of_and_no_change_of_the_table() {
    netns::isolated(|| {
        let (own, other) = (Kernel::open().unwrap(), Kernel::open().unwrap());
        let changes = Changes::of_others(&own, Family::Inet, "t").unwrap();
        let rules = (0..20_000u16).map(|n| Rule::new().is(Key::TcpDport, n).accept());
        let large = Table::new(Family::Inet, "u").chain(Chain::new("c").rules(rules));
        other.replace(&large).unwrap();
        assert_eq!(changes.take(), None, "there is room for one as large as this");
        rustix::net::sockopt::set_socket_recv_buffer_size(&changes, 64 * 1024).unwrap();
        other.replace(&large).unwrap();
        assert_eq!(changes.take(), Some(Change::Unheard));
        assert_eq!(changes.take(), None);
        nft("add table inet t");
        assert_eq!(changes.take(), Some(Change::Made { by: Some("nft".into()) }));
    });
}

#[test]
fn thousands_of_elements_and_rules_fit_into_one_change() {
    netns::isolated(|| {
        let mut set = Set::new("s", [Key::Ip4Daddr, Key::TcpDport]);
        let mut chain = Chain::new("c");
        for n in 0..6000u16 {
            set = set.element(vec![address("10.0.0.1").into(), n.into()]);
            chain = chain.rule(Rule::new().is(Key::TcpDport, n).accept().comment(format!("rule {n}")));
        }
        Kernel::open().unwrap().replace(&Table::new(Family::Inet, "t").set(set).chain(chain)).unwrap();
        let listed = listed();
        assert_eq!(listed.matches("comment").count(), 6000);
        assert_eq!(listed.matches("10.0.0.1 . ").count(), 6000);
    });
}

#[test]
fn packets_meet_the_rules() {
    netns::isolated(|| {
        caisson_sys::loopback::up().unwrap();
        let kernel = Kernel::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let chain = |rule| {
            Table::new(Family::Inet, "t")
                .chain(Chain::base("c", ChainKind::Filter, Hook::Output, priority::FILTER).rule(rule))
        };
        kernel.replace(&chain(Rule::new().is(Key::TcpDport, open.port()).reject(Reject::TcpReset))).unwrap();
        let refused = TcpStream::connect_timeout(&open, Duration::from_secs(10)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        kernel.replace(&chain(Rule::new().is(Key::UdpDport, open.port()).drop())).unwrap();
        TcpStream::connect(open).unwrap();
    });
}

#[test]
fn a_comment_that_is_too_long_is_cut_between_characters() {
    netns::isolated(|| {
        let comment = "ä".repeat(100);
        Kernel::open().unwrap().replace(&one_rule(Rule::new().accept().comment(comment))).unwrap();
        assert!(listed().contains(&format!("\"{}\"", "ä".repeat(63))));
    });
}
