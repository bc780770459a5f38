//! The pauses between attempts at something that is in use for a moment more.

use std::time::Duration;

/// Pauses, each twice as long as the one before, that together are no longer than a limit. What is waited for is one process'
/// own affair, so there is no jitter.
#[derive(Debug, Clone)]
pub struct Pauses {
    next: Duration,
    left: Duration,
}

impl Pauses {
    /// Begins with `first`; all of them take `limit` at most.
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { next: first, left: limit }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.min(self.left);
        self.left -= pause;
        self.next = self.next.saturating_mul(2);
        (!pause.is_zero()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_their_limit_is_used_up() {
        let pauses = |first, limit| -> Vec<u128> {
            let of = Pauses::new(Duration::from_millis(first), Duration::from_millis(limit));
            of.map(|pause| pause.as_millis()).collect()
        };
        assert_eq!(pauses(50, 400), [50, 100, 200, 50]);
        assert_eq!(pauses(50, 20), [20]);
        assert!(pauses(0, 20).is_empty() && pauses(50, 0).is_empty());
    }
}
