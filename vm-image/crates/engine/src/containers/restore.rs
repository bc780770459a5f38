//! Starting is recovering: every container is found again by its directory, every running one by its shim.
//!
//! A container that does not run is then started if its restart policy wants that: `always` whoever stopped it, `unless-stopped` if no
//! client did, `on-failure` if it failed.
//!
//! The shim has the last word: a container runs if its shim says so, or is there and late to say anything; it ended as the shim,
//! or the record that the shim left, says; and if there is neither, the shim was killed and the container with it, or their machine
//! was. What else lies about (bundles, directories half made or half removed, layers held for nobody) is removed; what cannot be
//! removed is left for the next engine.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use caisson_docker_api::time::Timestamp;
use caisson_images::{ImageId, Store};
use caisson_networks::Sandbox;
use caisson_shim::proto::{ExitRecord, Request as ShimRequest, State as ShimState};
use futures_util::future::join_all;
use tracing::{error, info, warn};

use super::late::{presumed, without_record};
use super::leftovers::clear_away;
use super::mounts::images::{container_of, holders};
use super::policy::{Restarts, starts_with_engine};
use super::record::{Definition, Lasting, Standing, StoredState};
use super::remove::RemoveOptions;
use super::shim::{Word, read_record, timestamp};
use super::state::{Created, Exited, Running, State};
use super::task::{History, KILLED};
use super::{Containers, Handle, cgroup, news, pause, remove};
use crate::error::chain;
use crate::system;

/// How long clients wait for containers to be started again.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// How long a shim may take to say where its container stands, before the engine goes on without its word.
const SHIMS_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is to be done with a container that was found.
enum Next {
    /// It lives, or stays as it is.
    Nothing,
    /// It has ended and is to be removed.
    Remove(Handle),
    /// It does not run, and its restart policy wants it to when the engine starts.
    Start(Handle),
}

/// A container on disk and what was found of it.
struct Found {
    definition: Definition,
    stored: Standing,
    alive: Option<(u32, Timestamp)>,
    /// Its shim has not answered.
    late: bool,
    record: Option<ExitRecord>,
    /// A start was asked for, whatever came of it.
    was_started: bool,
}

impl Containers {
    /// Finds every container that an engine before this one has left. Called once, before any client.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        self.clear_doomed()?;
        let found = self.look_at_all().await?;
        let live = found.iter().filter(|one| one.alive.is_some()).map(|one| one.definition.id.clone());
        let mut live: Vec<String> = live.collect();
        let unread = self.unread_that_run(&found).await?;
        live.extend(unread.iter().map(|(id, _)| id.clone()));
        self.clear_bundles(&live)?;
        if live.is_empty()
            && let Err(error) = system::remove_old_base_layers(&self.ground.base_layer)
        {
            warn!(%error, "could not remove what was below the containers of another engine");
        }
        let restored = self.ground.networks.restore(&live).await;
        for lost in restored.iter().flat_map(|one| &one.lost) {
            error!(error = %chain(lost), "a published port could not be opened again");
        }
        let sandboxes: Vec<Sandbox> = restored.into_iter().map(|one| one.sandbox).collect();
        let late: BTreeSet<String> =
            found.iter().filter(|one| one.late).map(|one| one.definition.id.clone()).collect();
        self.hold_layers(&found).await?;
        let (mut ended, mut to_start) = (Vec::new(), Vec::new());
        for one in found {
            if one.alive.is_none() {
                cgroup::remove(&one.definition).await;
            }
            self.ground.hold_volumes(&one.definition.id, &one.definition.mounts, one.alive.is_some());
            let sandbox = sandboxes.iter().find(|s| s.container == one.definition.id).cloned();
            match self.take_over(one, sandbox) {
                Next::Nothing => {}
                Next::Remove(handle) => ended.push(handle),
                Next::Start(handle) => to_start.push(handle),
            }
        }
        for (id, word) in &unread {
            self.ground.hold_found_volumes(id, word);
        }
        self.release_layers().await?;
        for handle in self.all().into_iter().filter(|handle| handle.state().running().is_some()) {
            if late.contains(&*handle.id) {
                tokio::spawn(self.clone().restore_late(handle));
            } else {
                self.restore_execs(&handle).await;
            }
        }
        self.settle_volumes().await?;
        let with_volumes = RemoveOptions { force: false, volumes: true };
        for handle in ended {
            if let Err(error) = handle.remove(&handle.definition().name, with_volumes).await {
                error!(id = handle.short_id(), %error, "could not remove a container after its end");
            }
        }
        info!(
            containers = self.all().len(),
            running = live.len(),
            starting = to_start.len(),
            "containers found"
        );
        // Whoever asks next finds them up, unless there are too many for that: then clients, who may want some of them gone, come first.
        if tokio::time::timeout(STARTS_WITHIN, tokio::spawn(start_again(to_start))).await.is_err() {
            info!("clients are served while containers are still being started again");
        }
        Ok(())
    }

    /// What there is of all containers. Their shims are asked at the same time: one that is late holds up no other.
    async fn look_at_all(&self) -> anyhow::Result<Vec<Found>> {
        let ids = self.ids_on_disk()?;
        let seen = join_all(ids.iter().map(|id| self.look_at(id))).await;
        let mut found = Vec::new();
        for (id, one) in ids.iter().zip(seen) {
            match one {
                Ok(Some(one)) => found.push(one),
                Ok(None) => {
                    // It was being made when the engine or the machine ended, and nobody was told of it.
                    warn!(%id, "removing a container that was not finished");
                    if let Err(error) = remove::delete(self.ground.directory(id).path(), Lasting::ThisBoot) {
                        warn!(%id, error = %chain(&error), "could not remove it");
                    }
                }
                Err(error) => error!(%id, error = %chain(&error), "unreadable container: left alone"),
            }
        }
        Ok(found)
    }

    /// What there is of a container; `None` if it was never finished.
    async fn look_at(&self, id: &str) -> io::Result<Option<Found>> {
        let directory = self.ground.directory(id);
        let Some(definition) = directory.definition()? else { return Ok(None) };
        let stored = directory.standing()?.unwrap_or_else(Standing::new);
        let shim = self.ground.shim_of(id);
        let has_bundle = shim.exists();
        let word = shim.answered_within(SHIMS_ANSWER_WITHIN).await;
        let late = word == Word::None;
        let left = || read_record(&directory.exit_record());
        let (alive, record) = match word {
            Word::Stands(ShimState::Running { pid, started_at }) => {
                (Some((pid, timestamp(started_at))), None)
            }
            Word::Stands(ShimState::Exited(record)) => (None, Some(record)),
            Word::Stands(ShimState::Created) => {
                // Its start was asked for and not answered. One that does not listen any more is gone, too.
                if let Err(error) = shim.order(&ShimRequest::Discard).await {
                    warn!(%id, %error, "could not discard a shim");
                }
                (None, None)
            }
            Word::Gone => (None, left()),
            Word::None => {
                warn!(%id, "a shim is late; its container is taken for running until it tells more");
                match presumed(&definition, &stored.state) {
                    None => (None, left()),
                    alive => (alive, None),
                }
            }
        };
        let was_started = has_bundle || record.is_some() || !never_started(&stored.state);
        let late = late && alive.is_some();
        Ok(Some(Found { definition, stored, alive, late, record, was_started }))
    }

    /// Those of the containers that could not be read that run, each with its shim's word: what they have is left to them, for an engine that
    /// can read them.
    async fn unread_that_run(&self, found: &[Found]) -> anyhow::Result<Vec<(String, Word)>> {
        let read: BTreeSet<&str> = found.iter().map(|one| one.definition.id.as_str()).collect();
        let ids = self.ids_on_disk()?.into_iter().filter(|id| !read.contains(id.as_str()));
        let ask = |id: String| async {
            let shim = self.ground.shim_of(&id);
            let word =
                if shim.exists() { shim.answered_within(SHIMS_ANSWER_WITHIN).await } else { Word::Gone };
            (id, word)
        };
        let told = join_all(ids.map(ask)).await;
        Ok(told.into_iter().filter(|(_, word)| *word != Word::Gone).collect())
    }

    /// Removes the bundles of all but those that live.
    fn clear_bundles(&self, live: &[String]) -> anyhow::Result<()> {
        let live: BTreeSet<&str> = live.iter().map(String::as_str).collect();
        let root: &Path = &self.ground.shims;
        for entry in std::fs::read_dir(root).with_context(|| format!("could not read {}", root.display()))? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| live.contains(name)) {
                clear_away(&entry.path());
            }
        }
        Ok(())
    }

    /// Starts the task of a container, and tells what is to be done with it next.
    fn take_over(&self, found: Found, sandbox: Option<Sandbox>) -> Next {
        let Found { definition, stored, alive, late: _, record, was_started } = found;
        let id = definition.id.clone();
        let mut restarts = Restarts::counted(stored.restarts);
        let seen = record.is_some();
        let (state, ended) = match alive {
            Some((pid, started_at)) => {
                let sandbox = sandbox.unwrap_or_else(|| without_record(&definition, pid));
                let finished_before = match &stored.state {
                    StoredState::Exited(exited) | StoredState::Restarting(exited) => exited.finished_at,
                    StoredState::Created { .. } | StoredState::Running { .. } => Timestamp::ZERO,
                };
                let paused = pause::is_frozen(&definition, &self.ground.shim_of(&id));
                let oom_kills = news::oom_kills(&definition);
                let running = Running { pid, started_at, paused, oom_kills, finished_before, sandbox };
                (State::Running(running), false)
            }
            None => settle(stored.state.clone(), record),
        };
        let (state, restart_in) = if seen {
            restart_by_policy(state, ended, &definition, &mut restarts, stored.manually_stopped)
        } else {
            (state, None)
        };
        if let Err(error) = self.register.reserve(&definition.name, &id) {
            error!(id = definition.short_id(), %error, "two containers of one name");
        }
        if let Some(state) = state.stored() {
            let now = Standing { state, restarts: restarts.count, manually_stopped: stored.manually_stopped };
            if now != stored
                && let Err(error) = self.ground.directory(&id).write_standing(&now, Lasting::BeyondPower)
            {
                error!(id = definition.short_id(), error = %chain(&error), "could not write a container's state");
            }
        }
        let exit_code = state.describe().exit_code;
        let next = match &state {
            State::Exited(_) if starts_with_us(&definition, &state, &stored) => Next::Start,
            state if goes_at_its_end(&definition, state, was_started) => Next::Remove,
            _ => |_| Next::Nothing,
        };
        let history = History { restarts, restart_in, manually_stopped: stored.manually_stopped };
        let handle = self.adopt(definition, state, history);
        if ended {
            self.ground.tell(&handle.definition(), "die", &[("exitCode", exit_code.to_string())]);
        }
        next(handle)
    }

    /// Holds the layers of what was found again: a power cut may have taken a hold back. Nothing for one that stands.
    async fn hold_layers(&self, found: &[Found]) -> anyhow::Result<()> {
        let users: Vec<(String, String)> = found.iter().flat_map(|one| holders(&one.definition)).collect();
        let images = self.ground.images.clone();
        Ok(tokio::task::spawn_blocking(move || hold(&images, &users)).await?)
    }

    /// Lets go of the layers of containers that are gone: that have no directory, not even one that cannot be read.
    async fn release_layers(&self) -> anyhow::Result<()> {
        let ids: BTreeSet<String> = self.ids_on_disk()?.into_iter().collect();
        let images = self.ground.images.clone();
        tokio::task::spawn_blocking(move || {
            images.release_all_but(&|holder| ids.contains(container_of(holder)))
        })
        .await?
        .context("could not let go of the images of containers that are gone")
    }
}

/// Whether no start was asked for, as far as is written.
fn never_started(stored: &StoredState) -> bool {
    matches!(stored, StoredState::Created { exit_code: 0, error } if error.is_empty())
}

/// Whether a container is to be removed: that is to go at its end, and has ended, or could not be started.
fn goes_at_its_end(definition: &Definition, state: &State, was_started: bool) -> bool {
    let ended = match state {
        State::Exited(_) => true,
        State::Created(_) => was_started,
        State::Running(_) | State::Restarting(_) | State::Removing(_) | State::Removed => false,
    };
    definition.host_config.auto_remove && ended
}

fn hold(images: &Store, users: &[(String, String)]) {
    for (id, image) in users {
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

/// Starts what its policies want to run: first those that stand alone, then those that join another's namespaces.
async fn start_again(handles: Vec<Handle>) {
    let joins_another = |handle: &Handle| {
        let host = &handle.definition().host_config;
        [&host.network_mode, &host.ipc_mode, &host.pid_mode].iter().any(|mode| mode.starts_with("container:"))
    };
    let (second, first): (Vec<Handle>, Vec<Handle>) = handles.into_iter().partition(joins_another);
    for group in [first, second] {
        let starts = group.iter().map(|handle| async move {
            if let Err(error) = handle.start().await {
                warn!(id = handle.short_id(), %error, "could not start a container again");
            }
        });
        join_all(starts).await;
    }
}

/// An end that no engine was there to see is an end like others: its policy has its say, and its count goes on.
fn restart_by_policy(
    state: State,
    ended: bool,
    definition: &Definition,
    restarts: &mut Restarts,
    stopped: bool,
) -> (State, Option<Duration>) {
    let State::Exited(exited) = state else { return (state, None) };
    let lasted = exited.started_at.until(exited.finished_at);
    let policy = &definition.host_config.restart_policy;
    let delay = if ended { restarts.after(policy, exited.exit_code, stopped, lasted) } else { None };
    match delay {
        Some(delay) => (State::Restarting(exited), Some(delay)),
        None => (State::Exited(exited), None),
    }
}

/// Whether a container that does not run is started with the engine.
fn starts_with_us(definition: &Definition, state: &State, stored: &Standing) -> bool {
    let (policy, code) = (&definition.host_config.restart_policy, state.describe().exit_code);
    starts_with_engine(policy, stored.restarts, code, stored.manually_stopped)
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
        // One that waited for its restart is started with the engine.
        (StoredState::Restarting(exited) | StoredState::Exited(exited), _) => (State::Exited(exited), false),
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
    use std::path::PathBuf;
    use std::sync::mpsc;

    use caisson_images::ImportOptions;
    use caisson_shim::proto::{FailureKind, Reply, StartFailure, UnixNanos};
    use caisson_volumes::NewVolume;
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use rustix::thread::UnshareFlags;

    use super::super::testing::{Home, definition};
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_removed_does_not_keep_the_engine_from_starting() {
        let home = Home::new().await;
        // Files are no directories, and so not removed as such.
        for name in ["a.removing", "b.removing-with-volumes", "c.making"] {
            std::fs::write(home.containers.ground.containers.join(name), "").unwrap();
        }
        std::fs::write(home.containers.ground.shims.join("d"), "").unwrap();
        home.lay_out(&definition("kept"));
        home.containers.restore().await.unwrap();
        assert_eq!(home.containers.all().len(), 1);
    }

    #[tokio::test]
    async fn a_start_that_the_engine_s_end_cut_short_is_an_end() {
        let home = Home::new().await;
        for (name, auto_remove, started) in
            [("asked", true, true), ("unasked", true, false), ("stays", false, true)]
        {
            let mut definition = definition(name);
            definition.host_config.auto_remove = auto_remove;
            home.lay_out(&definition);
            if started {
                std::fs::create_dir(home.containers.ground.shims.join(&definition.id)).unwrap();
            }
        }
        home.containers.restore().await.unwrap();
        let mut left: Vec<String> =
            home.containers.all().iter().map(|handle| handle.definition().name.clone()).collect();
        left.sort();
        assert_eq!(left, ["stays", "unasked"]);
    }

    #[tokio::test]
    async fn who_runs_and_cannot_be_read_keeps_its_shim() {
        let home = Home::new().await;
        let ground = &home.containers.ground;
        let unread = |name: &str| {
            let definition = definition(name);
            home.lay_out(&definition);
            let file = ground.directory(&definition.id).path().join("container.json");
            std::fs::write(file, r#"{"version":9}"#).unwrap();
            definition.id
        };
        let (runs, ended) = (unread("runs"), unread("ended"));
        home.serve_shim(&runs, |_| {
            Some(Reply::State(ShimState::Running { pid: 1, started_at: UnixNanos(1) }))
        });
        std::fs::create_dir(ground.shims.join(&ended)).unwrap();
        home.containers.restore().await.unwrap();
        assert!(ground.shim_of(&runs).exists() && !ground.shim_of(&ended).exists());
        assert!([runs, ended].iter().all(|id| ground.directory(id).path().exists()));
    }

    /// A thread with a mount namespace of its own, in which a directory is mounted: its number. It ends when the other end is dropped.
    fn with_mounted(directory: PathBuf, point: PathBuf) -> (u32, mpsc::Sender<()>) {
        let ((tell, told), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        std::thread::spawn(move || {
            caisson_sys::clone::unshare(UnshareFlags::NEWNS.bits().cast_signed()).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount_bind(directory, point).unwrap();
            tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            // Its error is the end.
            let _ = ended.recv();
        });
        (told.recv().unwrap(), end)
    }

    #[tokio::test]
    async fn who_runs_and_cannot_be_read_keeps_its_volumes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let home = Home::new().await;
        let ground = &home.containers.ground;
        let [used, free] = ["used", "free"].map(|name| {
            let new = NewVolume { name: name.into(), ..NewVolume::default() };
            ground.volumes.create(new, None).unwrap().0
        });
        let definition = definition("unread");
        home.lay_out(&definition);
        let directory = ground.directory(&definition.id);
        std::fs::write(directory.path().join("container.json"), r#"{"version":9}"#).unwrap();
        let (pid, _end) = with_mounted(used.path, directory.upper());
        home.serve_shim(&definition.id, move |_| {
            Some(Reply::State(ShimState::Running { pid, started_at: UnixNanos(1) }))
        });
        home.containers.restore().await.unwrap();
        assert_eq!(ground.volumes.holders(&used.name), [definition.id]);
        ground.volumes.remove(&used.name).unwrap_err();
        ground.volumes.remove(&free.name).unwrap();
    }

    #[tokio::test]
    async fn who_runs_keeps_the_layer_below_it() {
        for runs in [true, false] {
            let home = Home::new().await;
            let old = home.containers.ground.base_layer.with_file_name("base-layer-1");
            std::fs::create_dir(&old).unwrap();
            let definition = definition("old");
            home.lay_out(&definition);
            if runs {
                home.serve_shim(&definition.id, |_| {
                    Some(Reply::State(ShimState::Running { pid: 1, started_at: UnixNanos(1) }))
                });
            }
            home.containers.restore().await.unwrap();
            assert_eq!(old.exists(), runs);
            assert!(home.containers.ground.base_layer.exists());
        }
    }

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
        let stored = StoredState::Exited(Exited {
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: 7,
            oom_killed: false,
            error: String::new(),
        });
        let record = ExitRecord { code: 3, finished_at: UnixNanos(5), oom_killed: false, failure: None };
        assert_eq!(code(stored, Some(record)), (7, false));
    }
}
