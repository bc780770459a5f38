//! A table as text, as `nft list` writes it.

use std::fmt::{Display, Formatter, Result, Write};

use crate::key::{Direction, Key, fib_type, ip_proto, nfproto};
use crate::rule::{Mark, MarkSource, NatTarget, Per, Reject, Rule, Step, Verdict};
use crate::set::{Datum, Element, Set, SetKind};
use crate::table::{Base, Chain, ChainKind, Family, Hook, Policy, Table};
use crate::value::Value;

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { family, name, sets, chains } = self;
        writeln!(f, "table {family} {name} {{")?;
        let mut first = true;
        for set in sets {
            blank(f, &mut first)?;
            write!(f, "{set}")?;
        }
        for chain in chains {
            blank(f, &mut first)?;
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

fn blank(f: &mut Formatter<'_>, first: &mut bool) -> Result {
    if std::mem::take(first) { Ok(()) } else { writeln!(f) }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
        })
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(comment) = &self.comment {
            writeln!(f, "\t\tcomment \"{comment}\"")?;
        }
        if let Some(Base { kind, hook, priority, policy }) = self.base {
            let hook = match hook {
                Hook::Prerouting => "prerouting",
                Hook::Input => "input",
                Hook::Forward => "forward",
                Hook::Output => "output",
                Hook::Postrouting => "postrouting",
            };
            let policy = match policy {
                Policy::Accept => "accept",
                Policy::Drop => "drop",
            };
            writeln!(f, "\t\ttype {} hook {hook} priority {priority}; policy {policy};", kind.text())?;
        }
        for rule in &self.rules {
            write!(f, "\t\t{rule}")?;
            match &rule.comment {
                Some(comment) => writeln!(f, " comment \"{comment}\"")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "\t}}")
    }
}

impl ChainKind {
    /// What `nft` and the kernel call it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Route => "route",
            Self::Nat => "nat",
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let word = if self.kind == SetKind::Set { "set" } else { "map" };
        writeln!(f, "\t{word} {} {{", self.name)?;
        write!(f, "\t\ttypeof {}", keys(&self.keys))?;
        match &self.kind {
            SetKind::Set => writeln!(f)?,
            SetKind::Map(data) => writeln!(f, " : {}", keys(data))?,
            SetKind::Verdicts => writeln!(f, " : verdict")?,
        }
        if self.has_ranges() {
            writeln!(f, "\t\tflags interval")?;
        }
        if let Some(comment) = &self.comment {
            writeln!(f, "\t\tcomment \"{comment}\"")?;
        }
        if !self.elements.is_empty() {
            let elements = self.elements.iter().map(|element| self.element_text(element));
            writeln!(f, "\t\telements = {{ {} }}", join(elements, ", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Set {
    fn element_text(&self, Element { from, to, datum }: &Element) -> String {
        let mut text = values(&self.keys, from);
        if let Some(to) = to {
            let _ = write!(text, "-{}", values(&self.keys, to));
        }
        match (datum, &self.kind) {
            (Some(Datum::Value(value)), SetKind::Map(data)) => {
                let _ = write!(text, " : {}", values(data, value));
            }
            (Some(Datum::Verdict(verdict)), _) => {
                let _ = write!(text, " : {verdict}");
            }
            _ => {}
        }
        text
    }
}

/// Without its comment.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&join(self.steps.iter().map(ToString::to_string), " "))
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Compare { key, equal, value } => {
                write!(f, "{key} {}{}", not(*equal), value_text(*key, value))
            }
            Self::Masked { key, mask, equal: false, value: Value::U32(0) } => {
                write!(f, "{key} {}", value_text(*key, mask))
            }
            Self::Masked { key, mask, equal: true, value: Value::U32(0) } => {
                write!(f, "{key} ! {}", value_text(*key, mask))
            }
            Self::Masked { key, mask, equal, value } => {
                let sign = if *equal { "==" } else { "!=" };
                write!(f, "{key} & {} {sign} {}", value_text(*key, mask), value_text(*key, value))
            }
            Self::Range { key, inside, from, to } => {
                write!(f, "{key} {}{}-{}", not(*inside), value_text(*key, from), value_text(*key, to))
            }
            Self::Lookup { keys: looked_up, inside, set } => {
                write!(f, "{} {}@{set}", keys(looked_up), not(*inside))
            }
            Self::OneOf { key, inside, values } => {
                let values = values.iter().map(|value| value_text(*key, value));
                write!(f, "{key} {}{{ {} }}", not(*inside), join(values, ", "))
            }
            Self::VerdictMap { keys: looked_up, map } => write!(f, "{} vmap @{map}", keys(looked_up)),
            Self::Counter => f.write_str("counter"),
            Self::Limit { rate, per, burst } => {
                let per = match per {
                    Per::Second => "second",
                    Per::Minute => "minute",
                };
                write!(f, "limit rate {rate}/{per} burst {burst} packets")
            }
            Self::SetMark { mark, source } => write!(f, "{mark} set {source}"),
            Self::NoTrack => f.write_str("notrack"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::Queue { number } => write!(f, "queue to {number}"),
            #[cfg(feature = "testing")]
            Self::LegacyQueue { number } => write!(f, "xt target NFQUEUE num {number}"),
            Self::Reject(how) => write!(f, "reject with {}", how.text()),
            Self::Nat { source, target } => {
                write!(f, "{} {target}", if *source { "snat" } else { "dnat" })
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Redirect { port } => write!(f, "redirect to :{port}"),
            Self::Tproxy { address, port } => write!(f, "tproxy {}", address_text(*address, Some(*port))),
        }
    }
}

impl Display for NatTarget {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::To(address, port) => f.write_str(&address_text(*address, *port)),
            Self::Map { keys: looked_up, map, ipv6, .. } => {
                write!(f, "{} to {} map @{map}", if *ipv6 { "ip6" } else { "ip" }, keys(looked_up))
            }
        }
    }
}

fn address_text(address: std::net::IpAddr, port: Option<u16>) -> String {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    match port {
        Some(port) => format!("{family} to {}", std::net::SocketAddr::new(address, port)),
        None => format!("{family} to {address}"),
    }
}

impl Reject {
    fn text(self) -> &'static str {
        match self {
            Self::TcpReset => "tcp reset",
            Self::NoRoute => "icmpx no-route",
            Self::PortUnreachable => "icmpx port-unreachable",
            Self::HostUnreachable => "icmpx host-unreachable",
            Self::AdminProhibited => "icmpx admin-prohibited",
        }
    }
}

impl Display for Mark {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Meta => "meta mark",
            Self::Ct => "ct mark",
        })
    }
}

impl Display for MarkSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Value(value) => write!(f, "{value:#010x}"),
            Self::Of { mark, keep: u32::MAX, set } => write!(f, "{mark} | {set:#010x}"),
            Self::Of { mark, keep, set: 0 } => write!(f, "{mark} & {keep:#010x}"),
            Self::Of { mark, keep, set } => write!(f, "{mark} & {keep:#010x} | {set:#010x}"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.kind().text)
    }
}

fn not(positive: bool) -> &'static str {
    if positive { "" } else { "!= " }
}

fn join(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

fn keys(keys: &[Key]) -> String {
    join(keys.iter().map(ToString::to_string), " . ")
}

fn values(keys: &[Key], value: &Value) -> String {
    match value {
        Value::Concat(parts) => join(keys.iter().zip(parts).map(|(key, part)| value_text(*key, part)), " . "),
        one => keys.first().map(|key| value_text(*key, one)).unwrap_or_default(),
    }
}

fn value_text(key: Key, value: &Value) -> String {
    match (key, value) {
        (Key::NfProto, Value::U8(nfproto::IPV4)) => "ipv4".into(),
        (Key::NfProto, Value::U8(nfproto::IPV6)) => "ipv6".into(),
        (Key::L4Proto, Value::U8(protocol)) => protocol_text(*protocol),
        (Key::TcpFlags, Value::U8(flags)) => {
            named(u32::from(*flags), &["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"], "|")
        }
        (Key::CtState, Value::U32(bits)) => {
            named(*bits, &["invalid", "established", "related", "new", "", "", "untracked"], ",")
        }
        (Key::CtStatus, Value::U32(bits)) => named(
            *bits,
            &[
                "expected",
                "seen-reply",
                "assured",
                "confirmed",
                "snat",
                "dnat",
                "seq-adjust",
                "",
                "",
                "dying",
            ],
            ",",
        ),
        (Key::CtDirection, Value::U8(direction)) if *direction == Direction::Original as u8 => {
            "original".into()
        }
        (Key::CtDirection, Value::U8(_)) => "reply".into(),
        (Key::FibDaddrType | Key::FibSaddrType, Value::U32(fib_type::LOCAL)) => "local".into(),
        (Key::FibDaddrType | Key::FibSaddrType, Value::U32(fib_type::BROADCAST)) => "broadcast".into(),
        (Key::IcmpType | Key::Icmp6Type, Value::U8(8 | 128)) => "echo-request".into(),
        (_, Value::U8(value)) => value.to_string(),
        (_, Value::Port(port)) => port.to_string(),
        (_, Value::U32(value)) => format!("{value:#010x}"),
        (_, Value::Vni(number)) => format!("{number:#x}"),
        (_, Value::V4(address)) => address.to_string(),
        (_, Value::V6(address)) => address.to_string(),
        (_, Value::Net(address, length)) => format!("{address}/{length}"),
        (_, Value::Name(name)) => format!("\"{name}\""),
        (_, Value::Concat(parts)) => join(parts.iter().map(|part| value_text(key, part)), " . "),
    }
}

fn protocol_text(protocol: u8) -> String {
    match protocol {
        ip_proto::ICMP => "icmp".into(),
        ip_proto::TCP => "tcp".into(),
        ip_proto::UDP => "udp".into(),
        ip_proto::ICMPV6 => "ipv6-icmp".into(),
        other => other.to_string(),
    }
}

/// The names of the bits that are set; the number if one has no name.
fn named(bits: u32, names: &[&str], between: &str) -> String {
    let name = |bit: u32| names.get(bit as usize).copied().filter(|name| !name.is_empty());
    let set: Option<Vec<_>> = (0..u32::BITS).filter(|bit| bits & 1 << bit != 0).map(name).collect();
    match set {
        Some(names) if !names.is_empty() => names.join(between),
        _ => format!("{bits:#x}"),
    }
}
