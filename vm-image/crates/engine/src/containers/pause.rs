//! Pausing: the freezer of the container's cgroup.

use caisson_runtime::cgroup::Cgroup;
use tracing::warn;

use super::shim::Shim;
use super::spec::cgroup_path;
use super::state::{Running, State};
use super::task::{Request, Task};
use super::{Definition, Handle};
use crate::error::{ApiError, chain};

impl Handle {
    /// Freezes the container's processes; returns once they stand still.
    pub(crate) async fn pause(&self) -> Result<(), ApiError> {
        self.ask(Request::Pause).await
    }

    /// Lets them go on.
    pub(crate) async fn unpause(&self) -> Result<(), ApiError> {
        self.ask(Request::Unpause).await
    }
}

/// Whether the container's processes are frozen: what a new engine finds is as the one before left it. One that was paused for a moment by an
/// engine that was killed in it goes on.
pub(super) fn is_frozen(definition: &Definition, shim: &Shim) -> bool {
    let Some(cgroup) = Cgroup::of(Some(&cgroup_path(definition))) else { return false };
    let goes_on = match shim.clear_pause() {
        Ok(true) => cgroup.set_frozen(false),
        other => other.map(drop),
    };
    if let Err(error) = goes_on {
        warn!(id = definition.short_id(), %error, "a container that may have been paused for a moment does not go on");
    }
    cgroup.is_frozen()
}

impl Task {
    pub(super) async fn pause(&mut self) -> Result<(), ApiError> {
        let id = self.definition.id.clone();
        let running = match self.state() {
            State::Running(running) if running.paused => {
                return Err(ApiError::conflict(format!("container {id} is already paused")));
            }
            State::Running(running) => running,
            State::Restarting(_) => {
                return Err(ApiError::conflict(format!(
                    "Container {id} is restarting, wait until the container is running"
                )));
            }
            other => return other.expect_running(&id).map(|_| ()),
        };
        self.freeze(true).await.map_err(|e| e.within(&format!("cannot pause container {id}")))?;
        self.set_state(State::Running(Running { paused: true, ..running }), false).await;
        self.ground.tell(&self.definition, "pause", &[]);
        Ok(())
    }

    pub(super) async fn unpause(&mut self) -> Result<(), ApiError> {
        let id = self.definition.id.clone();
        let State::Running(running @ Running { paused: true, .. }) = self.state() else {
            return Err(ApiError::internal(format!("Container {id} is not paused")));
        };
        self.freeze(false).await.map_err(|e| e.within(&format!("Cannot unpause container {id}")))?;
        self.set_state(State::Running(Running { paused: false, ..running }), false).await;
        self.ground.tell(&self.definition, "unpause", &[]);
        Ok(())
    }

    async fn freeze(&self, frozen: bool) -> Result<(), ApiError> {
        let cgroup = Cgroup::of(Some(&cgroup_path(&self.definition)))
            .ok_or_else(|| ApiError::internal("there is no cgroup v2 on this system"))?;
        let done = tokio::task::spawn_blocking(move || cgroup.set_frozen(frozen)).await?;
        done.map_err(|error| ApiError::internal(chain(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{definition, empty_cgroup};
    use super::*;

    #[test]
    fn who_was_paused_for_a_moment_goes_on() {
        let bundles = tempfile::tempdir().unwrap();
        let definition = definition(&format!("paused{}", std::process::id()));
        let shim = Shim::new(bundles.path(), &definition.id);
        std::fs::create_dir(bundles.path().join(&definition.id)).unwrap();
        let Some(cgroup) = empty_cgroup(&definition) else { return };
        cgroup.set_frozen(true).unwrap();
        assert!(is_frozen(&definition, &shim), "who was paused by a client stays so");
        shim.note_pause().unwrap();
        let frozen = is_frozen(&definition, &shim);
        cgroup.remove().unwrap();
        assert!(!frozen && !shim.clear_pause().unwrap());
    }
}
