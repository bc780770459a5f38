//! As much of DNS messages as the system's resolver call can answer (RFC 1035, section 4; RFC 3596).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long an answer may be kept. The system's call does not tell how long its own holds, and may have it from a file.
const TTL_SECS: u32 = 10;

const HEADER: usize = 12;
/// The class of everything on the internet.
pub(super) const INTERNET: u16 = 1;
/// A reply, recursion was desired (as asked), and recursion is available.
const REPLY: u16 = 0x8000;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE: u16 = 0x7800;
/// "The name at offset 12", which is the question's.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// Types of records.
pub(super) mod kind {
    pub(in super::super) const A: u16 = 1;
    pub(in super::super) const PTR: u16 = 12;
    pub(in super::super) const AAAA: u16 = 28;
}

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Fine = 0,
    Failed = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: Code,
    pub(super) records: Vec<Record>,
}

/// A record of an answer; its type follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

impl Answer {
    pub(super) fn of(code: Code) -> Self {
        Self { code, records: Vec::new() }
    }

    pub(super) fn records(records: Vec<Record>) -> Self {
        Self { code: Code::Fine, records }
    }
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query<'a> {
    id: u16,
    flags: u16,
    /// Without a dot at its end.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    question: &'a [u8],
}

impl<'a> Query<'a> {
    /// `None` for what is no such thing, or asks for a name that no program could ask for.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (id, flags, questions) = (word(0)?, word(2)?, word(4)?);
        if flags & (REPLY | OPCODE) != 0 || questions != 1 {
            return None;
        }
        let (name, end) = name(bytes, HEADER)?;
        Some(Self {
            id,
            flags,
            name,
            kind: word(end)?,
            class: word(end + 2)?,
            question: bytes.get(HEADER..end + 4)?,
        })
    }

    /// Whether a message is a reply to this question, asked under this number.
    pub(super) fn is_answered_by(&self, id: u16, reply: &[u8]) -> bool {
        let word = |at: usize| Some(u16::from_be_bytes(*reply.get(at..)?.first_chunk()?));
        word(0) == Some(id)
            && word(2).is_some_and(|flags| flags & REPLY != 0)
            && word(4) == Some(1)
            && reply.get(HEADER..HEADER + self.question.len()) == Some(self.question)
    }

    /// The address whose name is asked for (`in-addr.arpa`, `ip6.arpa`).
    pub(super) fn reversed(&self) -> Option<IpAddr> {
        let name = self.name.to_ascii_lowercase();
        if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
            let octets: Vec<u8> = octets.rsplit('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            return Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)));
        }
        let nibbles: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
        if nibbles.len() != 32 {
            return None;
        }
        u128::from_str_radix(&nibbles, 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from(bits)))
    }

    /// The reply. Records that do not fit are left out; there is room for thousands.
    pub(super) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let records: Vec<_> = answer.records.iter().filter_map(record).take(1000).collect();
        let flags = REPLY | RECURSION_AVAILABLE | self.flags & RECURSION_DESIRED | answer.code as u16;
        let counts = [1, u16::try_from(records.len()).expect("at most a thousand"), 0, 0];
        let mut bytes = Vec::new();
        for word in [self.id, flags].into_iter().chain(counts) {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(self.question);
        for (kind, data) in records {
            bytes.extend_from_slice(&NAME_OF_QUESTION);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&INTERNET.to_be_bytes());
            bytes.extend_from_slice(&TTL_SECS.to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(data.len()).expect("a name at most").to_be_bytes());
            bytes.extend_from_slice(&data);
        }
        bytes
    }
}

/// The name at an offset, and where it ends. A query's question has no pointers.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        // What the system's call is asked for must say the same to it: no dot inside a label, nothing that ends a string.
        if name.len() + length > 253 || !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        name.push_str(std::str::from_utf8(label).ok()?);
    }
}

fn record(record: &Record) -> Option<(u16, Vec<u8>)> {
    match record {
        Record::Address(IpAddr::V4(address)) => Some((kind::A, address.octets().to_vec())),
        Record::Address(IpAddr::V6(address)) => Some((kind::AAAA, address.octets().to_vec())),
        Record::Name(name) => {
            let mut data = Vec::new();
            for label in name.trim_end_matches('.').split('.') {
                data.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            Some((kind::PTR, data)).filter(|(_, data)| data.len() < 256)
        }
    }
}

#[cfg(test)]
pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&INTERNET.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_answered() {
        let bytes = query(7, "Example.org", kind::A);
        let parsed = Query::parse(&bytes).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.kind, parsed.class), ("Example.org", kind::A, INTERNET));
        let answer = parsed.answer(&Answer::records(vec![Record::Address("1.2.3.4".parse().unwrap())]));
        assert_eq!(answer[..12], [0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..bytes.len()], bytes[12..]);
        assert_eq!(answer[bytes.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 1, 2, 3, 4]);
        assert_eq!(parsed.answer(&Answer::of(Code::NoSuchName))[3], 0x83);
    }

    #[test]
    fn a_reply_is_known_by_its_number_and_its_question() {
        let bytes = query(7, "example.org", kind::A);
        let parsed = Query::parse(&bytes).unwrap();
        let reply = parsed.answer(&Answer::records(vec![Record::Address("1.2.3.4".parse().unwrap())]));
        assert!(parsed.is_answered_by(7, &reply));
        assert!(!parsed.is_answered_by(8, &reply), "another number");
        assert!(!parsed.is_answered_by(7, &bytes), "no reply");
        for other in [query(7, "example.com", kind::A), query(7, "example.org", kind::AAAA)] {
            let other = Query::parse(&other).unwrap().answer(&Answer::of(Code::Fine));
            assert!(!parsed.is_answered_by(7, &other), "another question");
        }
        for cut in 0..bytes.len() {
            assert!(!parsed.is_answered_by(7, &reply[..cut]), "{cut}");
        }
    }

    #[test]
    fn addresses_are_read_from_reversed_names() {
        for (name, address) in [
            ("4.3.2.1.in-addr.arpa", Some("1.2.3.4")),
            (
                "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                Some("2001:db8::567:89ab"),
            ),
            ("3.2.1.in-addr.arpa", None),
            ("256.3.2.1.in-addr.arpa", None),
            ("8.b.d.0.1.0.0.2.ip6.arpa", None),
            ("example.org", None),
        ] {
            let bytes = query(0, name, kind::PTR);
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(Query::parse(&bytes).unwrap().reversed(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused_at_every_length() {
        let whole = query(1, "a.b", kind::A);
        for cut in 0..whole.len() {
            assert_eq!(Query::parse(&whole[..cut]), None, "{cut}");
        }
        let mut reply = whole.clone();
        reply[2] |= 0x80;
        assert_eq!(Query::parse(&reply), None);
        for label in [&b"a.b"[..], b"a\0b", b"a b", b"\xff"] {
            let mut odd = whole[..HEADER].to_vec();
            odd.push(label.len() as u8);
            odd.extend_from_slice(label);
            odd.extend_from_slice(&[0, 0, 1, 0, 1]);
            assert_eq!(Query::parse(&odd), None, "{label:?}");
        }
    }
}
