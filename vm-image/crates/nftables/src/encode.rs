//! Rules as the expressions of nf_tables' virtual machine: load into registers, compare, act.

use std::net::IpAddr;

use crate::attr::Attrs;
use crate::key::{Key, Needs};
use crate::rule::{Mark, MarkSource, NatTarget, Per, Reject, Rule, Step, Verdict};
use crate::set::{Element, Set, SetKind};
use crate::table::Family;
use crate::value::Value;

/// `NFT_REG32_00`: the first of sixteen registers of four bytes.
const REGISTER: u32 = 8;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;

/// `nft`'s data types of addresses.
const IPV4_ADDRESS: u32 = 7;
const IPV6_ADDRESS: u32 = 8;

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFT_CMP_EQ` and `NFT_CMP_NEQ`; of ranges, too.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// A set without a name that belongs to one rule, which knows it by its number in the transaction.
pub(crate) struct Anonymous {
    pub(crate) id: u32,
    pub(crate) set: Set,
}

/// The kernel gives the `%d` a number.
pub(crate) const ANONYMOUS_NAME: &str = "__set%d";

/// A rule's expressions, and the sets that must exist before it.
pub(crate) struct Encoded {
    pub(crate) expressions: Attrs,
    pub(crate) sets: Vec<Anonymous>,
}

/// Encodes a rule of a table of this family; `next_set` numbers its anonymous sets.
pub(crate) fn rule(rule: &Rule, family: Family, next_set: &mut u32) -> Encoded {
    let known = match family {
        Family::Ip => Needs { nfproto: Some(crate::nfproto::IPV4), l4proto: None },
        Family::Ip6 => Needs { nfproto: Some(crate::nfproto::IPV6), l4proto: None },
        Family::Inet | Family::Bridge => Needs::default(),
    };
    let mut writer = Writer { out: Attrs::default(), sets: Vec::new(), known, next_set };
    for step in &rule.steps {
        writer.step(step);
    }
    Encoded { expressions: writer.out, sets: writer.sets }
}

struct Writer<'a> {
    out: Attrs,
    sets: Vec<Anonymous>,
    /// What earlier matches of the rule have made sure of.
    known: Needs,
    next_set: &'a mut u32,
}

impl Writer<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attrs)) {
        self.out.nested(1, |element| {
            element.text(1, name).nested(2, fill);
        });
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Compare { key, equal, value } => {
                self.load(*key);
                if let Some(mask) = value.mask() {
                    self.mask(&mask);
                }
                self.compare(*equal, &value.bytes());
                self.learn(*key, *equal, value);
            }
            Step::Masked { key, mask, equal, value } => {
                self.load(*key);
                self.mask(&mask.bytes());
                self.compare(*equal, &value.bytes());
            }
            Step::Range { key, inside, from, to } => {
                self.load(*key);
                let operation = if *inside { EQUAL } else { UNEQUAL };
                self.expression("range", |range| {
                    range.be32(1, REGISTER).be32(2, operation);
                    data(range, 3, &from.bytes());
                    data(range, 4, &to.bytes());
                });
            }
            Step::Lookup { keys, inside, set } => {
                self.load_all(keys);
                self.lookup(set, None, None, *inside);
            }
            Step::OneOf { key, inside, values } => {
                self.load(*key);
                let id = self.anonymous(*key, values);
                self.lookup(ANONYMOUS_NAME, Some(id), None, *inside);
            }
            Step::VerdictMap { keys, map } => {
                self.load_all(keys);
                self.lookup(map, None, Some(VERDICT), true);
            }
            Step::SetMark { mark, source } => self.set_mark(*mark, *source),
            Step::Nat { source, target } => self.nat(*source, target),
            Step::Tproxy { address, port } => self.tproxy(*address, *port),
            Step::Redirect { port } => {
                self.immediate(REGISTER, &port.to_be_bytes());
                self.expression("redir", |redirect| {
                    redirect.be32(1, REGISTER);
                });
            }
            Step::Verdict(verdict) => self.expression("immediate", |immediate| {
                immediate.be32(1, VERDICT).nested(2, |data| verdict_data(data, verdict));
            }),
            Step::Counter => self.expression("counter", |_| {}),
            Step::NoTrack => self.expression("notrack", |_| {}),
            Step::Masquerade => self.expression("masq", |_| {}),
            Step::Queue { number } => self.expression("queue", |queue| {
                queue.be16(1, *number).be16(2, 1);
            }),
            #[cfg(feature = "testing")]
            Step::LegacyQueue { number } => self.expression("target", |target| {
                let mut info = [0; 8];
                info[..2].copy_from_slice(&number.to_ne_bytes());
                target.text(1, "NFQUEUE").be32(2, 0).bytes(3, &info);
            }),
            Step::Reject(how) => self.reject(*how),
            Step::Limit { rate, per, burst } => self.expression("limit", |limit| {
                let seconds = match per {
                    Per::Second => 1,
                    Per::Minute => 60,
                };
                limit.be64(1, rate.get()).be64(2, seconds).be32(3, *burst).be32(4, 0);
            }),
        }
    }

    /// Loads a key into the first register, after making sure of what it presupposes.
    fn load(&mut self, key: Key) {
        self.load_all(&[key]);
    }

    fn load_all(&mut self, keys: &[Key]) {
        for key in keys {
            self.ensure(key.needs());
        }
        let mut register = REGISTER;
        for key in keys {
            let (name, attrs) = key.load(register);
            self.expression(name, |expression| expression.0.extend_from_slice(&attrs.0));
            register += key.kind().length.div_ceil(4);
        }
    }

    fn ensure(&mut self, needs: Needs) {
        for (key, wanted, known) in [
            (Key::NfProto, needs.nfproto, self.known.nfproto),
            (Key::L4Proto, needs.l4proto, self.known.l4proto),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| known != Some(*wanted)) {
                self.step(&Step::Compare { key, equal: true, value: wanted.into() });
            }
        }
    }

    fn learn(&mut self, key: Key, equal: bool, value: &Value) {
        match (key, equal, value) {
            (Key::NfProto, true, Value::U8(protocol)) => self.known.nfproto = Some(*protocol),
            (Key::L4Proto, true, Value::U8(protocol)) => self.known.l4proto = Some(*protocol),
            _ => {}
        }
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |compare| {
            compare.be32(1, REGISTER).be32(2, if equal { EQUAL } else { UNEQUAL });
            data(compare, 3, value);
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.bitwise(mask, &vec![0; mask.len()]);
    }

    /// The first register and `mask`, exclusive-or `flip`.
    fn bitwise(&mut self, mask: &[u8], flip: &[u8]) {
        self.expression("bitwise", |bitwise| {
            let length = u32::try_from(mask.len()).expect("a mask is as long as a key");
            bitwise.be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
            data(bitwise, 4, mask);
            data(bitwise, 5, flip);
        });
    }

    fn anonymous(&mut self, key: Key, values: &[Value]) -> u32 {
        *self.next_set += 1;
        let mut set = Set::new(ANONYMOUS_NAME, [key]);
        set.elements =
            values.iter().map(|value| Element { from: value.clone(), to: None, datum: None }).collect();
        self.sets.push(Anonymous { id: *self.next_set, set });
        *self.next_set
    }

    fn lookup(&mut self, set: &str, id: Option<u32>, into: Option<u32>, inside: bool) {
        self.expression("lookup", |lookup| {
            lookup.text(1, set).be32(2, REGISTER);
            if let Some(register) = into {
                lookup.be32(3, register);
            }
            if let Some(id) = id {
                lookup.be32(4, id);
            }
            if !inside {
                lookup.be32(5, 1);
            }
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |immediate| {
            immediate.be32(1, register);
            data(immediate, 2, value);
        });
    }

    fn set_mark(&mut self, mark: Mark, source: MarkSource) {
        match source {
            MarkSource::Value(value) => self.immediate(REGISTER, &value.to_ne_bytes()),
            MarkSource::Of { mark, keep, set } => {
                self.load(match mark {
                    Mark::Meta => Key::Mark,
                    Mark::Ct => Key::CtMark,
                });
                self.bitwise(&(keep & !set).to_ne_bytes(), &set.to_ne_bytes());
            }
        }
        match mark {
            Mark::Meta => self.expression("meta", |meta| {
                meta.be32(2, 3).be32(3, REGISTER);
            }),
            Mark::Ct => self.expression("ct", |ct| {
                ct.be32(2, 3).be32(4, REGISTER);
            }),
        }
    }

    fn nat(&mut self, source: bool, target: &NatTarget) {
        let (ipv6, port) = match target {
            NatTarget::To(address, port) => {
                let address = Value::from(*address).bytes();
                self.immediate(REGISTER, &address);
                let register = REGISTER + address.len() as u32 / 4;
                if let Some(port) = port {
                    self.immediate(register, &port.to_be_bytes());
                }
                (address.len() == 16, port.map(|_| register))
            }
            NatTarget::Map { keys, map, ipv6, ports } => {
                self.load_all(keys);
                self.lookup(map, None, Some(REGISTER), true);
                (*ipv6, ports.then_some(REGISTER + if *ipv6 { 4 } else { 1 }))
            }
        };
        let family = if ipv6 { crate::nfproto::IPV6 } else { crate::nfproto::IPV4 };
        self.expression("nat", |nat| {
            nat.be32(1, u32::from(!source)).be32(2, family.into()).be32(3, REGISTER);
            if let Some(register) = port {
                nat.be32(5, register);
            }
        });
    }

    fn tproxy(&mut self, address: IpAddr, port: u16) {
        let family = if address.is_ipv4() { crate::nfproto::IPV4 } else { crate::nfproto::IPV6 };
        let address = Value::from(address).bytes();
        let register = REGISTER + address.len() as u32 / 4;
        self.immediate(REGISTER, &address);
        self.immediate(register, &port.to_be_bytes());
        self.expression("tproxy", |tproxy| {
            tproxy.be32(1, family.into()).be32(2, REGISTER).be32(3, register);
        });
    }

    fn reject(&mut self, how: Reject) {
        let icmpx = match how {
            Reject::TcpReset => None,
            Reject::NoRoute => Some(0),
            Reject::PortUnreachable => Some(1),
            Reject::HostUnreachable => Some(2),
            Reject::AdminProhibited => Some(3),
        };
        self.expression("reject", |reject| match icmpx {
            None => {
                reject.be32(1, 1);
            }
            Some(code) => {
                reject.be32(1, 2).u8(2, code);
            }
        });
    }
}

fn data(attrs: &mut Attrs, kind: u16, value: &[u8]) {
    attrs.nested(kind, |data| {
        data.bytes(DATA_VALUE, value);
    });
}

fn verdict_data(attrs: &mut Attrs, verdict: &Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    attrs.nested(DATA_VERDICT, |verdict| {
        verdict.be32(1, code as u32);
        if let Some(chain) = chain {
            verdict.text(2, chain);
        }
    });
}

/// `NFT_SET_*`.
pub(crate) mod set_flag {
    pub(crate) const ANONYMOUS: u32 = 1;
    pub(crate) const CONSTANT: u32 = 2;
    pub(crate) const INTERVAL: u32 = 4;
    pub(crate) const MAP: u32 = 8;
}

/// The attributes that declare a set.
pub(crate) fn set(attrs: &mut Attrs, table: &str, set: &Set, id: u32) {
    let mut flags = 0;
    if set.name == ANONYMOUS_NAME {
        flags |= set_flag::ANONYMOUS | set_flag::CONSTANT;
    }
    if set.has_ranges() {
        flags |= set_flag::INTERVAL;
    }
    if set.kind != SetKind::Set {
        flags |= set_flag::MAP;
    }
    let (datatype, length) = concatenated(&set.keys);
    attrs.text(1, table).text(2, &set.name).be32(3, flags).be32(4, datatype).be32(5, length);
    match &set.kind {
        SetKind::Set => {}
        SetKind::Map(data) => {
            let (datatype, length) = concatenated(data);
            attrs.be32(6, datatype).be32(7, length);
        }
        SetKind::Verdicts => {
            attrs.be32(6, 0xffff_ff00);
        }
    }
    attrs.be32(10, id);
    let mut user_data =
        key_order(&set.keys).map(|order| [&[0, 4][..], &order.to_ne_bytes()].concat()).unwrap_or_default();
    if let Some(comment) = &set.comment {
        user_data.extend(self::user_data(7, comment));
    }
    if !user_data.is_empty() {
        attrs.bytes(13, &user_data);
    }
}

/// What `nft` has to be told of a key that is not in the order of the network (`BYTEORDER_HOST_ENDIAN`).
fn key_order(keys: &[Key]) -> Option<u32> {
    let [key] = keys else { return None };
    let kind = key.kind();
    (kind.length >= 4 && kind.datatype != IPV4_ADDRESS && kind.datatype != IPV6_ADDRESS).then_some(1)
}

/// Data type and length of several keys together, as `nft` numbers them: six bits a part.
fn concatenated(keys: &[Key]) -> (u32, u32) {
    if let [key] = keys {
        let kind = key.kind();
        return (kind.datatype, kind.length);
    }
    keys.iter().map(|key| key.kind()).fold((0, 0), |(datatype, length), kind| {
        (datatype << 6 | kind.datatype, length + kind.length.next_multiple_of(4))
    })
}

/// The elements of a set as the kernel wants them, each as the content of one list entry. In a set with ranges every
/// element is a beginning and, unless it goes to the very end, the first value behind it.
pub(crate) fn elements(set: &Set) -> Vec<Attrs> {
    let ranges = set.has_ranges();
    let mut all = Vec::with_capacity(set.elements.len());
    for element in &set.elements {
        let (first, _) = element.from.bounds();
        let (_, last) = element.to.as_ref().unwrap_or(&element.from).bounds();
        all.push(one_element(&first, element, false));
        if let Some(behind) = ranges.then(|| successor(&last)).flatten() {
            all.push(one_element(&behind, element, true));
        }
    }
    all
}

fn one_element(key: &[u8], element: &Element, end: bool) -> Attrs {
    use crate::set::Datum;
    let mut attrs = Attrs::default();
    data(&mut attrs, 1, key);
    if end {
        attrs.be32(3, 1);
        return attrs;
    }
    match &element.datum {
        None => {}
        Some(Datum::Value(value)) => data(&mut attrs, 2, &value.bytes()),
        Some(Datum::Verdict(verdict)) => {
            attrs.nested(2, |data| verdict_data(data, verdict));
        }
    }
    attrs
}

/// The next greater value, if there is one.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// A comment as `nft` keeps it: type, length, text with its NUL. What is longer than `nft` allows is cut.
pub(crate) fn user_data(kind: u8, comment: &str) -> Vec<u8> {
    const LONGEST: usize = 127;
    let end = (0..=comment.len().min(LONGEST)).rev().find(|&end| comment.is_char_boundary(end)).unwrap_or(0);
    let mut bytes = vec![kind, end as u8 + 1];
    bytes.extend_from_slice(&comment.as_bytes()[..end]);
    bytes.push(0);
    bytes
}
