//! Restarting: stop and start, without the removal that `--rm` would do between the two.

use super::Handle;
use super::stop::StopOptions;
use super::task::Request;
use crate::error::ApiError;

impl Handle {
    /// Stops the container if it runs, and starts it.
    pub(crate) async fn restart(&self, options: &StopOptions) -> Result<(), ApiError> {
        self.ask(|answer| Request::KeepAtEnd(true, answer)).await?;
        let restarted = self.stop_and_start(options).await;
        // One that has gone needs no keeping.
        let _ = self.ask(|answer| Request::KeepAtEnd(false, answer)).await;
        restarted?;
        self.events.publish("container", "restart", &self.id, super::attributes(&self.definition(), &[]));
        Ok(())
    }

    async fn stop_and_start(&self, options: &StopOptions) -> Result<(), ApiError> {
        if self.is_active() {
            self.end(options).await?;
        }
        self.start().await
    }
}
