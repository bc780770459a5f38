//! The task that owns a container. What it does is in the files of the verbs; here is the order in which it does it.

use std::path::PathBuf;
use std::sync::Arc;

use caisson_shim::proto::{ExitRecord, Request as ShimRequest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, error, info, info_span};

use super::attach::{Attached, Streams};
use super::record::{Definition, Directory, Lasting, StoredState};
use super::shim::{Finishing, Shim, timestamp};
use super::signal::SignalNumber;
use super::state::{Exited, Running, State, Status};
use super::{Containers, Ground, Handle, Register, cgroup};
use crate::error::{ApiError, chain};
use caisson_docker_api::time::Timestamp;

/// The code of a container whose shim was killed, or whose machine lost its power: it went with it.
pub(super) const KILLED: i32 = 137;

type Answer<T> = oneshot::Sender<Result<T, ApiError>>;

/// What can be asked of a container's task. Each is done at once, or in the time that a start or a removal takes.
pub(super) enum Request {
    Start(Answer<()>),
    Attach(Streams, Answer<Attached>),
    Signal(SignalNumber, Answer<()>),
    Resize {
        rows: u16,
        cols: u16,
        answer: Answer<()>,
    },
    /// Whether an end removes a container that is to be removed at its end: not while it is being restarted.
    KeepAtEnd(bool, Answer<()>),
    Remove(Answer<()>),
}

/// A client that waits for the container to start.
pub(super) struct Waiting {
    pub(super) streams: Streams,
    pub(super) connection: oneshot::Sender<UnixStream>,
}

/// A container and its task's own things.
pub(super) struct Task {
    pub(super) ground: Arc<Ground>,
    pub(super) register: Arc<Register>,
    pub(super) definition: Arc<Definition>,
    pub(super) directory: Directory,
    pub(super) shim: Shim,
    pub(super) status: watch::Sender<Status>,
    pub(super) waiting: Vec<Waiting>,
    /// Resolves when the running container ends.
    pub(super) end: Option<JoinHandle<Option<ExitRecord>>>,
    /// The shim of this run or the last, if this engine started it.
    pub(super) finishing: Option<Finishing>,
    pub(super) keep_at_end: bool,
}

impl Containers {
    /// Starts the task of a container in this state, and puts it on the register.
    pub(super) fn adopt(&self, definition: Definition, state: State) -> Handle {
        let shim = self.ground.shim_of(&definition.id);
        let directory = self.ground.directory(&definition.id);
        let exit_code = state.describe().exit_code;
        let record = directory.exit_record();
        let end = state.running().map(|_| watch_end(shim.clone(), record));
        let (status, watched) = watch::channel(Status { state, ends: 0, exit_code });
        let (sender, requests) = mpsc::channel(16);
        let definition = Arc::new(definition);
        let events = self.ground.events.clone();
        let handle = Handle { definition: definition.clone(), requests: sender, status: watched, events };
        let task = Task {
            ground: self.ground.clone(),
            register: self.register.clone(),
            directory,
            shim,
            status,
            waiting: Vec::new(),
            end,
            finishing: None,
            keep_at_end: false,
            definition,
        };
        let span = info_span!(parent: None, "container", id = handle.definition.short_id());
        tokio::spawn(task.run(requests).instrument(span));
        self.register.add(handle.clone());
        handle
    }
}

pub(super) fn watch_end(shim: Shim, record: PathBuf) -> JoinHandle<Option<ExitRecord>> {
    tokio::spawn(async move { shim.ended(&record).await })
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                record = async { self.end.as_mut().expect("polled only if there is one").await }, if self.end.is_some() => {
                    self.end = None;
                    // A watcher that failed knows no more than one that found no record.
                    self.ended(record.unwrap_or_default()).await;
                }
                request = requests.recv() => match request {
                    Some(request) => self.step(request).await,
                    None => return,
                },
            }
            if matches!(self.state(), State::Removed) {
                return;
            }
        }
    }

    async fn step(&mut self, request: Request) {
        // An asker who is gone needs no answer; what was asked for is done all the same.
        match request {
            Request::Start(answer) => {
                let _ = answer.send(self.start().await);
            }
            Request::Attach(streams, answer) => {
                let _ = answer.send(self.attach(streams).await);
            }
            Request::Signal(signal, answer) => {
                let _ = answer.send(self.signal(signal).await);
            }
            Request::Resize { rows, cols, answer } => {
                let _ = answer.send(self.resize(rows, cols).await);
            }
            Request::KeepAtEnd(keep, answer) => {
                self.keep_at_end = keep;
                let _ = answer.send(Ok(()));
                if !keep {
                    self.remove_if_ended().await;
                }
            }
            Request::Remove(answer) => {
                let _ = answer.send(self.remove().await);
            }
        }
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state.clone()
    }

    /// Writes down and publishes a new state, in this order: what was told stays so.
    pub(super) async fn set_state(&mut self, state: State, ended: bool) {
        if let Some(stored) = state.stored() {
            self.write_down(stored).await;
        }
        self.status.send_modify(|status| {
            if !matches!(state, State::Removed | State::Removing(_)) {
                status.exit_code = state.describe().exit_code;
            }
            status.ends += u64::from(ended);
            status.state = state;
        });
    }

    async fn write_down(&self, stored: StoredState) {
        // Of a container that goes at its end nobody asks afterwards how that was.
        let passing =
            matches!(stored, StoredState::Running { .. }) || self.definition.host_config.auto_remove;
        let lasting = if passing { Lasting::ThisBoot } else { Lasting::BeyondPower };
        let directory = self.directory.clone();
        let written = tokio::task::spawn_blocking(move || directory.write_state(&stored, lasting)).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            error!(error = %chain(&error), "could not write the container's state");
        }
    }

    async fn ended(&mut self, record: Option<ExitRecord>) {
        let State::Running(running) = self.state() else { return };
        if record.is_none() {
            cgroup::remove(&self.definition).await;
        }
        self.let_go_of(&running).await;
        let exited = how_it_ended(&running, record);
        info!(code = exited.exit_code, "container ended");
        let lasted = exited.started_at.until(exited.finished_at).as_secs();
        let told = [("execDuration", lasted.to_string()), ("exitCode", exited.exit_code.to_string())];
        if exited.oom_killed {
            self.ground.tell(&self.definition, "oom", &[]);
        }
        self.set_state(State::Exited(exited), true).await;
        self.ground.tell(&self.definition, "die", &told);
        self.remove_if_ended().await;
    }

    /// Gives back what a run had: its networks and ports.
    async fn let_go_of(&self, running: &Running) {
        if let Err(error) = self.ground.networks.detach(&self.definition.id).await {
            error!(error = %chain(&error), "could not take down the container's network");
        }
        self.ground.tell_networks(&running.sandbox, "disconnect");
    }

    /// Removes a container that is to be removed at its end, if that has come.
    pub(super) async fn remove_if_ended(&mut self) {
        let ended = self.state().running().is_none();
        if !self.definition.host_config.auto_remove || self.keep_at_end || !ended {
            return;
        }
        if let Err(error) = self.remove().await {
            error!(%error, "could not remove the container after its end");
        }
    }

    async fn signal(&mut self, signal: SignalNumber) -> Result<(), ApiError> {
        self.state().expect_running(&self.definition.id)?;
        self.shim.order(&ShimRequest::Signal { signal: signal.0 }).await?;
        self.ground.tell(&self.definition, "kill", &[("signal", signal.0.to_string())]);
        Ok(())
    }

    async fn resize(&mut self, rows: u16, cols: u16) -> Result<(), ApiError> {
        self.state().expect_running(&self.definition.id)?;
        if self.definition.config.tty {
            self.shim.order(&ShimRequest::Resize { rows, cols }).await?;
        }
        let told = [("height", rows.to_string()), ("width", cols.to_string())];
        self.ground.tell(&self.definition, "resize", &told);
        Ok(())
    }
}

pub(super) fn how_it_ended(running: &Running, record: Option<ExitRecord>) -> Exited {
    let (code, finished_at, oom_killed) = match record {
        Some(record) => (record.code, timestamp(record.finished_at), record.oom_killed),
        None => (KILLED, Timestamp::now(), false),
    };
    Exited { started_at: running.started_at, finished_at, exit_code: code, oom_killed, error: String::new() }
}
