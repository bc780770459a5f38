//! The task that owns a container. What it does is in the files of the verbs; here is the order in which it does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caisson_docker_api::network::EndpointSettings;
use caisson_networks::Network;
use caisson_shim::proto::{ExitRecord, Request as ShimRequest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, error, info, info_span, trace_span, warn};

use super::attach::{Attached, Streams};
use super::news::{News, Watch};
use super::policy::Restarts;
use super::record::{Definition, Directory, Lasting, Standing, StoredState};
use super::shim::{Finishing, Shim, timestamp};
use super::signal::{KILL, SignalNumber};
use super::state::{Exited, FailedRemovals, Running, State, Status};
use super::{Containers, Ground, Handle, Register, cgroup};
use crate::error::{ApiError, chain};
use caisson_docker_api::container::HostConfig;
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
    /// With `volumes`, its anonymous volumes go too.
    Remove {
        volumes: bool,
        answer: Answer<()>,
    },
    Rename(String, Answer<()>),
    /// The fields of a `HostConfig` that can change; zero leaves one as it is.
    Update(Box<HostConfig>, Answer<()>),
    Pause(Answer<()>),
    Unpause(Answer<()>),
    /// A network, and what is asked of it.
    Connect(Box<(Network, EndpointSettings)>, Answer<()>),
    /// By the network's name or id.
    Disconnect(String, Answer<()>),
    /// The link of this alias goes.
    Unlink(String, Answer<()>),
    /// A container that this one links to is elsewhere now.
    RefreshLinks,
    /// The shim, which was late, tells of its container.
    Runs {
        pid: u32,
        started_at: Timestamp,
        answer: Answer<()>,
    },
}

/// What a container's task must know of the time before it.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) restarts: Restarts,
    /// For one that is `Restarting`: when.
    pub(super) restart_in: Option<Duration>,
    pub(super) manually_stopped: bool,
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
    /// Changed by [`Task::redefine`] only.
    pub(super) definition: Arc<Definition>,
    /// Where it is published.
    pub(super) redefined: watch::Sender<Arc<Definition>>,
    pub(super) directory: Directory,
    pub(super) shim: Shim,
    pub(super) status: watch::Sender<Status>,
    pub(super) waiting: Vec<Waiting>,
    /// The news of the container that runs.
    pub(super) watch: Option<Watch>,
    /// The shim of this run or the last, if this engine started it.
    pub(super) finishing: Option<Finishing>,
    /// Who has it has the container's layers: a copy of files, a commit, a start, a removal.
    pub(super) files: Arc<tokio::sync::Mutex<()>>,
    pub(super) keep_at_end: bool,
    pub(super) restarts: Restarts,
    /// When it is started again: set while it is `Restarting`.
    pub(super) restart_at: Option<Instant>,
    /// A client has stopped it since it was last started by one.
    pub(super) manually_stopped: bool,
}

impl Containers {
    /// Starts the task of a container in this state, and puts it on the register.
    pub(super) fn adopt(&self, definition: Definition, state: State, history: History) -> Handle {
        let shim = self.ground.shim_of(&definition.id);
        let directory = self.ground.directory(&definition.id);
        let exit_code = state.describe().exit_code;
        let record = directory.exit_record();
        let watch = state.running().map(|_| Watch::of_found(shim.clone(), record));
        let (status, watched) = watch::channel(Status {
            state,
            ends: 0,
            exit_code,
            restarts: history.restarts.count,
            failed_removals: FailedRemovals::default(),
        });
        let (sender, requests) = mpsc::channel(16);
        let definition = Arc::new(definition);
        let events = self.ground.events.clone();
        let (redefined, watched_definition) = watch::channel(definition.clone());
        let files = Arc::new(tokio::sync::Mutex::new(()));
        let handle = Handle {
            id: definition.id.as_str().into(),
            definition: watched_definition,
            requests: sender,
            status: watched,
            files: files.clone(),
            events,
        };
        let task = Task {
            ground: self.ground.clone(),
            register: self.register.clone(),
            directory,
            shim,
            status,
            waiting: Vec::new(),
            watch,
            finishing: None,
            files,
            keep_at_end: false,
            restarts: history.restarts,
            restart_at: history.restart_in.map(|delay| Instant::now() + delay),
            manually_stopped: history.manually_stopped,
            definition,
            redefined,
        };
        let span = info_span!(parent: None, "container", id = handle.short_id());
        tokio::spawn(task.run(requests).instrument(span));
        self.register.add(handle.clone());
        self.look_after(&handle);
        handle
    }
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                news = async { self.watch.as_mut().expect("polled only if there is one").next().await }, if self.watch.is_some() => {
                    match news {
                        News::OomKills(count) => self.out_of_memory(count),
                        News::Ended(record) => {
                            self.watch = None;
                            self.ended(record).await;
                        }
                    }
                }
                () = until(self.restart_at), if self.restart_at.is_some() => {
                    self.restart_at = None;
                    self.restart_now().await;
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
            Request::Remove { volumes, answer } => {
                let _ = answer.send(self.remove(volumes).await);
            }
            Request::Pause(answer) => {
                let _ = answer.send(self.pause().await);
            }
            Request::Unpause(answer) => {
                let _ = answer.send(self.unpause().await);
            }
            Request::Update(asked, answer) => {
                let _ = answer.send(self.update(*asked).await);
            }
            Request::Rename(name, answer) => {
                let _ = answer.send(self.rename(&name).await);
            }
            Request::Connect(asked, answer) => {
                let (network, wish) = *asked;
                let _ = answer.send(self.connect(&network, wish).await);
            }
            Request::Disconnect(network, answer) => {
                let _ = answer.send(self.disconnect(&network).await);
            }
            Request::Unlink(alias, answer) => {
                let _ = answer.send(self.unlink(&alias).await);
            }
            Request::RefreshLinks => self.refresh_links().await,
            Request::Runs { pid, started_at, answer } => {
                self.runs(pid, started_at).await;
                let _ = answer.send(Ok(()));
            }
        }
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state.clone()
    }

    /// What the next engine must know, with this state.
    pub(super) fn standing(&self, state: StoredState) -> Standing {
        Standing { state, restarts: self.restarts.count, manually_stopped: self.manually_stopped }
    }

    /// Writes down and publishes a new state, in this order: what was told stays so.
    pub(super) async fn set_state(&mut self, state: State, ended: bool) {
        if let Some(stored) = state.stored() {
            self.write_down(stored).await;
        }
        self.status.send_modify(|status| {
            // While it runs, too, the last end is the one that those who waited for it are told of.
            if !matches!(state, State::Running(_) | State::Removed | State::Removing(_)) {
                status.exit_code = state.describe().exit_code;
            }
            status.restarts = self.restarts.count;
            status.ends += u64::from(ended);
            status.state = state;
        });
    }

    pub(super) async fn write_down(&self, stored: StoredState) {
        // Of a container that goes at its end nobody asks afterwards how that was.
        let passing = matches!(stored, StoredState::Running { .. } | StoredState::Restarting(_))
            || self.definition.host_config.auto_remove;
        let lasting = if passing { Lasting::ThisBoot } else { Lasting::BeyondPower };
        let (directory, standing) = (self.directory.clone(), self.standing(stored));
        let written = tokio::task::spawn_blocking(move || directory.write_standing(&standing, lasting)).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            error!(error = %chain(&error), "could not write the container's state");
        }
    }

    pub(super) async fn ended(&mut self, record: Option<ExitRecord>) {
        let State::Running(running) = self.state() else { return };
        // A shim that was killed has left it, also if it came to say how its container ended.
        cgroup::remove(&self.definition).await;
        self.let_go_of(&running).instrument(trace_span!("end: network and volumes given back")).await;
        let exited = how_it_ended(&running, record);
        info!(code = exited.exit_code, "container ended");
        let lasted = exited.started_at.until(exited.finished_at);
        let told =
            [("execDuration", lasted.as_secs().to_string()), ("exitCode", exited.exit_code.to_string())];
        // An older shim tells of it only now.
        if exited.oom_killed && running.oom_kills == 0 {
            self.ground.tell(&self.definition, "oom", &[]);
        }
        let policy = &self.definition.host_config.restart_policy;
        let stopped = self.manually_stopped || self.ground.is_ending();
        let state = match self.restarts.after(policy, exited.exit_code, stopped, lasted) {
            Some(delay) => {
                self.restart_at = Some(Instant::now() + delay);
                State::Restarting(exited)
            }
            None => State::Exited(exited),
        };
        self.set_state(state, true).instrument(trace_span!("end: state written")).await;
        self.ground.tell(&self.definition, "die", &told);
        self.remove_if_ended().await;
    }

    /// The time of a container that its policy starts again has come.
    async fn restart_now(&mut self) {
        let State::Restarting(_) = self.state() else { return };
        if self.ground.is_ending() {
            self.give_up_restarting().await;
        } else if let Err(error) = self.start_process_anew().await {
            // It is an ended container now, which says why.
            warn!(%error, "could not start a container again");
        }
    }

    /// What was to be started again has ended for good.
    async fn give_up_restarting(&mut self) {
        let State::Restarting(exited) = self.state() else { return };
        self.restart_at = None;
        self.set_state(State::Exited(exited), true).await;
        self.remove_if_ended().await;
    }

    /// Gives back what a run had: its networks and ports, its volumes' devices.
    async fn let_go_of(&self, running: &Running) {
        if let Err(error) = self.ground.networks.detach(&self.definition.id).await {
            error!(error = %chain(&error), "could not take down the container's network");
        }
        self.ground.tell_networks(&running.sandbox, "disconnect");
        self.withdraw().await;
    }

    /// Ends what the run had of its volumes.
    pub(super) async fn withdraw(&self) {
        if self.definition.mounts.iter().all(|mounting| mounting.volume().is_none()) {
            return;
        }
        let (ground, definition) = (self.ground.clone(), self.definition.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || ground.withdraw(&definition)).await {
            error!(error = %chain(&error), "could not give back the container's volumes");
        }
    }

    /// Removes a container that is to be removed at its end, if that has come.
    pub(super) async fn remove_if_ended(&mut self) {
        let ended = !self.state().is_active();
        if !self.definition.host_config.auto_remove || self.keep_at_end || !ended {
            return;
        }
        if let Err(error) = self.remove(true).await {
            error!(%error, "could not remove the container after its end");
        }
    }

    /// Sends a signal, and calls restarts off if it is one that stops the container: which is any, as in dockerd, unless the
    /// container has a stop signal of its own.
    async fn signal(&mut self, signal: SignalNumber) -> Result<(), ApiError> {
        let state = self.state();
        if !state.is_active() {
            return state.expect_running(&self.definition.id).map(|_| ());
        }
        let stop_signal = self.definition.config.stop_signal.as_str();
        let stops = stop_signal.is_empty() || signal == KILL || SignalNumber::parse(stop_signal)? == signal;
        if stops {
            self.restarts.call_off();
        }
        if !self.ground.is_ending() && !self.manually_stopped {
            self.manually_stopped = true;
            // On disk before anything comes of it.
            if let Some(stored) = state.stored() {
                self.write_down(stored).await;
            }
        }
        if matches!(state, State::Restarting(_)) {
            if stops {
                self.give_up_restarting().await;
            }
            return Ok(());
        }
        if let Err(error) = self.shim.order(&ShimRequest::Signal { signal: signal.0 }).await {
            return Err(self.refused(error).await);
        }
        self.ground.tell(&self.definition, "kill", &[("signal", signal.0.to_string())]);
        // A frozen process takes its signal when it goes on.
        if stops
            && self.state().running().is_some_and(|running| running.paused)
            && let Err(error) = self.unpause().await
        {
            warn!(%error, "could not let a paused container go on to its end");
        }
        Ok(())
    }

    /// Why a signal did not arrive. A shim that is gone has left word of the container's end, which then is dealt with
    /// first: the container does not run.
    async fn refused(&mut self, error: ApiError) -> ApiError {
        if !self.shim.is_gone().await {
            return error;
        }
        let Some(watch) = self.watch.take() else { return error };
        self.hear_to_the_end(watch).await;
        match self.state().expect_running(&self.definition.id) {
            Err(ended) => ended,
            Ok(_) => error,
        }
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

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

pub(super) fn how_it_ended(running: &Running, record: Option<ExitRecord>) -> Exited {
    let (code, finished_at, oom_killed) = match record {
        Some(record) => (record.code, timestamp(record.finished_at), record.oom_killed),
        None => (KILLED, Timestamp::now(), running.oom_kills > 0),
    };
    Exited { started_at: running.started_at, finished_at, exit_code: code, oom_killed, error: String::new() }
}
