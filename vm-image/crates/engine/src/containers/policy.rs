//! Whether a container that ended is started again, and when: restart policies, without any I/O.
//!
//! As dockerd's restart manager: the first restart comes after [`FIRST_DELAY`], each further one after twice the time, up to
//! [`LONGEST_DELAY`]; a run of [`LONG_RUN`] begins anew. A client's signal calls it off until the next start by a client or by the
//! engine's own start.

use std::time::Duration;

use caisson_docker_api::container::RestartPolicy;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run that lasts so long was a good one.
const LONG_RUN: Duration = Duration::from_secs(10);

/// A container's restarts since it was last started otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Restarts {
    /// How many there were: `RestartCount`.
    pub(super) count: u32,
    delay: Option<Duration>,
    called_off: bool,
}

impl Restarts {
    /// Those that an engine before this one counted.
    pub(super) fn counted(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    /// The next end is for good.
    pub(super) fn call_off(&mut self) {
        self.called_off = true;
    }

    /// An end: counts the restart that comes of it and says after what time; `None` if there is none. `stopped`: a client
    /// (or the engine's own end) has stopped it.
    pub(super) fn after(
        &mut self,
        policy: &RestartPolicy,
        code: i32,
        stopped: bool,
        lasted: Duration,
    ) -> Option<Duration> {
        if self.called_off {
            return None;
        }
        let delay = match self.delay {
            Some(before) if lasted < LONG_RUN => (before * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.delay = Some(delay);
        if !wants(policy, self.count, code, stopped) {
            return None;
        }
        self.count += 1;
        Some(delay)
    }
}

/// Whether a container that does not run is started with the engine. `always` means it, whoever stopped it.
pub(super) fn starts_with_engine(policy: &RestartPolicy, count: u32, code: i32, stopped: bool) -> bool {
    wants(policy, count, code, stopped)
}

fn wants(policy: &RestartPolicy, count: u32, code: i32, stopped: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !stopped,
        "on-failure" => {
            let most = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
            code != 0 && (most == 0 || count < most)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    fn policy(name: &str, maximum_retry_count: i64) -> RestartPolicy {
        RestartPolicy { name: name.into(), maximum_retry_count }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let always = policy("always", 0);
        let mut restarts = Restarts::default();
        let delays: Vec<u64> = (0..12)
            .map(|_| restarts.after(&always, 0, false, SHORT).unwrap().as_millis().try_into().unwrap())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(restarts.after(&always, 0, false, LONG_RUN), Some(FIRST_DELAY));
        assert_eq!(restarts.count, 13);
    }

    #[test]
    fn each_policy_restarts_what_it_says() {
        let restarts = |name: &str, most, code, stopped| {
            Restarts::default().after(&policy(name, most), code, stopped, SHORT).is_some()
        };
        for (name, code, stopped, expected) in [
            ("", 1, false, false),
            ("no", 1, false, false),
            ("always", 0, false, true),
            ("always", 0, true, true),
            ("unless-stopped", 0, false, true),
            ("unless-stopped", 1, true, false),
            ("on-failure", 0, false, false),
            ("on-failure", 1, false, true),
            ("on-failure", 1, true, true),
        ] {
            assert_eq!(restarts(name, 0, code, stopped), expected, "{name} {code} {stopped}");
            assert_eq!(
                starts_with_engine(&policy(name, 0), 0, code, stopped),
                expected,
                "{name} with the engine"
            );
        }
    }

    #[test]
    fn failures_are_restarted_so_many_times_and_a_signal_calls_it_off() {
        let mut restarts = Restarts::default();
        let on_failure = policy("on-failure", 2);
        let outcomes = [(); 4].map(|()| restarts.after(&on_failure, 1, false, SHORT).is_some());
        assert_eq!((outcomes, restarts.count), ([true, true, false, false], 2));
        let mut restarts = Restarts::counted(5);
        restarts.call_off();
        assert_eq!(restarts.after(&policy("always", 0), 1, false, SHORT), None);
        assert_eq!(restarts.count, 5);
    }
}
