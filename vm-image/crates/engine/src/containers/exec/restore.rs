//! Finding the processes again that an engine before this one has added.

use std::sync::Arc;
use std::time::Instant;

use caisson_shim::proto::State as ShimState;
use tracing::warn;

use super::super::{Containers, Handle};
use super::create::Remembered;
use super::{Exec, Status};

impl Containers {
    /// Finds the processes of a container that runs.
    pub(in super::super) async fn restore_execs(&self, container: &Handle) {
        let shim = self.ground.shim_of(&container.id);
        for (id, text) in shim.exec_files() {
            let remembered: Remembered = match serde_json::from_slice(&text) {
                Ok(remembered) => remembered,
                Err(error) => {
                    warn!(exec = id, %error, "unreadable: an added process is forgotten");
                    continue;
                }
            };
            let status = match shim.exec_state(&id).await {
                Ok(Some(ShimState::Running { pid, .. })) => Status::Running { pid },
                Ok(Some(ShimState::Created)) => Status::Starting,
                Ok(Some(ShimState::Exited(record))) => {
                    Status::Ended { pid: 0, code: record.code, at: Instant::now() }
                }
                Ok(None) => Status::Created,
                Err(error) => {
                    warn!(exec = id, %error, "an added process could not be asked about");
                    continue;
                }
            };
            let exec = Exec::new(id, container.clone(), remembered.wish, status);
            self.ground.execs.add(&exec, &self.ground);
            if matches!(status, Status::Starting | Status::Running { .. }) {
                tokio::spawn(Arc::clone(&exec).watch(self.ground.clone()));
            }
        }
    }
}
