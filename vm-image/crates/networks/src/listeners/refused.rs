//! Listeners that the computer has no room for: when each is tried again, and whether that is news.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// How long a listener rests that could not be published.
const REST: Duration = Duration::from_secs(10);

/// Those that are still there, by key.
#[derive(Debug, Default)]
pub(super) struct Refused(HashMap<String, Refusal>);

#[derive(Debug)]
struct Refusal {
    until: Instant,
    why: String,
}

impl Refused {
    /// Whether it is too early to try this one again.
    pub(super) fn rests(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|refusal| refusal.until > now)
    }

    /// It was refused. Whether that is news: what was said once of a listener is not said again for as long as it stays so.
    pub(super) fn note(&mut self, key: &str, why: &str, now: Instant) -> bool {
        let refusal = Refusal { until: now + REST, why: why.to_owned() };
        self.0.insert(key.to_owned(), refusal).is_none_or(|before| before.why != why)
    }

    /// It was published.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Forgets those that are gone.
    pub(super) fn keep(&mut self, present: &HashSet<&str>) {
        self.0.retain(|key, _| present.contains(key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_as_it_was_is_tried_again_but_said_once() {
        let mut refused = Refused::default();
        let start = Instant::now();
        assert!(refused.note("a", "in use", start));
        assert!(refused.rests("a", start) && !refused.rests("b", start));
        let mut now = start;
        for _ in 0..3 {
            now += REST;
            assert!(!refused.rests("a", now));
            assert!(!refused.note("a", "in use", now), "said before");
            refused.keep(&HashSet::from(["a", "b"]));
        }
        assert!(refused.note("a", "not permitted", now), "another reason");
        refused.forget("a");
        assert!(refused.note("a", "not permitted", now), "it was published in between");
        refused.keep(&HashSet::from(["b"]));
        assert!(refused.note("a", "not permitted", now), "another listener");
    }
}
