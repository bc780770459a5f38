//! Starting: sandbox, files, spec, shim, attached clients, and then the process.

use std::sync::Arc;

use caisson_docker_api::time::Timestamp;
use caisson_networks::{AttachRequest, NetworkMode, Sandbox};
use caisson_shim::proto::{FailureKind, StartFailure};
use caisson_shim::{LogTarget, Rootfs, ShimConfig, Stdin};
use tracing::{debug, error, info};

use super::record::{Definition, Directory, Lasting, StoredState};
use super::shim::{Shim, ShimProcess};
use super::state::{Exited, Running, State};
use super::task::{Request, Task, watch_end};
use super::{Ground, Handle, files, ports, spec};
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
    pub(super) async fn start(&mut self) -> Result<(), ApiError> {
        let before = match self.state() {
            State::Running(_) => return Err(ApiError::not_modified()),
            State::Removing(_) | State::Removed => {
                return Err(ApiError::conflict("container is marked for removal and cannot be started"));
            }
            State::Created(_) => Timestamp::ZERO,
            State::Exited(exited) => exited.finished_at,
        };
        if let Some(finishing) = self.finishing.take() {
            finishing.done().await;
        }
        // Gone before the start is on the disk: it must not be taken for the new run's.
        self.directory
            .clear_exit_record()
            .map_err(|e| ApiError::from_chain("could not prepare the container", &e))?;
        let noted = self.note_start();
        let launched = self.launch(before).await;
        noted.await;
        match launched {
            Ok(running) => {
                info!(pid = running.pid, "container started");
                self.end = Some(watch_end(self.shim.clone(), self.directory.exit_record()));
                self.set_state(State::Running(running), false).await;
                self.ground.tell(&self.definition, "start", &[]);
                Ok(())
            }
            Err(failure) => {
                self.note_failure(&failure).await;
                self.waiting.clear();
                self.remove_if_ended().await;
                Err(failure.error)
            }
        }
    }

    /// Writes down that a start was asked for, so that no power cut makes a container that ran one that never did. The
    /// disk is waited for while the container is launched, not before.
    fn note_start(&self) -> impl Future<Output = ()> + use<> {
        let directory = self.directory.clone();
        let stored = StoredState::Running { started_at: Timestamp::now() };
        let noted = tokio::task::spawn_blocking(move || directory.write_state(&stored, Lasting::BeyondPower));
        async move {
            if let Err(error) = noted.await.map_err(std::io::Error::other).flatten() {
                error!(error = %chain(&error), "could not write down a container's start");
            }
        }
    }

    async fn launch(&mut self, finished_before: Timestamp) -> Result<Running, StartError> {
        let sandbox = self.enter_network().await?;
        match self.launch_in(&sandbox).await {
            Ok((pid, started_at)) => Ok(Running { pid, started_at, finished_before, sandbox }),
            Err(failure) => {
                if let Err(error) = self.ground.networks.detach(&self.definition.id).await {
                    debug!(error = %chain(&error), "could not take down the network of a failed start");
                }
                self.ground.tell_networks(&sandbox, "disconnect");
                Err(failure)
            }
        }
    }

    async fn enter_network(&self) -> Result<Sandbox, ApiError> {
        let (config, host) = (&self.definition.config, &self.definition.host_config);
        let request = AttachRequest {
            container: self.definition.id.clone(),
            name: self.definition.name.clone(),
            mode: network_mode(&self.definition)?,
            ports: ports::bindings(config, host)?,
        };
        let sandbox = self.ground.networks.attach(request).await.map_err(|error| {
            let message = format!("failed to set up container networking: {}", chain(&error));
            let kind = match error.kind() {
                caisson_networks::ErrorKind::NotFound => ErrorKind::NotFound,
                caisson_networks::ErrorKind::Invalid => ErrorKind::InvalidParameter,
                caisson_networks::ErrorKind::Conflict => ErrorKind::Conflict,
                caisson_networks::ErrorKind::Internal => ErrorKind::Internal,
            };
            ApiError::new(kind, message)
        })?;
        self.ground.tell_networks(&sandbox, "connect");
        Ok(sandbox)
    }

    async fn launch_in(&mut self, sandbox: &Sandbox) -> Result<(u32, Timestamp), StartError> {
        let process = self.spawn_shim(sandbox.clone()).await?;
        let started = self.start_process().await;
        // Whatever comes of it, the shim's exit is waited for in the background; the next start waits for that.
        self.finishing = Some(process.finish());
        started
    }

    async fn spawn_shim(&self, sandbox: Sandbox) -> Result<ShimProcess, ApiError> {
        let (ground, definition) = (self.ground.clone(), self.definition.clone());
        let (directory, shim) = (self.directory.clone(), self.shim.clone());
        tokio::task::spawn_blocking(move || prepare(&ground, &definition, &directory, &shim, &sandbox))
            .await?
    }

    async fn start_process(&mut self) -> Result<(u32, Timestamp), StartError> {
        let failed = |shim: &Shim, error: &std::io::Error| {
            let said = shim.last_words();
            let context =
                if said.is_empty() { "the shim failed".into() } else { format!("the shim failed: {said}") };
            StartError::from(ApiError::from_chain(&context, error))
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
        let started = self.shim.start().await.map_err(|e| failed(&self.shim, &e))?;
        started.map_err(|failure| StartError {
            exit_code: failure.kind.exit_code(),
            error: ApiError::new(status_of(failure.kind), in_dockerd_s_words(&failure)),
        })
    }

    /// A container that did not start is what it was, but for its exit code and the reason.
    async fn note_failure(&mut self, failure: &StartError) {
        let (exit_code, error) = (failure.exit_code, failure.error.message.clone());
        let state = match self.state() {
            State::Exited(exited) => State::Exited(Exited { exit_code, error, ..exited }),
            _ => State::Created(super::state::Created { exit_code, error }),
        };
        self.set_state(state, false).await;
    }
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
) -> Result<ShimProcess, ApiError> {
    let layers = ground.images.held(&definition.id);
    let layers = layers.map_err(|e| ApiError::from_chain("the container's image is not usable", &e))?;
    let io = |error: std::io::Error| ApiError::from_chain("could not prepare the container", &error);
    files::write(definition, directory, sandbox).map_err(io)?;
    let spec = spec::compose(definition, directory, sandbox)?;
    let config = ShimConfig {
        id: definition.id.clone(),
        rootfs: Rootfs::Overlay {
            lower: std::iter::once(ground.base_layer.clone()).chain(layers).collect(),
            upper: directory.upper(),
            work: directory.work(),
        },
        user: Some(definition.config.user.clone()),
        group_add: definition.host_config.group_add.clone().unwrap_or_default(),
        stdin: match (definition.config.open_stdin, definition.config.stdin_once) {
            (false, _) => Stdin::Closed,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::Once,
        },
        log: match definition.host_config.log_config.kind.as_str() {
            "none" => LogTarget::None,
            _ => LogTarget::JsonFile { path: directory.log(&definition.id) },
        },
        exit_record: directory.exit_record(),
    };
    shim.spawn(&ground.shim, &spec, &config).map_err(|e| ApiError::from_chain("could not start a shim", &e))
}

/// The network that a container joins. Others than the built-in ones were refused, or are not there.
fn network_mode(definition: &Definition) -> Result<NetworkMode, ApiError> {
    if definition.config.network_disabled {
        return Ok(NetworkMode::None);
    }
    match definition.host_config.network_mode.as_str() {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(ApiError::not_found(format!(
            "failed to set up container networking: network {other} not found"
        ))),
    }
}
