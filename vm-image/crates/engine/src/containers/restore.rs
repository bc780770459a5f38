//! Starting is recovering: every container is found again by its directory, every running one by its shim.
//!
//! The shim has the last word: a container runs if its shim says so; it ended as the shim, or the record that the shim
//! left, says; and if there is neither, the shim was killed and the container with it, or their machine was. What else
//! lies about (bundles, directories half made or half removed, layers held for nobody) is removed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::Context;
use caisson_docker_api::time::Timestamp;
use caisson_images::{ImageId, Store};
use caisson_networks::Sandbox;
use caisson_shim::proto::{ExitRecord, Request as ShimRequest, State as ShimState};
use tracing::{error, info, warn};

use super::record::{Definition, Lasting, StoredState};
use super::shim::{read_record, timestamp};
use super::state::{Created, Exited, Running, State};
use super::task::KILLED;
use super::{Containers, Handle, cgroup, remove};
use crate::error::chain;

/// A container on disk and what was found of it.
struct Found {
    definition: Definition,
    stored: StoredState,
    alive: Option<(u32, Timestamp)>,
    record: Option<ExitRecord>,
}

impl Containers {
    /// Finds every container that an engine before this one has left. Called once, before any client.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for id in self.ids_on_disk()? {
            match self.look_at(&id).await {
                Ok(Some(one)) => found.push(one),
                Ok(None) => {
                    // It was being made when the engine or the machine ended, and nobody was told of it.
                    warn!(%id, "removing a container that was not finished");
                    remove::delete(self.ground.directory(&id).path())?;
                }
                Err(error) => error!(%id, error = %chain(&error), "unreadable container: left alone"),
            }
        }
        self.clear_bundles(&found)?;
        let live = found.iter().filter(|one| one.alive.is_some()).map(|one| one.definition.id.clone());
        let live: Vec<String> = live.collect();
        let restored = self.ground.networks.restore(&live).await;
        for lost in restored.iter().flat_map(|one| &one.lost) {
            error!(error = %chain(lost), "a published port could not be opened again");
        }
        let sandboxes: Vec<Sandbox> = restored.into_iter().map(|one| one.sandbox).collect();
        self.hold_layers(&found).await?;
        let mut ended = Vec::new();
        for one in found {
            if one.alive.is_none() {
                cgroup::remove(&one.definition).await;
            }
            let sandbox = sandboxes.iter().find(|s| s.container == one.definition.id).cloned();
            ended.extend(self.take_over(one, sandbox));
        }
        self.release_layers().await?;
        for handle in ended {
            if let Err(error) = handle.remove(&handle.definition.name, false).await {
                error!(id = handle.definition.short_id(), %error, "could not remove a container after its end");
            }
        }
        info!(containers = self.all().len(), running = live.len(), "containers found");
        Ok(())
    }

    /// The ids of the containers' directories. What was being removed is removed.
    fn ids_on_disk(&self) -> anyhow::Result<Vec<String>> {
        let root = &self.ground.containers;
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(root).with_context(|| format!("could not read {}", root.display()))? {
            let path = entry?.path();
            if path.extension().is_some() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("could not remove {}", path.display()))?;
            } else if let Some(name) = path.file_name() {
                ids.push(name.to_string_lossy().into_owned());
            }
        }
        Ok(ids)
    }

    /// What there is of a container; `None` if it was never finished.
    async fn look_at(&self, id: &str) -> io::Result<Option<Found>> {
        let directory = self.ground.directory(id);
        let Some(definition) = directory.definition()? else { return Ok(None) };
        let never_started = StoredState::Created { exit_code: 0, error: String::new() };
        let stored = directory.state()?.unwrap_or(never_started);
        let shim = self.ground.shim_of(id);
        let told = if shim.exists() { shim.state().await.ok() } else { None };
        let (alive, record) = match told {
            Some(ShimState::Running { pid, started_at }) => (Some((pid, timestamp(started_at))), None),
            Some(ShimState::Exited(record)) => (None, Some(record)),
            Some(ShimState::Created) => {
                // Its start was asked for and not answered. One that does not listen any more is gone, too.
                if let Err(error) = shim.order(&ShimRequest::Discard).await {
                    warn!(%id, %error, "could not discard a shim");
                }
                (None, None)
            }
            None => (None, read_record(&directory.exit_record())),
        };
        Ok(Some(Found { definition, stored, alive, record }))
    }

    /// Removes the bundles of all but those that live.
    fn clear_bundles(&self, found: &[Found]) -> anyhow::Result<()> {
        let live: BTreeSet<&str> =
            found.iter().filter(|one| one.alive.is_some()).map(|one| one.definition.id.as_str()).collect();
        let root: &Path = &self.ground.shims;
        for entry in std::fs::read_dir(root).with_context(|| format!("could not read {}", root.display()))? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| live.contains(name)) {
                let path = entry.path();
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("could not remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Starts the task of a container; its handle, if it has ended and is to be removed.
    fn take_over(&self, found: Found, sandbox: Option<Sandbox>) -> Option<Handle> {
        let Found { definition, stored, alive, record } = found;
        let id = definition.id.clone();
        let finished_before = match &stored {
            StoredState::Exited { finished_at, .. } => *finished_at,
            _ => Timestamp::ZERO,
        };
        let (state, ended) = match alive {
            Some((pid, started_at)) => {
                let sandbox = sandbox.unwrap_or_else(|| {
                    warn!(id = definition.short_id(), "a running container has lost its network");
                    Sandbox {
                        container: id.clone(),
                        netns: None,
                        endpoints: Vec::new(),
                        published: Vec::new(),
                    }
                });
                (State::Running(Running { pid, started_at, finished_before, sandbox }), false)
            }
            None => settle(stored.clone(), record),
        };
        if let Err(error) = self.register.reserve(&definition.name, &id) {
            error!(id = definition.short_id(), %error, "two containers of one name");
        }
        if let Some(now) = state.stored()
            && now != stored
            && let Err(error) = self.ground.directory(&id).write_state(&now, Lasting::BeyondPower)
        {
            error!(id = definition.short_id(), error = %chain(&error), "could not write a container's state");
        }
        let exit_code = state.describe().exit_code;
        let remove_now = definition.host_config.auto_remove && matches!(state, State::Exited(_));
        let handle = self.adopt(definition, state);
        if ended {
            self.ground.tell(&handle.definition, "die", &[("exitCode", exit_code.to_string())]);
        }
        remove_now.then_some(handle)
    }

    /// Holds the layers of what was found again: a power cut may have taken a hold back. Nothing for one that stands.
    async fn hold_layers(&self, found: &[Found]) -> anyhow::Result<()> {
        let of = |one: &Found| (one.definition.id.clone(), one.definition.image.clone());
        let users: Vec<(String, String)> = found.iter().map(of).collect();
        let images = self.ground.images.clone();
        Ok(tokio::task::spawn_blocking(move || hold(&images, &users)).await?)
    }

    /// Lets go of the layers of containers that are gone: that have no directory, not even one that cannot be read.
    async fn release_layers(&self) -> anyhow::Result<()> {
        let ids: BTreeSet<String> = self.ids_on_disk()?.into_iter().collect();
        let images = self.ground.images.clone();
        tokio::task::spawn_blocking(move || images.release_all_but(&|id| ids.contains(id)))
            .await?
            .context("could not let go of the images of containers that are gone")
    }
}

fn hold(images: &Store, users: &[(String, String)]) {
    for (id, image) in users.iter().filter(|(_, image)| !image.is_empty()) {
        let Ok(image) = image.parse().map(ImageId) else {
            error!(%id, image, "a container of an image that has no such id");
            continue;
        };
        if let Err(error) = images.hold(id, &image) {
            // It is there to be looked at and removed; what it cannot do is start.
            error!(%id, %image, error = %chain(&error), "a container's layers are not held");
        }
    }
}

/// The state of a container that does not run, and whether it ended unseen.
fn settle(stored: StoredState, record: Option<ExitRecord>) -> (State, bool) {
    match (stored, record) {
        (StoredState::Created { exit_code, error }, None) => {
            (State::Created(Created { exit_code, error }), false)
        }
        (
            StoredState::Created { .. } | StoredState::Running { .. },
            Some(ExitRecord { code: exit_code, failure: Some(failure), .. }),
        ) => (State::Created(Created { exit_code, error: failure.message }), false),
        (StoredState::Created { .. }, Some(record)) => {
            (State::Exited(exited(timestamp(record.finished_at), record)), true)
        }
        (StoredState::Running { started_at }, Some(record)) => {
            (State::Exited(exited(started_at, record)), true)
        }
        (StoredState::Running { started_at }, None) => {
            let exited = Exited {
                started_at,
                finished_at: Timestamp::now(),
                exit_code: KILLED,
                oom_killed: false,
                error: String::new(),
            };
            (State::Exited(exited), true)
        }
        (StoredState::Exited { started_at, finished_at, exit_code, oom_killed, error }, _) => {
            (State::Exited(Exited { started_at, finished_at, exit_code, oom_killed, error }), false)
        }
    }
}

fn exited(started_at: Timestamp, record: ExitRecord) -> Exited {
    Exited {
        started_at,
        finished_at: timestamp(record.finished_at),
        exit_code: record.code,
        oom_killed: record.oom_killed,
        error: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use caisson_images::ImportOptions;
    use caisson_shim::proto::{FailureKind, StartFailure, UnixNanos};

    use super::*;

    fn running() -> StoredState {
        StoredState::Running { started_at: Timestamp::from_unix_nanos(1) }
    }

    fn code(stored: StoredState, record: Option<ExitRecord>) -> (i32, bool) {
        let (state, ended) = settle(stored, record);
        (state.describe().exit_code, ended)
    }

    #[test]
    fn an_end_that_nobody_saw_is_told_by_its_record_or_by_custom() {
        let record = ExitRecord { code: 3, finished_at: UnixNanos(5), oom_killed: false, failure: None };
        assert_eq!(code(running(), Some(record.clone())), (3, true));
        assert_eq!(code(running(), None), (137, true));
        let created = StoredState::Created { exit_code: 0, error: String::new() };
        assert_eq!(code(created.clone(), Some(record)), (3, true));
        assert_eq!(code(created, None), (0, false));
    }

    #[test]
    fn a_hold_that_a_power_cut_took_is_taken_again() {
        let root = tempfile::tempdir().unwrap();
        let images = Store::open(root.path()).unwrap();
        let image = images.import(&[0; 1024][..], &ImportOptions::default()).unwrap();
        let gone = format!("sha256:{}", "0".repeat(64));
        hold(
            &images,
            &[("lost".into(), gone), ("none".into(), String::new()), ("cut".into(), image.to_string())],
        );
        assert_eq!(images.held("cut").unwrap(), images.layers(&image).unwrap());
    }

    #[test]
    fn a_start_that_failed_unseen_is_no_run() {
        let failure = StartFailure { kind: FailureKind::NotFound, message: "no such file".into() };
        let record =
            ExitRecord { code: 127, finished_at: UnixNanos(5), oom_killed: false, failure: Some(failure) };
        let (state, ended) = settle(running(), Some(record));
        assert!(matches!(state, State::Created(Created { exit_code: 127, .. })));
        assert!(!ended);
    }

    #[test]
    fn an_end_that_was_seen_stays_what_it_was() {
        let stored = StoredState::Exited {
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: 7,
            oom_killed: false,
            error: String::new(),
        };
        let record = ExitRecord { code: 3, finished_at: UnixNanos(5), oom_killed: false, failure: None };
        assert_eq!(code(stored, Some(record)), (7, false));
    }
}
