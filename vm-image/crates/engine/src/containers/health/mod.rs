//! Health checks: a command that is run in the container again and again, and what its results mean.
//!
//! A container with a check has a task of its own for it ([`monitor`]), from its making to its removal, which probes as long as the
//! container runs and is not paused. What the results mean is a pure function ([`Health::take`]); a file in the container's directory keeps it
//! for the next engine, which goes on where this one was.
//!
//! ```text
//!  Starting --a success--> Healthy <--a success-- Unhealthy
//!      |                      |  `retries` failures in a row  ^
//!      +--`retries` failures--+-------------------------------+   failures in the start period do not count while Starting
//! ```
//!
//! A container that is paused or has ended is unhealthy without an event, as in dockerd.

mod monitor;
mod probe;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caisson_docker_api::container::{Config, HealthConfig, HealthResult};
use caisson_docker_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::State;
use super::{Containers, Handle};

/// How many results are told.
const KEPT: usize = 5;

/// How healthy a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// As `docker ps` shows it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Starting => "health: starting",
            Self::Healthy | Self::Unhealthy => self.name(),
        }
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    status: Status,
    failing_streak: i64,
    log: Vec<HealthResult>,
    /// When the run began that this is about.
    run: Timestamp,
}

/// When and how often is asked, with dockerd's defaults for what was left open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    /// The program and its arguments.
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    /// The check that a container is configured with, if it is one.
    fn of(config: &Config) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let (kind, words) = health.test.as_ref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let shell =
                    config.shell.as_ref().map(|shell| shell.0.clone()).filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                [shell, words.to_vec()].concat()
            }
            _ => return None,
        };
        let or = |nanos: i64, seconds: u64| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => Duration::from_secs(seconds),
        };
        Some(Self {
            command,
            interval: or(health.interval, 30),
            timeout: or(health.timeout, 30),
            start_period: or(health.start_period, 0),
            start_interval: or(health.start_interval, 5),
            retries: if health.retries > 0 { health.retries } else { 3 },
        })
    }

    /// How long to wait before the next probe, when the container has run for so long.
    fn pause(&self, status: Status, ran: Duration) -> Duration {
        let left = self.start_period.saturating_sub(ran);
        if left.is_zero() || status != Status::Starting {
            self.interval
        } else {
            // The start period ends with a probe at the latest.
            self.start_interval.min(left)
        }
    }
}

/// Refuses what dockerd refuses.
pub(crate) fn validate(health: &HealthConfig) -> Result<(), String> {
    const LEAST: i64 = 1_000_000;
    let durations = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    let short = durations.into_iter().find(|(_, nanos)| *nanos != 0 && *nanos < LEAST);
    match short {
        Some((name, _)) => Err(format!("{name} in Healthcheck cannot be less than 1ms")),
        None if health.retries < 0 => Err("Retries in Healthcheck cannot be negative".into()),
        None => Ok(()),
    }
}

impl Health {
    /// Of a run that has just begun; what the runs before told is kept.
    fn of_new_run(before: Option<Self>, run: Timestamp) -> Self {
        let log = before.map(|before| before.log).unwrap_or_default();
        Self { status: Status::Starting, failing_streak: 0, log, run }
    }

    /// Takes a result into account.
    fn take(&mut self, result: HealthResult, check: &Check) {
        let began_after = self.run.until(result.start);
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else if self.status != Status::Starting || began_after >= check.start_period {
            self.failing_streak += 1;
            if self.failing_streak >= check.retries {
                self.status = Status::Unhealthy;
            }
        }
        if self.log.len() >= KEPT {
            self.log.drain(..=self.log.len() - KEPT);
        }
        self.log.push(result);
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// As the API tells it.
    pub(crate) fn describe(&self) -> caisson_docker_api::container::Health {
        caisson_docker_api::container::Health {
            status: self.status.name().to_owned(),
            failing_streak: self.failing_streak,
            log: self.log.clone(),
        }
    }
}

impl Containers {
    /// How healthy a container in this state is; `None` without a check, or before the first start. The check's task follows the container a
    /// moment later: what it has not seen yet is added here.
    pub(crate) fn health_of(&self, container: &Handle, state: &State) -> Option<Health> {
        Check::of(&container.definition().config)?;
        let known = self.ground.healths.get(&container.id);
        match state.running() {
            Some(running) if known.as_ref().is_none_or(|known| known.run != running.started_at) => {
                Some(Health::of_new_run(known, running.started_at))
            }
            Some(running) if !running.paused => known,
            _ => known.map(|known| Health { status: Status::Unhealthy, ..known }),
        }
    }
}

/// The health of all containers that were started with a check. Never held across an `.await`.
#[derive(Default)]
pub(crate) struct Healths(Mutex<HashMap<String, Health>>);

impl Healths {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, container: &str) -> Option<Health> {
        self.all().get(container).cloned()
    }

    fn set(&self, container: &str, health: Health) {
        self.all().insert(container.to_owned(), health);
    }

    fn forget(&self, container: &str) {
        self.all().remove(container);
    }
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::Strings;

    use super::*;

    fn check(start_period: u64) -> Check {
        let test = ["CMD", "true"].map(str::to_owned).to_vec();
        let nanos = i64::try_from(start_period * 1_000_000_000).unwrap();
        let healthcheck = Some(HealthConfig {
            test: Some(test),
            retries: 2,
            start_period: nanos,
            ..HealthConfig::default()
        });
        Check::of(&Config { healthcheck, ..Config::default() }).unwrap()
    }

    fn result(second: i64, exit_code: i32) -> HealthResult {
        let start = Timestamp::from_unix_nanos(second * 1_000_000_000);
        HealthResult { start, end: start, exit_code, output: String::new() }
    }

    /// The status after each result, at one second after the start and so on.
    fn statuses(start_period: u64, codes: &[i32]) -> String {
        let check = check(start_period);
        let mut health = Health::of_new_run(None, Timestamp::from_unix_nanos(0));
        let each = codes.iter().enumerate().map(|(index, code)| {
            health.take(result(i64::try_from(index).unwrap() + 1, *code), &check);
            health.status.name().chars().next().unwrap()
        });
        each.collect()
    }

    #[test]
    fn successes_and_failures_mean_what_they_mean_in_docker() {
        for (start_period, codes, expected) in [
            (0, &[0, 1, 1, 0][..], "hhuh"),
            (0, &[1, 1, 1], "suu"),
            (0, &[1, 0, 1, 0], "shhh"),
            (4, &[1, 1, 1, 1, 1], "ssssu"),
            (4, &[0, 1, 1], "hhu"),
            (0, &[-1, -1], "su"),
        ] {
            assert_eq!(statuses(start_period, codes), expected, "{start_period} {codes:?}");
        }
    }

    #[test]
    fn the_last_five_results_are_kept_also_over_a_restart() {
        let mut health = Health::of_new_run(None, Timestamp::from_unix_nanos(0));
        (1..=7).for_each(|code| health.take(result(code.into(), code), &check(0)));
        let codes: Vec<i32> = health.log.iter().map(|result| result.exit_code).collect();
        assert_eq!(codes, [3, 4, 5, 6, 7]);
        let next = Health::of_new_run(Some(health), Timestamp::from_unix_nanos(5));
        assert_eq!((next.log.len(), next.status, next.failing_streak), (5, Status::Starting, 0));
    }

    #[test]
    fn the_start_period_has_an_interval_of_its_own_and_ends_with_a_probe() {
        let check = check(7);
        let after = |status, seconds| check.pause(status, Duration::from_secs(seconds)).as_secs();
        assert_eq!(after(Status::Starting, 0), 5);
        assert_eq!(after(Status::Starting, 5), 2);
        assert_eq!(after(Status::Starting, 7), 30);
        assert_eq!(after(Status::Healthy, 1), 30);
    }

    #[test]
    fn a_check_is_a_command_or_a_line_for_the_shell() {
        let command = |words: &[&str], shell: Option<Strings>| {
            let test = Some(words.iter().map(|&word| word.to_owned()).collect());
            let healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
            Check::of(&Config { healthcheck, shell, ..Config::default() })
                .map(|check| check.command.join(" "))
        };
        assert_eq!(command(&["CMD", "a", "b"], None).unwrap(), "a b");
        assert_eq!(command(&["CMD-SHELL", "a || b"], None).unwrap(), "/bin/sh -c a || b");
        let ash = Strings(vec!["/bin/ash".into(), "-ec".into()]);
        assert_eq!(command(&["CMD-SHELL", "a"], Some(ash)).unwrap(), "/bin/ash -ec a");
        assert_eq!(command(&["NONE"], None), None);
        assert_eq!(command(&[], None), None);
    }

    #[test]
    fn times_that_are_too_short_are_refused() {
        let short = HealthConfig { interval: 5, ..HealthConfig::default() };
        assert_eq!(validate(&short).unwrap_err(), "Interval in Healthcheck cannot be less than 1ms");
        let negative = HealthConfig { retries: -1, ..HealthConfig::default() };
        assert_eq!(validate(&negative).unwrap_err(), "Retries in Healthcheck cannot be negative");
        assert_eq!(validate(&HealthConfig::default()), Ok(()));
    }
}
