//! Two watches over a running guest: whether it still answers, and whether its clock still agrees with ours.

use std::time::Duration;

use caisson_guest_proto::UnixNanos;
use tokio::time::Instant;

/// By how much the guest's clock may differ from the host's, beyond what is unknown, before it is set.
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
/// It does not when the guest stood still, when the host slept, or when somebody, or bit by bit a time server, set the host's. So each pong tells
/// what the guest's clock says, which has to lie between the ping and the pong.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    asked: Option<(u64, UnixNanos)>,
}

impl Clock {
    /// A ping is sent.
    pub(crate) fn ask(&mut self, n: u64, wall: UnixNanos) {
        self.asked = Some((n, wall));
    }

    /// Whether it is wrong by a pong that has come. One to an older ping tells nothing.
    pub(crate) fn is_wrong(&mut self, n: u64, guest: UnixNanos, wall: UnixNanos) -> bool {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == n) else { return false };
        let (first, last) = (asked.min(wall).since_epoch(), asked.max(wall).since_epoch());
        let guest = guest.since_epoch();
        guest + CLOCK_TOLERANCE < first || guest > last + CLOCK_TOLERANCE
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
    fn a_clock_is_right_between_the_ping_and_the_pong() {
        let mut wrong = |guest: f64| {
            let mut clock = Clock::default();
            clock.ask(7, wall(1000.0));
            clock.is_wrong(7, wall(guest), wall(1002.0))
        };
        assert!(![999.6, 1000.0, 1001.0, 1002.4].into_iter().any(&mut wrong));
        assert!([0.0, 999.4, 1002.6, 4610.0].into_iter().all(wrong));
    }

    #[test]
    fn only_the_answer_to_the_last_ping_tells_of_the_clock() {
        let mut clock = Clock::default();
        assert!(!clock.is_wrong(1, wall(0.0), wall(1000.0)));
        clock.ask(1, wall(1000.0));
        clock.ask(2, wall(1005.0));
        assert!(!clock.is_wrong(1, wall(0.0), wall(1005.0)));
        assert!(clock.is_wrong(2, wall(1000.0), wall(1005.0)));
    }
}
