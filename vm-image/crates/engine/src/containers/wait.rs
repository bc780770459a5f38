//! Waiting for a container's end.

use tokio::sync::watch;

use super::Handle;
use super::state::{State, Status};
use crate::error::ApiError;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// That it does not run: at once, if it does not.
    NotRunning,
    /// The next end, or that it is removed.
    NextExit,
    /// That it is removed.
    Removed,
}

impl Condition {
    /// Reads the query's `condition`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

/// A wait that has begun: an end from now on is not missed.
pub(crate) struct Wait {
    status: watch::Receiver<Status>,
    ends: u64,
    condition: Condition,
}

impl Handle {
    /// Begins to wait.
    pub(crate) fn wait(&self, condition: Condition) -> Wait {
        let status = self.watch();
        let ends = status.borrow().ends;
        Wait { status, ends, condition }
    }
}

impl Wait {
    /// The exit code, when the condition is met.
    pub(crate) async fn code(mut self) -> i32 {
        let met = |status: &Status| match self.condition {
            // One that is started again has not run in between, however short that was.
            Condition::NotRunning => !status.state.is_active() || status.ends > self.ends,
            Condition::NextExit => status.ends > self.ends,
            Condition::Removed => matches!(status.state, State::Removed),
        };
        let met = self.status.wait_for(met).await.map(|status| status.exit_code);
        // The task ends with the container: what it last published stays true.
        met.unwrap_or_else(|_| self.status.borrow().exit_code)
    }
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::time::Timestamp;

    use super::super::state::{Created, Exited};
    use super::*;

    fn status(state: State, ends: u64, exit_code: i32) -> Status {
        Status { state, ends, exit_code, restarts: 0 }
    }

    fn exited(exit_code: i32) -> State {
        State::Exited(Exited {
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code,
            oom_killed: false,
            error: String::new(),
        })
    }

    #[tokio::test]
    async fn each_condition_is_met_by_its_own_end() {
        let (sender, receiver) = watch::channel(status(State::Created(Created::default()), 0, 0));
        let wait = |condition| Wait { status: receiver.clone(), ends: 0, condition }.code();
        assert_eq!(wait(Condition::NotRunning).await, 0);
        let next = tokio::spawn(wait(Condition::NextExit));
        let removed = tokio::spawn(wait(Condition::Removed));
        sender.send_replace(status(exited(3), 1, 3));
        assert_eq!(next.await.unwrap(), 3);
        assert!(!removed.is_finished());
        sender.send_replace(status(State::Removed, 1, 3));
        assert_eq!(removed.await.unwrap(), 3);
    }
}
