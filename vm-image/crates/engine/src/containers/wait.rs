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
    failed_removals: u64,
    condition: Condition,
}

/// What a wait has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit_code: i32,
    /// Why what was waited for will not come.
    pub(crate) error: Option<String>,
}

impl Handle {
    /// Begins to wait.
    pub(crate) fn wait(&self, condition: Condition) -> Wait {
        let status = self.watch();
        let (ends, failed_removals) = {
            let status = status.borrow();
            (status.ends, status.failed_removals.count)
        };
        Wait { status, ends, failed_removals, condition }
    }
}

impl Wait {
    /// Returns when the condition is met, or a removal that was waited for has failed.
    pub(crate) async fn outcome(mut self) -> Outcome {
        let removal_failed = |status: &Status| {
            self.condition == Condition::Removed && status.failed_removals.count > self.failed_removals
        };
        let met = |status: &Status| match self.condition {
            // One that is started again has not run in between, however short that was.
            Condition::NotRunning => !status.state.is_active() || status.ends > self.ends,
            Condition::NextExit => status.ends > self.ends,
            Condition::Removed => matches!(status.state, State::Removed),
        };
        // The task ends with the container: what it last published stays true.
        let _ = self.status.wait_for(|status| met(status) || removal_failed(status)).await;
        let status = self.status.borrow();
        let error = removal_failed(&status).then(|| status.failed_removals.why.clone());
        Outcome { exit_code: status.exit_code, error }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Created, FailedRemovals};
    use super::super::testing::{exited, status};
    use super::*;

    #[tokio::test]
    async fn each_condition_is_met_by_its_own_end() {
        let (sender, receiver) = watch::channel(status(State::Created(Created::default()), 0, 0));
        let wait = |condition| {
            let outcome = Wait { status: receiver.clone(), ends: 0, failed_removals: 0, condition }.outcome();
            async { outcome.await.exit_code }
        };
        assert_eq!(wait(Condition::NotRunning).await, 0);
        let next = tokio::spawn(wait(Condition::NextExit));
        let removed = tokio::spawn(wait(Condition::Removed));
        sender.send_replace(status(exited(3), 1, 3));
        assert_eq!(next.await.unwrap(), 3);
        assert!(!removed.is_finished());
        sender.send_replace(status(State::Removed, 1, 3));
        assert_eq!(removed.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn who_waits_for_a_removal_is_told_that_it_failed() {
        let gone_wrong = |count| FailedRemovals { count, why: "busy".into() };
        let before = Status { failed_removals: gone_wrong(1), ..status(exited(3), 1, 3) };
        let (sender, receiver) = watch::channel(before);
        let wait = Wait { status: receiver, ends: 1, failed_removals: 1, condition: Condition::Removed };
        let waiting = tokio::spawn(wait.outcome());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "what failed before is not this one's");
        sender.send_modify(|status| status.failed_removals = gone_wrong(2));
        assert_eq!(waiting.await.unwrap(), Outcome { exit_code: 3, error: Some("busy".into()) });
    }
}
