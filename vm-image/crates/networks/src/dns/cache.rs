//! Answers of others, for as long as they say that they hold.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::Query;

use super::message;

/// What an answer is remembered under: the question, and what of it changes the answer.
pub(super) type Key = (Query, bool, bool);

/// So many answers are remembered.
const MOST: usize = 2048;

/// However long an answer says that it holds.
const LONGEST: Duration = Duration::from_secs(3600);

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer to a question, if one is remembered that still holds, under the question's number.
    pub(super) fn get(&self, key: &Key, id: u16, now: Instant) -> Option<Vec<u8>> {
        let entries = self.entries();
        let entry = entries.get(key).filter(|entry| now < entry.until)?;
        let seconds = u32::try_from(now.duration_since(entry.since).as_secs()).unwrap_or(u32::MAX);
        message::aged(&entry.bytes, id, seconds)
    }

    /// Remembers an answer for so many seconds.
    pub(super) fn put(&self, key: Key, bytes: Vec<u8>, lasts: u32, now: Instant) {
        if lasts == 0 {
            return;
        }
        let mut entries = self.entries();
        if entries.len() >= MOST {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= MOST {
            let first = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
            first.map(|key| entries.remove(&key));
        }
        let until = now + Duration::from_secs(u64::from(lasts)).min(LONGEST);
        entries.insert(key, Entry { bytes, since: now, until });
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, OpCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};

    use super::*;

    fn key(n: usize) -> Key {
        let mut query = Query::new();
        query.name = Name::from_utf8(format!("n{n}.example.")).unwrap();
        (query, false, false)
    }

    fn answer() -> Vec<u8> {
        let mut answer = Message::response(1, OpCode::Query);
        answer.add_answer(Record::from_rdata(Name::root(), 60, RData::A(A([1, 2, 3, 4].into()))));
        answer.to_vec().unwrap()
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_and_ages() {
        let (cache, start) = (Cache::default(), Instant::now());
        cache.put(key(1), answer(), 60, start);
        let later = cache.get(&key(1), 9, start + Duration::from_secs(20)).unwrap();
        assert_eq!(Message::from_vec(&later).unwrap().answers[0].ttl, 40);
        assert!(cache.get(&key(1), 9, start + Duration::from_secs(60)).is_none());
        assert!(cache.get(&key(2), 9, start).is_none());
        cache.put(key(2), answer(), 0, start);
        assert!(cache.get(&key(2), 9, start).is_none());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (cache, start) = (Cache::default(), Instant::now());
        for n in 0..MOST + 10 {
            cache.put(key(n), answer(), 60, start + Duration::from_millis(n as u64));
        }
        assert_eq!(cache.entries().len(), MOST);
        assert!(cache.get(&key(MOST + 9), 1, start + Duration::from_secs(5)).is_some());
    }
}
