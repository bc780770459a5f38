//! Questions and answers (RFC 1035), as far as we make them ourselves.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom;

use super::names::Found;

/// How long others may remember our answers, in seconds; as dockerd's.
const TTL: u32 = 600;

/// What fits into a UDP answer for a client that says nothing of it, in bytes.
const SMALLEST_UDP: u16 = 512;

/// A question.
pub(super) struct Question {
    message: Message,
    query: Query,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The addresses behind a name.
    Addresses(String),
    /// The name behind an address.
    NameOf(IpAddr),
    /// What only others can know.
    Other,
}

impl Question {
    /// Reads one; `None` if it is none, or more than one, which nobody asks.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let is_question =
            message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
        match message.queries.as_slice() {
            [query] if is_question => {
                let query = query.clone();
                Some(Self { message, query })
            }
            _ => None,
        }
    }

    pub(super) fn wanted(&self) -> Wanted {
        if self.query.query_class != DNSClass::IN {
            return Wanted::Other;
        }
        match self.query.query_type {
            RecordType::A | RecordType::AAAA => Wanted::Addresses(self.query.name.to_utf8()),
            RecordType::PTR => match self.query.name.parse_arpa_name() {
                Ok(range) if range.prefix_len() == range.max_prefix_len() => Wanted::NameOf(range.addr()),
                _ => Wanted::Other,
            },
            _ => Wanted::Other,
        }
    }

    /// What it is remembered under.
    pub(super) fn key(&self) -> (Query, bool, bool) {
        let name = self.query.name.to_lowercase();
        let mut query = self.query.clone();
        query.name = name;
        let secure = self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        (query, secure, self.message.metadata.checking_disabled)
    }

    /// The answer with these addresses, in an order that is different each time, so that they share the work.
    pub(super) fn answer(&self, found: &Found) -> Message {
        let mut data: Vec<RData> = match self.query.query_type {
            RecordType::A => found.ipv4.iter().map(|address| RData::A(A(*address))).collect(),
            _ => found.ipv6.iter().map(|address| RData::AAAA(AAAA(*address))).collect(),
        };
        data.shuffle(&mut rand::rng());
        self.with(data)
    }

    /// The answer with this name; `None` if it cannot be written.
    pub(super) fn answer_name(&self, name: &str) -> Option<Message> {
        Some(self.with(vec![RData::PTR(PTR(Name::from_utf8(format!("{name}.")).ok()?))]))
    }

    /// The answer that nobody could be asked.
    pub(super) fn failure(&self) -> Message {
        let mut message = self.with(Vec::new());
        message.metadata.response_code = ResponseCode::ServFail;
        message
    }

    fn with(&self, data: Vec<RData>) -> Message {
        let mut answer = Message::response(self.message.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = self.message.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(self.query.clone());
        for one in data {
            answer.add_answer(Record::from_rdata(self.query.name.clone(), TTL, one));
        }
        answer
    }

    /// An answer as it goes over UDP: one that is too long for the client is cut, so that it asks again over TCP.
    pub(super) fn for_udp(&self, answer: Vec<u8>) -> Vec<u8> {
        let fits = usize::from(self.message.max_payload().max(SMALLEST_UDP));
        if answer.len() <= fits {
            return answer;
        }
        let cut = Message::from_vec(&answer).ok().and_then(|answer| answer.truncate().to_vec().ok());
        cut.filter(|cut| cut.len() <= fits).unwrap_or_default()
    }
}

/// An answer of others, as far as it matters to us.
pub(super) struct Answer {
    /// For how many seconds it may be remembered; 0 is not at all.
    pub(super) lasts: u32,
    /// Whether the server could not say, or did not want to: another one may.
    pub(super) failed: bool,
}

impl Answer {
    /// Reads one; `None` if it is none to this question.
    pub(super) fn read(bytes: &[u8], question: &Question) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let answers = message.metadata.message_type == MessageType::Response
            && message.queries.first().is_none_or(|query| {
                query.query_type == question.query.query_type
                    && query.name.to_lowercase() == question.query.name.to_lowercase()
            });
        if !answers {
            return None;
        }
        let certain = !message.metadata.truncation
            && matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let failed = matches!(message.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused);
        let lives = message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min();
        Some(Self { lasts: if certain { lives.unwrap_or(0) } else { 0 }, failed })
    }
}

/// The same answer some seconds later: its records last less long.
pub(super) fn aged(bytes: &[u8], id: u16, seconds: u32) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(bytes).ok()?;
    message.metadata.id = id;
    let records = message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals);
    for record in records {
        record.ttl = record.ttl.saturating_sub(seconds);
    }
    message.to_vec().ok()
}

/// The number by which a question is known again.
pub(super) fn id(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

pub(super) fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(place) = bytes.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: RecordType) -> Question {
        let mut message = Message::query();
        let mut query = Query::new();
        query.name = Name::from_utf8(name).unwrap();
        query.query_type = kind;
        message.add_query(query);
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn what_is_wanted_is_read() {
        assert_eq!(question("web.", RecordType::A).wanted(), Wanted::Addresses("web.".into()));
        let reverse = question("3.0.18.172.in-addr.arpa.", RecordType::PTR).wanted();
        assert_eq!(reverse, Wanted::NameOf("172.18.0.3".parse().unwrap()));
        assert_eq!(question("18.172.in-addr.arpa.", RecordType::PTR).wanted(), Wanted::Other);
        assert_eq!(question("web.", RecordType::MX).wanted(), Wanted::Other);
        assert!(Question::read(b"x").is_none());
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_for_udp() {
        let question = question("web.", RecordType::A);
        let many = Found { ipv4: (0..100).map(|n| [10, 0, 0, n].into()).collect(), ipv6: Vec::new() };
        let answer = question.answer(&many).to_vec().unwrap();
        assert!(answer.len() > 512);
        let cut = Message::from_vec(&question.for_udp(answer)).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let few = Found { ipv4: vec![[10, 0, 0, 1].into()], ipv6: Vec::new() };
        let whole = question.for_udp(question.answer(&few).to_vec().unwrap());
        assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 1);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question("a.example.", RecordType::A);
        let other = question("b.example.", RecordType::A);
        let found = Found { ipv4: vec![[10, 0, 0, 1].into()], ipv6: Vec::new() };
        assert!(Answer::read(&other.answer(&found).to_vec().unwrap(), &asked).is_none());
        let own = asked.answer(&found).to_vec().unwrap();
        assert_eq!(Answer::read(&own, &asked).unwrap().lasts, TTL);
        let later = Message::from_vec(&aged(&own, 7, 100).unwrap()).unwrap();
        assert_eq!((later.metadata.id, later.answers[0].ttl), (7, TTL - 100));
    }
}
