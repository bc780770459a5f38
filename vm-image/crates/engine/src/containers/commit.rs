//! `docker commit`: an image of a container as it is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use caisson_docker_api::container::Config;
use caisson_images::files::{Ids, Packed, pack};
use caisson_images::{CommitOptions, HealthConfig, ImageId, Reference, RunConfig, apply_changes};
use tracing::warn;

use super::state::State;
use super::{Containers, Handle};
use crate::error::{ApiError, chain};

/// What is asked of a commit.
#[derive(Debug, Default)]
pub(crate) struct CommitWishes {
    /// The image's name.
    pub(crate) reference: Option<Reference>,
    pub(crate) author: String,
    pub(crate) comment: String,
    /// The container stands still meanwhile.
    pub(crate) pause: bool,
    /// Dockerfile instructions.
    pub(crate) changes: Vec<String>,
    /// In place of the container's own configuration, which fills what this leaves open.
    pub(crate) config: Option<Config>,
}

impl Containers {
    /// Makes an image of a container; its id.
    pub(crate) async fn commit(&self, handle: &Handle, wishes: CommitWishes) -> Result<ImageId, ApiError> {
        let state = handle.state();
        refuse_if_going(handle, &state)?;
        let pause = wishes.pause && state.running().is_some_and(|running| !running.paused);
        // As in dockerd, one that cannot be paused is committed as it runs.
        let paused = pause && self.pause_for_a_moment(handle).await;
        let committed = self.commit_as_it_is(handle, wishes).await;
        if paused {
            self.go_on(handle).await;
        }
        committed
    }

    /// Pauses a container so that it goes on even if this engine does not; whether it could.
    async fn pause_for_a_moment(&self, handle: &Handle) -> bool {
        if self.ground.shim_of(&handle.id).note_pause().is_err() {
            return false;
        }
        let paused = handle.pause().await.is_ok();
        if !paused {
            self.clear_pause(handle);
        }
        paused
    }

    async fn go_on(&self, handle: &Handle) {
        if let Err(error) = handle.unpause().await {
            warn!(id = handle.short_id(), %error, "a container that was paused for a commit does not go on");
        }
        self.clear_pause(handle);
    }

    /// Without its note a container stays paused if a client pauses it.
    fn clear_pause(&self, handle: &Handle) {
        if let Err(error) = self.ground.shim_of(&handle.id).clear_pause() {
            warn!(id = handle.short_id(), %error, "the next engine will let a container go on, whoever has paused it");
        }
    }

    async fn commit_as_it_is(&self, handle: &Handle, wishes: CommitWishes) -> Result<ImageId, ApiError> {
        let definition = handle.definition();
        let own = run_config(&definition.config);
        let mut config = wishes.config.as_ref().map_or_else(|| own.clone(), run_config);
        apply_changes(&mut config, &wishes.changes).map_err(|e| ApiError::invalid(chain(&e)))?;
        fill(&mut config, &own);
        let parent =
            (!definition.image.is_empty()).then(|| definition.image.parse().map(ImageId)).transpose();
        let parent = parent.map_err(|e| ApiError::from_chain("the container's image has no id", &e))?;
        let reference = wishes.reference.clone();
        let options = CommitOptions {
            parent,
            reference: wishes.reference,
            author: wishes.author,
            message: wishes.comment.clone(),
            created_by: definition.config.cmd.as_ref().map(|cmd| cmd.0.join(" ")).unwrap_or_default(),
            config,
        };
        let ground = self.ground.clone();
        let upper = self.directory(&definition.id).upper();
        // Nothing is asked of the container's task while they are held: it may be waiting for them.
        let files = handle.files.clone().lock_owned().await;
        refuse_if_going(handle, &handle.state())?;
        let work = move || {
            let _files = files;
            let layer =
                Packing::of(File::open(upper).map_err(|e| failed(&e))?.into()).map_err(|e| failed(&e))?;
            ground.images.commit(layer, &options).map_err(|e| crate::images::error(&e))
        };
        let id = tokio::task::spawn_blocking(work).await??;
        let told = [
            ("comment", wishes.comment),
            ("imageID", id.to_string()),
            ("imageRef", reference.map(|name| name.familiar()).unwrap_or_default()),
        ];
        self.ground.tell(&definition, "commit", &told);
        Ok(id)
    }
}

fn refuse_if_going(handle: &Handle, state: &State) -> Result<(), ApiError> {
    match state {
        State::Removing(_) | State::Removed => Err(ApiError::conflict(format!(
            "You cannot commit container {} which is being removed",
            handle.id
        ))),
        State::Created(_) | State::Running(_) | State::Restarting(_) | State::Exited(_) => Ok(()),
    }
}

fn failed(error: &io::Error) -> ApiError {
    ApiError::from_chain("could not read the container's layer", error)
}

/// The container's layer as a tar, packed by a thread while it is read. A failure of packing is one of reading: an archive
/// that is cut short could be read as a whole one.
struct Packing {
    archive: PipeReader,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Packing {
    fn of(upper: OwnedFd) -> io::Result<Self> {
        let (archive, writer) = io::pipe()?;
        let writer = io::BufWriter::with_capacity(64 << 10, writer);
        let pack = move || pack(upper.as_fd(), OsStr::new("."), b"", Packed::Layer, &Ids::default(), writer);
        let thread = std::thread::Builder::new().name("commit".into()).spawn(pack)?;
        Ok(Self { archive, thread: Some(thread) })
    }
}

impl Read for Packing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(thread) = self.thread.take()
        {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("packing the layer failed")))?;
        }
        Ok(read)
    }
}

/// What of a container's configuration an image has.
fn run_config(config: &Config) -> RunConfig {
    let words =
        |words: &Option<caisson_docker_api::container::Strings>| words.as_ref().map(|words| words.0.clone());
    let keys = |map: &Option<std::collections::BTreeMap<String, caisson_docker_api::Empty>>| {
        map.iter().flatten().map(|(key, _)| (key.clone(), caisson_images::Empty)).collect()
    };
    RunConfig {
        user: config.user.clone(),
        exposed_ports: keys(&config.exposed_ports),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: words(&config.entrypoint),
        cmd: words(&config.cmd),
        healthcheck: config.healthcheck.as_ref().map(|health| HealthConfig {
            test: health.test.clone().unwrap_or_default(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: keys(&config.volumes),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_timeout.map(i64::from),
        shell: words(&config.shell),
    }
}

/// Fills in what was left open, as dockerd merges the two.
fn fill(config: &mut RunConfig, own: &RunConfig) {
    let or = |text: &mut String, other: &str| {
        if text.is_empty() {
            text.push_str(other);
        }
    };
    or(&mut config.user, &own.user);
    or(&mut config.working_dir, &own.working_dir);
    or(&mut config.stop_signal, &own.stop_signal);
    config.exposed_ports.extend(own.exposed_ports.clone());
    config.volumes.extend(own.volumes.clone());
    let name = |entry: &str| entry.split('=').next().map(str::to_owned);
    for entry in &own.env {
        if !config.env.iter().any(|known| name(known) == name(entry)) {
            config.env.push(entry.clone());
        }
    }
    for (key, value) in &own.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&own.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&own.entrypoint);
        }
    }
    match (&mut config.healthcheck, &own.healthcheck) {
        (Some(asked), Some(own)) => fill_health(asked, own),
        (asked @ None, own) => asked.clone_from(own),
        (Some(_), None) => {}
    }
}

/// What of a health check was left open: an empty test, and what is zero.
fn fill_health(asked: &mut HealthConfig, own: &HealthConfig) {
    if asked.test.is_empty() {
        asked.test.clone_from(&own.test);
    }
    for (asked, own) in [
        (&mut asked.interval, own.interval),
        (&mut asked.timeout, own.timeout),
        (&mut asked.start_period, own.start_period),
        (&mut asked.start_interval, own.start_interval),
        (&mut asked.retries, own.retries),
    ] {
        if *asked == 0 {
            *asked = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::remove::RemoveOptions;
    use super::super::state::Status;
    use super::super::testing::{Home, definition, empty_cgroup, exited, running};
    use super::*;

    #[tokio::test]
    async fn what_is_removed_meanwhile_is_not_committed_in_part() {
        let home = Home::new().await;
        let handle = home.adopt(definition("going"), exited(0));
        let files = handle.files.clone().lock_owned().await;
        let committed = tokio::spawn({
            let (containers, handle) = (home.containers.clone(), handle.clone());
            async move { containers.commit(&handle, CommitWishes::default()).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!committed.is_finished());
        let removed = tokio::spawn(async move { handle.remove("going", RemoveOptions::default()).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(files);
        let refusal = committed.await.unwrap().unwrap_err();
        assert!(refusal.message.ends_with("which is being removed"), "{refusal}");
        removed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_container_that_has_ended_is_committed() {
        let home = Home::new().await;
        let handle = home.adopt(definition("whole"), exited(0));
        home.containers.commit(&handle, CommitWishes::default()).await.unwrap();
    }

    #[tokio::test]
    async fn who_cannot_be_paused_is_committed_as_it_runs() {
        let home = Home::new().await;
        let definition = definition("runs");
        // It has no cgroup.
        home.serve_shim(&definition.id, |_| None);
        let handle = home.adopt(definition, running(1));
        let wishes = || CommitWishes { pause: true, ..CommitWishes::default() };
        home.containers.commit(&handle, wishes()).await.unwrap();
        let was_noted = home.containers.ground.shim_of(&handle.id).clear_pause().unwrap();
        assert!(!was_noted, "no engine has to let it go on");
    }

    #[tokio::test]
    async fn who_is_paused_for_a_commit_is_noted_as_long_as_it_is() {
        let home = Home::new().await;
        let definition = definition(&format!("noted{}", std::process::id()));
        let Some(cgroup) = empty_cgroup(&definition) else { return };
        home.serve_shim(&definition.id, |_| None);
        let handle = home.adopt(definition, running(1));
        let shim = home.containers.ground.shim_of(&handle.id);
        let is_paused = |status: &Status| status.state.running().is_some_and(|running| running.paused);
        let files = handle.files.clone().lock_owned().await;
        let wishes = CommitWishes { pause: true, ..CommitWishes::default() };
        let looks = async {
            handle.watch().wait_for(is_paused).await.unwrap();
            let noted = shim.note_pause().unwrap_err().kind();
            drop(files);
            noted
        };
        let (committed, noted) = tokio::join!(home.containers.commit(&handle, wishes), looks);
        let is_frozen = cgroup.is_frozen();
        cgroup.remove().unwrap();
        committed.unwrap();
        assert_eq!(noted, io::ErrorKind::AlreadyExists, "an engine after a crash lets it go on");
        assert!(!is_frozen && !is_paused(&handle.watch().borrow()));
        assert!(!shim.clear_pause().unwrap(), "who is paused by a client stays so");
    }
}
