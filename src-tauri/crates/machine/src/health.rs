//! Two watches over a running guest: whether it still answers, and whether its clock still agrees with ours.

use std::time::Duration;

use caisson_guest_proto::UnixNanos;
use tokio::time::Instant;

/// By how much the guest's clock may differ from the host's before it is set.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(500);

/// Whether the guest still answers.
#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Instant,
    looked: Instant,
    pings: u64,
}

impl Pulse {
    /// The guest has just said something.
    pub(crate) fn heard_at(now: Instant) -> Self {
        Self { heard: now, looked: now, pings: 0 }
    }

    /// The guest has just said something.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The number of the next ping.
    pub(crate) fn next_ping(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }

    /// Whether it has been silent for longer than it may. Time in which we did not look ourselves (the computer
    /// slept, or was too busy to run us) does not count.
    pub(crate) fn silent(&mut self, limit: Duration, look_every: Duration, now: Instant) -> bool {
        if now - self.looked > look_every * 3 {
            self.heard = now;
        }
        self.looked = now;
        now - self.heard > limit
    }
}

/// Whether the guest's clock, which runs by itself once set, still agrees with the host's.
///
/// The guest's clock goes as steadily as our monotonic one. When the host's wall clock has moved against that (it slept,
/// somebody set it, or time servers corrected it bit by bit) the guest's is wrong by as much.
#[derive(Debug)]
pub(crate) struct Clock {
    set: (Instant, UnixNanos),
}

impl Clock {
    /// The guest's clock was just set to this.
    pub(crate) fn set(now: Instant, wall: UnixNanos) -> Self {
        Self { set: (now, wall) }
    }

    /// Whether it is wrong by now.
    pub(crate) fn is_wrong(&self, now: Instant, wall: UnixNanos) -> bool {
        let (then, set_to) = self.set;
        let expected = set_to.since_epoch() + (now - then);
        expected.abs_diff(wall.since_epoch()) > CLOCK_TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);
    const LIMIT: Duration = Duration::from_secs(60);

    fn wall(secs: f64) -> UnixNanos {
        UnixNanos((secs * 1e9) as u64)
    }

    #[test]
    fn a_guest_is_silent_when_it_was_looked_after_and_said_nothing() {
        let t0 = Instant::now();
        let mut pulse = Pulse::heard_at(t0);
        for seconds in (5..=60).step_by(5) {
            assert!(!pulse.silent(LIMIT, EVERY, t0 + Duration::from_secs(seconds)));
        }
        assert!(pulse.silent(LIMIT, EVERY, t0 + Duration::from_secs(65)));
        pulse.heard(t0 + Duration::from_secs(66));
        assert!(!pulse.silent(LIMIT, EVERY, t0 + Duration::from_secs(70)));
    }

    #[test]
    fn the_time_in_which_we_slept_does_not_count() {
        let t0 = Instant::now();
        let mut pulse = Pulse::heard_at(t0);
        assert!(!pulse.silent(LIMIT, EVERY, t0 + Duration::from_secs(36_000)));
        assert!(!pulse.silent(LIMIT, EVERY, t0 + Duration::from_secs(36_005)));
    }

    #[test]
    fn a_clock_is_wrong_after_sleep_after_a_jump_back_and_after_slow_drift() {
        let t0 = Instant::now();
        let clock = Clock::set(t0, wall(1000.0));
        let later = t0 + Duration::from_secs(10);
        assert!(!clock.is_wrong(later, wall(1010.0)));
        assert!(!clock.is_wrong(later, wall(1010.4)));
        assert!(clock.is_wrong(later, wall(4610.0)));
        assert!(clock.is_wrong(later, wall(900.0)));
        assert!(clock.is_wrong(t0 + Duration::from_secs(86_400), wall(87_401.0)));
    }
}
