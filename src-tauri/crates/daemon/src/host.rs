//! What the window and the CLI can ask for.

use crate::{
    engine::{Engine, containers, logs},
    wire,
};
use caisson_app_api::{
    ApiError, ContainerId, ContainerLogs, ContainerRemove, ContainerSummary, ErrorCode, Event, Host,
    ItemStream, LogChunk, LogSource, MachineLog, MachineLogText, MachineStatus, PortForwardStatus, Version,
};
use caisson_forward::PortStatus;
use caisson_machine::{MachineHandle, Unavailable};
use caisson_os::{Dirs, platform, tail_lines};
use futures_util::{
    StreamExt,
    stream::{self, select_all},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};

/// The most often that ports are told anew: busy ones change their number of connections all the time.
const PORTS_PAUSE: Duration = Duration::from_millis(300);

/// The daemon, as its clients see it.
pub(crate) struct Caisson {
    pub(crate) machine: MachineHandle,
    pub(crate) engine: Engine,
    pub(crate) ports: watch::Receiver<Vec<PortStatus>>,
    pub(crate) containers: watch::Receiver<Option<Vec<ContainerSummary>>>,
    pub(crate) docker_host: String,
    pub(crate) dirs: Dirs,
    pub(crate) wants_end: Arc<Notify>,
}

impl Caisson {
    fn status(&self) -> MachineStatus {
        wire::status(&self.machine.status().borrow(), &self.docker_host)
    }

    fn after(&self, done: Result<(), Unavailable>) -> Result<MachineStatus, ApiError> {
        done.map_err(|error| unavailable(&error)).map(|()| self.status())
    }
}

impl Host for Caisson {
    async fn machine_status(&self) -> Result<MachineStatus, ApiError> {
        Ok(self.status())
    }

    async fn machine_start(&self) -> Result<MachineStatus, ApiError> {
        self.after(self.machine.start().await)
    }

    async fn machine_stop(&self) -> Result<MachineStatus, ApiError> {
        self.after(self.machine.stop().await)
    }

    async fn machine_restart(&self) -> Result<MachineStatus, ApiError> {
        self.after(self.machine.restart().await)
    }

    async fn machine_log(&self, args: MachineLog) -> Result<MachineLogText, ApiError> {
        let path = match args.source {
            LogSource::Console => self.dirs.console_log(),
            LogSource::Daemon => self.dirs.daemon_log(),
        };
        let lines = usize::try_from(args.tail).unwrap_or(usize::MAX);
        let shown = path.display().to_string();
        let read = spawn_blocking(move || tail_lines(&path, lines)).await;
        let text = read.map_err(std::io::Error::from).flatten().map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("cannot read {shown}")).with_detail(error.to_string())
        })?;
        Ok(MachineLogText { path: shown, text })
    }

    async fn version(&self) -> Result<Version, ApiError> {
        let engine = match self.engine.version().await {
            Ok(version) => Some(version),
            Err(error) if error.code == ErrorCode::MachineNotRunning => None,
            Err(error) => return Err(error),
        };
        let daemon = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Version { daemon, pid: std::process::id(), platform: platform(), engine })
    }

    async fn container_list(&self) -> Result<Vec<ContainerSummary>, ApiError> {
        containers::list(&self.engine).await
    }

    async fn container_start(&self, args: ContainerId) -> Result<(), ApiError> {
        containers::start(&self.engine, &args.id).await
    }

    async fn container_stop(&self, args: ContainerId) -> Result<(), ApiError> {
        containers::stop(&self.engine, &args.id).await
    }

    async fn container_remove(&self, args: ContainerRemove) -> Result<(), ApiError> {
        containers::remove(&self.engine, &args.id, args.force).await
    }

    async fn port_list(&self) -> Result<Vec<PortForwardStatus>, ApiError> {
        Ok(self.ports.borrow().iter().map(wire::port).collect())
    }

    async fn shutdown(&self) -> Result<(), ApiError> {
        let stopped = self.machine.stop().await;
        self.wants_end.notify_one();
        stopped.map_err(|error| unavailable(&error))
    }

    async fn events(&self) -> Result<ItemStream<Event>, ApiError> {
        let docker_host = self.docker_host.clone();
        let machine = changes(self.machine.status(), Duration::ZERO, move |status| {
            Event::Machine(Box::new(wire::status(status, &docker_host)))
        });
        let containers =
            changes(self.containers.clone(), Duration::ZERO, |list| Event::Containers(list.clone()));
        let ports = changes(self.ports.clone(), PORTS_PAUSE, |ports| {
            Event::Ports(ports.iter().map(wire::port).collect())
        });
        Ok(Box::pin(select_all([machine, containers, ports])))
    }

    async fn container_logs(&self, args: ContainerLogs) -> Result<ItemStream<LogChunk>, ApiError> {
        logs::logs(&self.engine, &args).await
    }
}

/// What is now, then each change, but no more often than every `pause`; those between are skipped.
fn changes<T: Send + Sync + 'static>(
    watched: watch::Receiver<T>,
    pause: Duration,
    event: impl Fn(&T) -> Event + Send + 'static,
) -> ItemStream<Event> {
    let mut watched = watched;
    watched.mark_changed();
    let items = stream::unfold((watched, event, true), move |(mut watched, event, first)| async move {
        watched.changed().await.ok()?;
        if !first {
            sleep(pause).await;
        }
        let item = event(&watched.borrow_and_update());
        Some((Ok(item), (watched, event, false)))
    });
    items.boxed()
}

/// Why the machine did not do what was asked.
pub(crate) fn unavailable(error: &Unavailable) -> ApiError {
    let code = match error {
        Unavailable::Failed(_) => ErrorCode::MachineFailed,
        Unavailable::EngineDown { .. } => ErrorCode::EngineFailed,
        Unavailable::Stopped | Unavailable::Unreachable(_) | Unavailable::ShuttingDown => {
            ErrorCode::MachineNotRunning
        }
    };
    let told = ApiError::from_error(code, error);
    match error {
        Unavailable::Failed(failure) if !failure.remedy.is_empty() => told.with_detail(&failure.remedy),
        _ => told,
    }
}
