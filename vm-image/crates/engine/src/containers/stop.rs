//! Stopping: ask, wait, kill.

use std::time::Duration;

use super::Handle;
use super::signal::{KILL, SignalNumber, TERM};
use crate::error::ApiError;

/// How long a container may take to stop if nobody says otherwise.
const GRACE: Duration = Duration::from_secs(10);
/// How long after `SIGKILL` an end is waited for: longer than a shim waits for the rest of the output and of the log. Only a process in the
/// kernel's hands can take longer.
pub(super) const DIES_WITHIN: Duration = Duration::from_secs(15);

/// How to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopOptions {
    /// Instead of the container's own.
    pub(crate) signal: Option<SignalNumber>,
    /// Seconds, instead of the container's own; a negative number waits for ever.
    pub(crate) timeout: Option<i64>,
}

impl Handle {
    /// Stops the container: its stop signal, then `SIGKILL` after its grace. Returns once the process is reaped, so its
    /// ports and mounts are free. Stopping a stopped container is `NotModified`.
    pub(crate) async fn stop(&self, options: &StopOptions) -> Result<(), ApiError> {
        if !self.is_active() {
            return Err(ApiError::not_modified());
        }
        self.end(options).await
    }

    /// Makes a running container end, or gives up starting it again; no error if it ends by itself meanwhile.
    pub(super) async fn end(&self, options: &StopOptions) -> Result<(), ApiError> {
        self.end_in_order(options).await?;
        self.told_stopped();
        Ok(())
    }

    async fn end_in_order(&self, options: &StopOptions) -> Result<(), ApiError> {
        let ends = self.status.borrow().ends;
        let signal = match options.signal {
            Some(signal) => signal,
            None => self.stop_signal()?,
        };
        if let Err(error) = self.signal(signal).await {
            return if self.is_active() { Err(error) } else { Ok(()) };
        }
        let ended = self.ended_after(ends);
        match self.grace(options.timeout) {
            None => ended.await,
            Some(grace) => {
                if tokio::time::timeout(grace, ended).await.is_err() {
                    self.kill_for_good(ends).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn kill_for_good(&self, ends: u64) -> Result<(), ApiError> {
        if let Err(error) = self.signal(KILL).await {
            return if self.is_active() { Err(error) } else { Ok(()) };
        }
        self.dies_after(ends, DIES_WITHIN).await
    }

    fn stop_signal(&self) -> Result<SignalNumber, ApiError> {
        match self.definition().config.stop_signal.as_str() {
            "" => Ok(TERM),
            name => SignalNumber::parse(name),
        }
    }

    fn grace(&self, asked: Option<i64>) -> Option<Duration> {
        let own = self.definition().config.stop_timeout.map(i64::from);
        let Some(seconds) = asked.or(own) else { return Some(GRACE) };
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    fn told_stopped(&self) {
        self.events.publish("container", "stop", &self.id, super::attributes(&self.definition(), &[]));
    }
}
