//! Starting: sandbox, files, spec, shim, attached clients, and then the process.
//!
//! Each step is a span: `CAISSON_LOG=caisson_engine=trace` makes the engine tell how long it took, when it is over.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use caisson_docker_api::container::Config;
use caisson_docker_api::time::Timestamp;
use caisson_networks::Sandbox;
use caisson_shim::proto::{FailureKind, StartFailure};
use caisson_shim::{Rootfs, ShimConfig, Stdin};
use tracing::{Instrument, debug, error, info, trace_span, warn};

use super::links::Linked;
use super::news::Watch;
use super::policy::Restarts;
use super::record::{Definition, Directory, Lasting, StoredState};
use super::shared::{Shared, network_namespace, network_namespace_path};
use super::shim::{Shim, ShimProcess, Started};
use super::state::{Exited, Running, State};
use super::task::{Request, Task};
use super::validate::shared_with;
use super::{Ground, Handle, cgroup, files, logs, networks, spec, users};
use crate::error::{ApiError, ErrorKind, chain};

/// The code of a container that could not be started, when nothing better is known.
const NOT_STARTED: i32 = 128;

/// Why a container did not start: for the client, and as its exit code.
struct StartError {
    error: ApiError,
    exit_code: i32,
}

impl From<ApiError> for StartError {
    fn from(error: ApiError) -> Self {
        Self { error, exit_code: NOT_STARTED }
    }
}

impl Handle {
    /// Starts the container; returns when its process runs.
    pub(crate) async fn start(&self) -> Result<(), ApiError> {
        self.ask(Request::Start).await
    }
}

impl Task {
    /// A start that is not its policy's: what was counted and called off before is over.
    pub(super) async fn start(&mut self) -> Result<(), ApiError> {
        match self.state() {
            State::Running(running) if running.paused => {
                return Err(ApiError::conflict("cannot start a paused container, try unpause instead"));
            }
            State::Running(_) | State::Restarting(_) => return Err(ApiError::not_modified()),
            State::Removing(_) | State::Removed => {
                return Err(ApiError::conflict("container is marked for removal and cannot be started"));
            }
            State::Created(_) | State::Exited(_) => {}
        }
        self.restarts = Restarts::default();
        self.manually_stopped = false;
        self.start_process_anew().await
    }

    /// Starts a container that does not run.
    pub(super) async fn start_process_anew(&mut self) -> Result<(), ApiError> {
        let before = self.state().finished_at();
        if let Some(finishing) = self.finishing.take() {
            finishing.done().await;
        }
        // Gone before the start is on the disk: it must not be taken for the new run's.
        self.directory
            .clear_exit_record()
            .map_err(|e| ApiError::from_chain("could not prepare the container", &e))?;
        let files = self.files.clone().lock_owned().await;
        let noted = self.note_start();
        let launched = self.launch(before).await;
        noted.instrument(trace_span!("start: wish written")).await;
        match launched {
            Ok(running) => {
                info!(pid = running.pid, "container started");
                self.watch = Some(Watch::of_started(self.shim.clone(), self.directory.exit_record()));
                self.set_state(State::Running(running), false)
                    .instrument(trace_span!("start: state written"))
                    .await;
                drop(files);
                self.tell_linking();
                self.ground.tell(&self.definition, "start", &[]);
                Ok(())
            }
            Err(failure) => {
                self.note_failure(&failure).await;
                self.waiting.clear();
                // A removal takes them itself.
                drop(files);
                self.remove_if_ended().await;
                Err(failure.error)
            }
        }
    }

    /// Writes down that a start was asked for, so that no power cut makes a container that ran one that never did. The
    /// disk is waited for while the container is launched, not before.
    fn note_start(&self) -> impl Future<Output = ()> + use<> {
        let directory = self.directory.clone();
        let standing = self.standing(StoredState::Running { started_at: Timestamp::now() });
        let noted =
            tokio::task::spawn_blocking(move || directory.write_standing(&standing, Lasting::BeyondPower));
        async move {
            if let Err(error) = noted.await.map_err(std::io::Error::other).flatten() {
                error!(error = %chain(&error), "could not write down a container's start");
            }
        }
    }

    async fn launch(&mut self, finished_before: Timestamp) -> Result<Running, StartError> {
        let sandbox = self.enter_network().instrument(trace_span!("start: network made")).await?;
        match self.launch_in(&sandbox).await {
            Ok((pid, started_at)) => {
                self.ground.tell_networks(&sandbox, "connect");
                let sandbox = if shared_with(&self.definition.host_config.network_mode).is_some() {
                    // The other may go, or start again in a new one: this one stays where it is.
                    Sandbox { netns: sandbox.netns.map(|_| network_namespace_path(pid)), ..sandbox }
                } else {
                    sandbox
                };
                Ok(Running { pid, started_at, paused: false, oom_kills: 0, finished_before, sandbox })
            }
            Err(failure) => {
                if let Err(error) = self.ground.networks.detach(&self.definition.id).await {
                    debug!(error = %chain(&error), "could not take down the network of a failed start");
                }
                self.ground.tell_networks(&sandbox, "disconnect");
                self.withdraw().await;
                Err(failure)
            }
        }
    }

    async fn enter_network(&mut self) -> Result<Sandbox, ApiError> {
        if let Some(other) = shared_with(&self.definition.host_config.network_mode) {
            let other = self.register.find(other)?;
            let sandbox = network_of_another(&self.definition.id, &other)?;
            self.take_names(&other.definition().config).await?;
            return Ok(sandbox);
        }
        let within = |error: ApiError| error.within("failed to set up container networking");
        let mut request = networks::plan::request(&self.definition)?;
        request.namespace = self.users_network().await.map_err(within)?.map(Arc::new);
        let sandbox = self.ground.networks.attach(request).await;
        let sandbox = sandbox.map_err(|error| within(networks::attach_error(&error)))?;
        Ok(sandbox)
    }

    /// The network namespace of a container with users of its own.
    async fn users_network(&self) -> Result<Option<OwnedFd>, ApiError> {
        let (ground, definition) = (self.ground.clone(), self.definition.clone());
        if ground.remap_of(&definition.host_config).is_none() {
            return Ok(None);
        }
        let shared = self.find_shared(&definition.host_config)?;
        let make = move || {
            let remap = ground.remap_of(&definition.host_config)?;
            Some(users::make_network(&ground.shim, remap, &shared))
        };
        let made = tokio::task::spawn_blocking(make).await?.transpose();
        made.map_err(|error| ApiError::from_chain("could not make the container's user namespace", &error))
    }

    /// A container that lives in another one's network is called as the other one is.
    async fn take_names(&mut self, of: &Config) -> Result<(), ApiError> {
        let own = &self.definition.config;
        if (&own.hostname, &own.domainname) == (&of.hostname, &of.domainname) {
            return Ok(());
        }
        self.redefine(|definition| {
            definition.config.hostname.clone_from(&of.hostname);
            definition.config.domainname.clone_from(&of.domainname);
        })
        .await
    }

    async fn launch_in(&mut self, sandbox: &Sandbox) -> Result<(u32, Timestamp), StartError> {
        let process = self.spawn_shim(sandbox.clone()).instrument(trace_span!("start: shim spawned")).await?;
        let started = self.start_process().instrument(trace_span!("start: process made by the shim")).await;
        match started {
            Ok(started) => {
                // Its exit is waited for in the background, also after a failure, of which it clears away what there is; the next
                // start waits for that.
                self.finishing = Some(process.finish());
                started.map_err(|failure| StartError {
                    exit_code: failure.kind.exit_code(),
                    error: ApiError::new(status_of(failure.kind), in_dockerd_s_words(&failure)),
                })
            }
            Err(error) => {
                self.call_off(process).await;
                Err(error.into())
            }
        }
    }

    /// Ends a shim that did not do as it was told: it might do so yet, and nobody would know of the container.
    async fn call_off(&mut self, process: ShimProcess) {
        let mut finishing = process.kill();
        if !finishing.is_done().await {
            // The kernel has it. The next start, or the removal, waits for it.
            warn!("a shim that was killed is still there");
            self.finishing = Some(finishing);
        }
        cgroup::remove(&self.definition).await;
    }

    async fn spawn_shim(&self, sandbox: Sandbox) -> Result<ShimProcess, ApiError> {
        let (ground, definition) = (self.ground.clone(), self.definition.clone());
        let (directory, shim) = (self.directory.clone(), self.shim.clone());
        let shared = self.find_shared(&definition.host_config)?;
        let linked = self.register.follow_links(&definition)?;
        tokio::task::spawn_blocking(move || {
            prepare(&ground, &definition, &directory, &shim, &sandbox, &shared, &linked)
        })
        .await?
    }

    /// Has the shim start the process. An error is the shim's own failure, not the container's.
    async fn start_process(&mut self) -> Result<Started, ApiError> {
        let failed = |shim: &Shim, error: &std::io::Error| {
            let said = shim.last_words();
            let context =
                if said.is_empty() { "the shim failed".into() } else { format!("the shim failed: {said}") };
            ApiError::from_chain(&context, error)
        };
        for waiting in std::mem::take(&mut self.waiting) {
            let streams = waiting.streams;
            if waiting.connection.is_closed() {
                continue;
            }
            let stream = self.shim.attach(streams.stdin, streams.stdout, streams.stderr).await;
            // A client that went meanwhile is one less to serve.
            let _ = waiting.connection.send(stream.map_err(|e| failed(&self.shim, &e))?);
        }
        self.shim.start().await.map_err(|e| failed(&self.shim, &e))
    }

    /// A container that did not start is what it was, but for its exit code and the reason.
    async fn note_failure(&mut self, failure: &StartError) {
        let (exit_code, error) = (failure.exit_code, failure.error.message.clone());
        let state = match self.state() {
            State::Exited(exited) | State::Restarting(exited) => {
                State::Exited(Exited { exit_code, error, ..exited })
            }
            _ => State::Created(super::state::Created { exit_code, error }),
        };
        self.set_state(state, false).await;
    }
}

/// A container that lives in another one's network has no sandbox of its own; it sees the other's.
fn network_of_another(id: &str, other: &Handle) -> Result<Sandbox, ApiError> {
    let state = other.state();
    let Some(running) = state.running() else {
        return Err(ApiError::conflict(format!(
            "cannot join network namespace of a non running container: container {} is {}",
            other.definition().name,
            state.name()
        )));
    };
    let netns = match &running.sandbox.netns {
        Some(path) => Some(path.clone()),
        // To have none means to be in the host's network, which is looked at and not believed.
        None => network_namespace(running.pid).map_err(|error| {
            ApiError::from_chain(&format!("cannot join network namespace of container {}", other.id), &error)
        })?,
    };
    Ok(Sandbox {
        container: id.to_owned(),
        netns,
        endpoints: Vec::new(),
        published: Vec::new(),
        resolver: running.sandbox.resolver,
    })
}

fn status_of(kind: FailureKind) -> ErrorKind {
    match kind {
        FailureKind::NotFound
        | FailureKind::NotExecutable
        | FailureKind::NotDirectory
        | FailureKind::Permission
        | FailureKind::Invalid => ErrorKind::InvalidParameter,
        FailureKind::Other => ErrorKind::Internal,
    }
}

/// What dockerd puts before a failure: nothing before what it finds out itself (users, the working directory), the names of
/// its helpers before what they do. Clients tell 126 and 127 from 125 by these texts.
fn in_dockerd_s_words(failure: &StartFailure) -> String {
    const TASK: &str =
        "failed to create task for container: failed to create shim task: OCI runtime create failed: ";
    match failure.kind {
        _ if failure.message.starts_with("exec: ") => {
            format!("{TASK}runc create failed: unable to start container process: {}", failure.message)
        }
        FailureKind::Invalid | FailureKind::NotDirectory => failure.message.clone(),
        FailureKind::NotFound | FailureKind::NotExecutable | FailureKind::Permission | FailureKind::Other => {
            format!("{TASK}{}", failure.message)
        }
    }
}

/// Everything on disk that the shim needs, and the shim. Blocks.
fn prepare(
    ground: &Ground,
    definition: &Arc<Definition>,
    directory: &Directory,
    shim: &Shim,
    sandbox: &Sandbox,
    shared: &Shared,
    linked: &Linked,
) -> Result<ShimProcess, ApiError> {
    let layers = ground.images.held(&definition.id);
    let layers = layers.map_err(|e| ApiError::from_chain("the container's image is not usable", &e))?;
    let io = |error: std::io::Error| ApiError::from_chain("could not prepare the container", &error);
    ground.supply(definition)?;
    match shared.files() {
        _ if !files::are_of(definition) => Ok(()),
        Some(other) => files::share(other, directory),
        None => {
            let others = files::Others { linked: &linked.hosts, host_gateways: &ground.host_gateways() };
            files::write(definition, directory, sandbox, others)
        }
    }
    .map_err(io)?;
    let (remap, images) = (ground.remap_of(&definition.host_config), ground.mounted_layers(definition)?);
    let linked = &linked.environment;
    let (init, foreign) = (&ground.shim, ground.foreign_volumes(definition));
    let around =
        spec::Around { directory, sandbox, shared, init, remap, linked, images: &images, foreign: &foreign };
    let spec = spec::compose(definition, &around)?;
    let config = ShimConfig {
        id: definition.id.clone(),
        rootfs: Rootfs::Overlay {
            lower: std::iter::once(ground.base_layer.clone()).chain(layers).collect(),
            upper: directory.upper(),
            work: directory.work(),
        },
        user: Some(definition.config.user.clone()),
        group_add: definition.host_config.group_add.clone().unwrap_or_default(),
        shared_memory: shared.shared_memory(),
        trace: tracing::enabled!(tracing::Level::TRACE),
        stdin: match (definition.config.open_stdin, definition.config.stdin_once) {
            (false, _) => Stdin::Closed,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::Once,
        },
        log: logs::driver::target(definition, directory)?,
        exit_record: directory.exit_record(),
    };
    shim.spawn(&ground.shim, &spec, &config).map_err(|e| ApiError::from_chain("could not start a shim", &e))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Home, definition, running};
    use super::*;

    #[tokio::test]
    async fn who_joins_a_network_that_is_not_known_does_not_get_the_host_s() {
        let home = Home::new().await;
        let netns = |name: &str, state: State| {
            let donor = home.adopt(definition(name), state);
            network_of_another("joiner", &donor).map(|sandbox| sandbox.netns)
        };
        assert!(netns("lost", running(0)).is_err());
        assert_eq!(netns("of-host", running(std::process::id())).unwrap(), None);
        let State::Running(mut known) = running(0) else { unreachable!("it runs") };
        known.sandbox.netns = Some("/n".into());
        assert_eq!(netns("known", State::Running(known)).unwrap(), Some("/n".into()));
    }

    #[tokio::test]
    async fn a_container_that_cannot_start_goes_if_it_goes_at_its_end() {
        let home = Home::new().await;
        let mut definition = definition("lonely");
        definition.host_config.auto_remove = true;
        definition.host_config.network_mode = "container:none-such".into();
        let handle = home.adopt(definition, State::Created(super::super::state::Created::default()));
        let limit = std::time::Duration::from_secs(10);
        let started =
            tokio::time::timeout(limit, handle.start()).await.expect("a removal waits for no start");
        assert_eq!(started.unwrap_err().message, "No such container: none-such");
        assert!(home.containers.all().is_empty());
    }
}
