//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double up to a limit, each shortened by a random part so that nothing ever beats in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of about `first` that grow to about `limit`.
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit: limit.max(first), failures: 0 }
    }

    /// The next wait: between half of the full one and all of it. `random` is in 0..1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let full = self.first.saturating_mul(2u32.saturating_pow(self.failures)).min(self.limit);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// What was tried has worked: the next wait is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut backoff = Backoff::new(FIRST, LIMIT);
        let waits: Vec<u128> = (0..6).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), FIRST);
    }

    #[test]
    fn a_wait_is_never_under_half_nor_over_the_limit() {
        for random in [-1.0, 0.0, 0.3, 1.0, 7.0] {
            let mut backoff = Backoff::new(FIRST, LIMIT);
            for failures in 0..100 {
                let wait = backoff.next(random);
                assert!(wait >= FIRST / 2 && wait <= LIMIT, "{failures} {random}");
            }
        }
        assert_eq!(Backoff::new(LIMIT, FIRST).next(1.0), LIMIT, "a limit under the first wait is no limit");
    }
}
