//! Removing: the files, the layers it held, its name; then it was never there.

use std::fs::File;
use std::io;
use std::path::Path;

use tracing::{error, warn};

use super::record::{Directory, Lasting};
use super::state::{Created, FailedRemovals, State};
use super::task::{Request, Task};
use super::{Handle, quota};
use crate::error::{ApiError, chain};

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RemoveOptions {
    /// One that runs is killed first, else refused.
    pub(crate) force: bool,
    /// Its anonymous volumes go too, unless another container has them.
    pub(crate) volumes: bool,
}

impl Handle {
    /// Removes the container. `name` is what the client called it.
    pub(crate) async fn remove(&self, name: &str, options: RemoveOptions) -> Result<(), ApiError> {
        let RemoveOptions { force, volumes } = options;
        let within = |e: ApiError| e.within(&format!("cannot remove container \"{name}\""));
        if let Some(refusal) = refusal(&self.state()) {
            if !force {
                return Err(within(refusal));
            }
            let ends = self.status.borrow().ends;
            self.kill_for_good(ends).await.map_err(|e| within(e.within("could not kill container")))?;
        }
        match self.ask(|answer| Request::Remove { volumes, answer }).await {
            // It was to be removed at its end, and was.
            Err(_) if matches!(self.state(), State::Removed) => Ok(()),
            other => other.map_err(within),
        }
    }
}

/// Why a container is not removed as it stands.
fn refusal(state: &State) -> Option<ApiError> {
    match state {
        State::Running(running) if running.paused => {
            Some(ApiError::conflict("container is paused and must be unpaused first"))
        }
        State::Running(_) | State::Restarting(_) => Some(ApiError::conflict(format!(
            "container is {}: stop the container before removing or force remove",
            state.name()
        ))),
        State::Created(_) | State::Exited(_) | State::Removing(_) | State::Removed => None,
    }
}

impl Task {
    pub(super) async fn remove(&mut self, volumes: bool) -> Result<(), ApiError> {
        let state = self.state();
        if let Some(refusal) = refusal(&state) {
            return Err(refusal);
        }
        let exited = match state {
            State::Running(_) | State::Restarting(_) | State::Removed => return Ok(()),
            State::Created(created) => created.as_exited(),
            State::Exited(exited) | State::Removing(exited) => exited,
        };
        self.set_state(State::Removing(exited.clone()), false).await;
        if let Some(finishing) = self.finishing.take() {
            finishing.done_or_serving(&self.shim).await;
        }
        // Who reads its files has them to the end; who comes from now on is told that it goes.
        let _files = self.files.clone().lock_owned().await;
        let (ground, id, directory) =
            (self.ground.clone(), self.definition.id.clone(), self.directory.clone());
        let definition = self.definition.clone();
        let shim = self.shim.clone();
        // One that goes at its end goes again if it comes back, whatever brings it.
        let lasting =
            if self.definition.host_config.auto_remove { Lasting::ThisBoot } else { Lasting::BeyondPower };
        let removed = tokio::task::spawn_blocking(move || -> Result<(), ApiError> {
            let release = || ground.release_volumes(&id, definition.mounts.iter(), volumes);
            let doom = if volumes && definition.mounts.iter().any(|mounting| mounting.anonymous) {
                DOOMED_WITH_VOLUMES
            } else {
                DOOMED
            };
            delete_as(directory.path(), doom, lasting, release)
                .map_err(|e| ApiError::from_chain("could not remove the container's files", &e))?;
            // A shim that another engine started has left its bundle.
            if let Err(error) = shim.clear() {
                error!(error = %chain(&error), "could not remove a bundle");
            }
            if let Err(error) = ground.release_layers(&id) {
                // What it held is let go of when the engine starts the next time.
                error!(error = %chain(&error), "could not let go of the container's image");
            }
            Ok(())
        });
        if let Err(error) = removed.await.map_err(ApiError::from).flatten() {
            let state = if exited.started_at.is_zero() {
                State::Created(Created { exit_code: exited.exit_code, error: exited.error })
            } else {
                State::Exited(exited)
            };
            self.set_state(state, false).await;
            self.status.send_modify(|status| {
                let count = status.failed_removals.count + 1;
                status.failed_removals = FailedRemovals { count, why: error.message.clone() };
            });
            return Err(error);
        }
        self.register.forget(&self.definition);
        self.set_state(State::Removed, true).await;
        self.ground.tell(&self.definition, "destroy", &[]);
        Ok(())
    }
}

/// The extension of the directory of a container that is being removed.
const DOOMED: &str = "removing";
/// The same of one whose anonymous volumes are to go too.
pub(super) const DOOMED_WITH_VOLUMES: &str = "removing-with-volumes";

/// Removes a container's directory. It is renamed first, so that one that is half removed when the engine ends is not
/// taken for a container; and that is on the disk, if it is to be `lasting`, before anything else is done: no power cut brings back
/// what a client was told is gone.
pub(super) fn delete(directory: &Path, lasting: Lasting) -> io::Result<()> {
    delete_as(directory, DOOMED, lasting, || {})
}

/// The same; `release` lets go of what the container held, when it is a container no more and before it is forgotten.
fn delete_as(directory: &Path, extension: &str, lasting: Lasting, release: impl FnOnce()) -> io::Result<()> {
    let doomed = directory.with_extension(extension);
    match std::fs::rename(directory, &doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(()) if lasting == Lasting::BeyondPower => {
            directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
        }
        Ok(()) => {}
    }
    release();
    match remove_files(&doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files of what is a container no more.
pub(super) fn remove_files(doomed: &Path) -> io::Result<()> {
    if let Err(error) = quota::release(&Directory::at(doomed)) {
        warn!(error = %chain(&error), path = %doomed.display(), "the limit of a removed container is left");
    }
    std::fs::remove_dir_all(doomed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Home, definition, exited};
    use super::super::wait::Condition;
    use super::*;

    const KEEPS_FILES: RemoveOptions = RemoveOptions { force: false, volumes: false };

    #[tokio::test]
    async fn a_removal_waits_for_who_reads_the_files() {
        let home = Home::new().await;
        let handle = home.adopt(definition("read"), exited(0));
        let directory = home.containers.directory(&handle.id);
        let reading = handle.files.clone().lock_owned().await;
        let removed = tokio::spawn({
            let handle = handle.clone();
            async move { handle.remove("read", KEEPS_FILES).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(directory.path().exists() && !removed.is_finished());
        drop(reading);
        removed.await.unwrap().unwrap();
        assert!(!directory.path().exists());
    }

    #[tokio::test]
    async fn a_removal_that_fails_is_told_to_who_waits_for_it() {
        let home = Home::new().await;
        let handle = home.adopt(definition("stuck"), exited(3));
        // What the directory is to be called is taken.
        let directory = home.containers.directory(&handle.id);
        std::fs::create_dir_all(directory.path().with_extension(DOOMED).join("else")).unwrap();
        let wait = handle.wait(Condition::Removed);
        let error = handle.remove("stuck", KEEPS_FILES).await.unwrap_err();
        let outcome = wait.outcome().await;
        assert_eq!(outcome.exit_code, 3);
        assert!(error.message.ends_with(&outcome.error.unwrap()));
    }
}
