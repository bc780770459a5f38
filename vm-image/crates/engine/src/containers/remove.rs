//! Removing: the files, the layers it held, its name; then it was never there.

use std::io;
use std::path::Path;

use tracing::error;

use super::Handle;
use super::state::{Created, State};
use super::task::{Request, Task};
use crate::error::{ApiError, chain};

impl Handle {
    /// Removes the container; one that runs is killed first if `force`, else refused. `name` is what the client called it.
    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<(), ApiError> {
        if self.is_running() {
            if !force {
                return Err(ApiError::conflict(format!(
                    "cannot remove container \"{name}\": container is running: stop the container before removing or force remove"
                )));
            }
            let ends = self.status.borrow().ends;
            self.kill_for_good(ends).await?;
        }
        match self.ask(Request::Remove).await {
            // It was to be removed at its end, and was.
            Err(_) if matches!(self.state(), State::Removed) => Ok(()),
            other => other,
        }
    }
}

impl Task {
    pub(super) async fn remove(&mut self) -> Result<(), ApiError> {
        let exited = match self.state() {
            State::Running(_) => {
                return Err(ApiError::conflict(format!(
                    "cannot remove container \"{}\": container is running: stop the container before removing or force remove",
                    self.definition.name
                )));
            }
            State::Created(created) => created.as_exited(),
            State::Exited(exited) | State::Removing(exited) => exited,
            State::Removed => return Ok(()),
        };
        self.set_state(State::Removing(exited.clone()), false).await;
        if let Some(finishing) = self.finishing.take() {
            finishing.done().await;
        }
        let (ground, id, directory) =
            (self.ground.clone(), self.definition.id.clone(), self.directory.clone());
        let shim = self.shim.clone();
        let removed = tokio::task::spawn_blocking(move || -> Result<(), ApiError> {
            delete(directory.path())
                .map_err(|e| ApiError::from_chain("could not remove the container's files", &e))?;
            // A shim that another engine started has left its bundle.
            if let Err(error) = shim.clear() {
                error!(error = %chain(&error), "could not remove a bundle");
            }
            if let Err(error) = ground.images.release(&id) {
                // What it held is let go of when the engine starts the next time.
                error!(error = %chain(&error), "could not let go of the container's image");
            }
            Ok(())
        });
        if let Err(error) = removed.await? {
            let state = if exited.started_at.is_zero() {
                State::Created(Created { exit_code: exited.exit_code, error: exited.error })
            } else {
                State::Exited(exited)
            };
            self.set_state(state, false).await;
            return Err(error);
        }
        self.register.forget(&self.definition);
        self.set_state(State::Removed, true).await;
        self.ground.tell(&self.definition, "destroy", &[]);
        Ok(())
    }
}

/// Removes a container's directory. It is renamed first, so that one that is half removed when the engine ends is not
/// taken for a container.
pub(super) fn delete(directory: &Path) -> io::Result<()> {
    let doomed = directory.with_extension("removing");
    match std::fs::rename(directory, &doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match std::fs::remove_dir_all(&doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
