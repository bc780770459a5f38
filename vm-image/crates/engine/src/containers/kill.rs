//! Signals, and the size of the terminal.

use super::Handle;
use super::signal::{KILL, SignalNumber};
use super::task::Request;
use crate::error::ApiError;

impl Handle {
    /// Sends a signal. After `SIGKILL` it returns once the container has ended, as dockerd does.
    pub(crate) async fn kill(&self, signal: SignalNumber) -> Result<(), ApiError> {
        let ends = self.status.borrow().ends;
        self.signal(signal).await?;
        if signal == KILL {
            self.ended_after(ends).await;
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

    /// Sets the size of the container's terminal, if it has one.
    pub(crate) async fn resize(&self, rows: u16, cols: u16) -> Result<(), ApiError> {
        self.ask(|answer| Request::Resize { rows, cols, answer }).await
    }
}
