//! Where a container stands: what its task publishes, and the only thing that others read.
//!
//! ```text
//!            start                  the process ends
//!  Created --------> Running -----------------------------> Exited
//!     ^   <-------    ^ |  ^  <---------------------------   |  ^
//!     |   start fails | |  |             start               |  |
//!     |               | |  +--- Restarting -- a signal ------|--+
//!     |               | +-------^   after its time, Running  |
//!     +---------------- remove (also of Running, by force) --+----> Removed
//! ```
//!
//! A start that fails leaves a container as it was, with the failure noted. A container that its policy starts again is
//! `Restarting` until its time has come; for clients it runs all that time. A paused one runs, too.

use caisson_docker_api::time::Timestamp;
use caisson_networks::Sandbox;
use serde::{Deserialize, Serialize};

use super::health;
use super::record::StoredState;
use crate::error::ApiError;

/// Where a container stands.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// It never ran.
    Created(Created),
    /// Its first process runs.
    Running(Running),
    /// It ran, and will again in a moment.
    Restarting(Exited),
    /// It ran.
    Exited(Exited),
    /// It is being taken away.
    Removing(Exited),
    /// It is no more.
    Removed,
}

/// A container that never ran, and the last failure to start it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Created {
    pub(crate) exit_code: i32,
    pub(crate) error: String,
}

/// A container that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
    /// Its processes are frozen.
    pub(crate) paused: bool,
    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) oom_kills: u64,
    /// When the run before this one ended.
    pub(crate) finished_before: Timestamp,
    pub(crate) sandbox: Sandbox,
}

/// A container that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exited {
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    pub(crate) error: String,
}

/// A container's state with the count of its ends, by which those who wait for the next end know it.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) ends: u64,
    /// The code of the last end (or failed start).
    pub(crate) exit_code: i32,
    /// How often its policy has started it again.
    pub(crate) restarts: u32,
    /// By which those who wait for its removal know that there is none.
    pub(crate) failed_removals: FailedRemovals,
}

/// The removals that did not succeed.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailedRemovals {
    pub(crate) count: u64,
    /// Why the last one did not.
    pub(crate) why: String,
}

impl State {
    /// Docker's name of it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Running(running) if running.paused => "paused",
            Self::Running(_) => "running",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing(_) => "removing",
            Self::Removed => "dead",
        }
    }

    /// Whether it runs, or will without anybody's doing: what Docker calls running.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Restarting(_))
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The running part, or the refusal of what needs one.
    pub(crate) fn expect_running(&self, id: &str) -> Result<&Running, ApiError> {
        self.running().ok_or_else(|| ApiError::conflict(format!("container {id} is not running")))
    }

    /// When it last ended; zero if it never did.
    pub(crate) fn finished_at(&self) -> Timestamp {
        match self {
            Self::Running(running) => running.finished_before,
            Self::Restarting(exited) | Self::Exited(exited) | Self::Removing(exited) => exited.finished_at,
            Self::Created(_) | Self::Removed => Timestamp::ZERO,
        }
    }

    /// What the next engine must know; nothing of one that goes away.
    pub(crate) fn stored(&self) -> Option<StoredState> {
        match self {
            Self::Created(created) => {
                Some(StoredState::Created { exit_code: created.exit_code, error: created.error.clone() })
            }
            Self::Running(running) => Some(StoredState::Running { started_at: running.started_at }),
            Self::Restarting(exited) => Some(StoredState::Restarting(exited.clone())),
            Self::Exited(exited) => Some(StoredState::Exited(exited.clone())),
            Self::Removing(_) | Self::Removed => None,
        }
    }

    /// The `State` of an inspect.
    pub(crate) fn describe(&self) -> caisson_docker_api::container::State {
        let mut told = caisson_docker_api::container::State {
            status: self.name().to_owned(),
            running: false,
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: matches!(self, Self::Removed),
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: Timestamp::ZERO,
            finished_at: self.finished_at(),
            health: None,
        };
        match self {
            Self::Created(created) => {
                told.exit_code = created.exit_code;
                told.error.clone_from(&created.error);
            }
            Self::Running(running) => {
                told.running = true;
                told.paused = running.paused;
                told.oom_killed = running.oom_kills > 0;
                told.pid = running.pid;
                told.started_at = running.started_at;
            }
            Self::Restarting(exited) | Self::Exited(exited) | Self::Removing(exited) => {
                told.running = matches!(self, Self::Restarting(_));
                told.restarting = told.running;
                told.exit_code = exited.exit_code;
                told.oom_killed = exited.oom_killed;
                told.error.clone_from(&exited.error);
                told.started_at = exited.started_at;
            }
            Self::Removed => {}
        }
        told
    }

    /// The `Status` of a list: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub(crate) fn sentence(&self, now: Timestamp, health: Option<health::Status>) -> String {
        match self {
            Self::Created(_) => "Created".into(),
            Self::Running(running) => {
                let more = match health {
                    _ if running.paused => " (Paused)".into(),
                    Some(health) => format!(" ({})", health.shown()),
                    None => String::new(),
                };
                format!("Up {}{more}", human_duration(running.started_at.until(now)))
            }
            Self::Restarting(exited) => {
                let ago = human_duration(exited.finished_at.until(now));
                format!("Restarting ({}) {ago} ago", exited.exit_code)
            }
            Self::Exited(exited) => {
                let ago = human_duration(exited.finished_at.until(now));
                format!("Exited ({}) {ago} ago", exited.exit_code)
            }
            Self::Removing(_) => "Removal In Progress".into(),
            Self::Removed => "Dead".into(),
        }
    }
}

impl Created {
    /// As if it had ended: for those who ask how.
    pub(crate) fn as_exited(&self) -> Exited {
        Exited {
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: self.exit_code,
            oom_killed: false,
            error: self.error.clone(),
        }
    }
}

/// A duration as go-units' `HumanDuration` tells it.
fn human_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (duration.as_secs_f64() / 3600.0 + 0.5) as u64;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_read_as_in_docker_ps() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3000, "50 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }
}
