//! Signals, and the size of the terminal.

use std::time::Duration;

use super::Handle;
use super::signal::{KILL, SignalNumber};
use super::stop::DIES_WITHIN;
use super::task::Request;
use crate::error::ApiError;

impl Handle {
    /// Sends a signal. After `SIGKILL` it returns once the container has ended, as dockerd does, or is not seen to end.
    pub(crate) async fn kill(&self, signal: SignalNumber) -> Result<(), ApiError> {
        self.kill_within(signal, DIES_WITHIN).await
    }

    async fn kill_within(&self, signal: SignalNumber, limit: Duration) -> Result<(), ApiError> {
        let ends = self.status.borrow().ends;
        self.signal(signal).await?;
        if signal == KILL {
            self.dies_after(ends, limit).await?;
        }
        Ok(())
    }

    pub(super) async fn signal(&self, signal: SignalNumber) -> Result<(), ApiError> {
        self.ask(|answer| Request::Signal(signal, answer)).await
    }

    /// How often it has ended.
    pub(crate) fn ends(&self) -> u64 {
        self.status.borrow().ends
    }

    /// Returns once the container has ended more often than that, or is gone.
    pub(crate) async fn ended_after(&self, ends: u64) {
        // An error is the end of the container's task, and so of the container.
        let _ = self.watch().wait_for(|status| status.ends > ends).await;
    }

    /// The same of a container that was sent `SIGKILL`, which is waited for so long.
    pub(super) async fn dies_after(&self, ends: u64, limit: Duration) -> Result<(), ApiError> {
        tokio::time::timeout(limit, self.ended_after(ends))
            .await
            .map_err(|_| ApiError::internal("tried to kill container, but did not receive an exit event"))
    }

    /// Sets the size of the container's terminal, if it has one.
    pub(crate) async fn resize(&self, rows: u16, cols: u16) -> Result<(), ApiError> {
        self.ask(|answer| Request::Resize { rows, cols, answer }).await
    }
}

#[cfg(test)]
mod tests {
    use caisson_shim::proto::{Reply, Request};

    use super::super::testing::{Home, definition, running};
    use super::*;

    #[tokio::test]
    async fn a_kill_that_nothing_comes_of_is_given_up() {
        let home = Home::new().await;
        let definition = definition("held");
        // The kernel has the process: it takes the signal and does not end.
        home.serve_shim(&definition.id, |request| match request {
            Request::Signal { .. } => Some(Reply::Done),
            _ => None,
        });
        let handle = home.adopt(definition, running(1));
        let error = handle.kill_within(KILL, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.message, "tried to kill container, but did not receive an exit event");
    }
}
