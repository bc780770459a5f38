//! Processes that are added to a running container: `docker exec`.
//!
//! ```text
//! Created --start--> Starting --its program runs--> Running --it ends--> Ended
//!                        \--it cannot be run--------------------------------^
//! ```
//!
//! What a process is to be is a file in the container's bundle from its creation on; how it ended is one beside it, written by the shim, which
//! holds the process. So an engine that is killed and started again knows all of them ([`restore`]).
//!
//! One that has ended can be asked about for [`KEPT_FOR`], as long as its container is there.

mod create;
mod restore;
mod start;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caisson_docker_api::exec::{ExecInspect, ExecProcessConfig};
use caisson_docker_api::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::attach::Streams;
use super::state::State;
use super::{Containers, Ground, Handle};
use crate::error::ApiError;

pub(crate) use start::Begun;

/// How long one that has ended is remembered. dockerd forgets after five to ten minutes.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// What a client wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The program and its arguments; never empty.
    pub(crate) command: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) streams: Streams,
    /// What detaches a client from its terminal; empty for the usual keys.
    pub(crate) detach_keys: Vec<u8>,
    pub(crate) privileged: bool,
    /// Empty for root.
    pub(crate) user: String,
    /// Empty for `/`.
    pub(crate) working_dir: String,
    /// Added to the container's own environment.
    pub(crate) env: Vec<String>,
    /// Lines and columns.
    pub(crate) console_size: Option<[u32; 2]>,
}

/// Where an added process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Starting,
    Running { pid: u32 },
    Ended { pid: u32, code: i32, at: Instant },
}

/// A process that was, is, or is to be added to a container.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container: Handle,
    pub(crate) wish: Wish,
    /// When the run of the container began for which it was prepared.
    run: Timestamp,
    status: watch::Sender<Status>,
}

/// All of them, of all containers. Never held across an `.await`.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

impl Execs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, and forgets those that nobody will ask about.
    fn add(&self, exec: &Arc<Exec>, ground: &Ground) {
        let mut all = self.all();
        all.retain(|id, exec| {
            let keep = !exec.is_forgotten();
            if !keep {
                ground.shim_of(&exec.container.id).clear_exec(id);
            }
            keep
        });
        all.insert(exec.id.clone(), exec.clone());
    }

    fn forget(&self, id: &str) {
        self.all().remove(id);
    }

    /// The ids of a container's processes that have not ended.
    pub(crate) fn of(&self, container: &str) -> Vec<String> {
        let all = self.all();
        let live = all
            .values()
            .filter(|exec| *exec.container.id == *container && exec.code().is_none() && !exec.is_gone());
        let mut ids: Vec<String> = live.map(|exec| exec.id.clone()).collect();
        ids.sort();
        ids
    }
}

impl Containers {
    /// The added process of this id, whose container still exists.
    pub(crate) fn exec(&self, id: &str) -> Result<Arc<Exec>, ApiError> {
        let unknown = || ApiError::not_found(format!("No such exec instance: {id}"));
        let exec = self.ground.execs.all().get(id).cloned().ok_or_else(unknown)?;
        if exec.is_gone() { Err(unknown()) } else { Ok(exec) }
    }

    /// The same, of a container that can be worked in.
    pub(crate) fn active_exec(&self, id: &str) -> Result<Arc<Exec>, ApiError> {
        let exec = self.exec(id)?;
        expect_active(&exec.container, &exec.container.id)?;
        Ok(exec)
    }
}

/// The process id of a container in which processes can be started; else dockerd's refusal. `name` is what the client called it.
fn expect_active(container: &Handle, name: &str) -> Result<u32, ApiError> {
    let state = container.state();
    let pid = state.expect_running(&container.id)?.pid;
    let told = state.describe();
    if told.paused {
        return Err(ApiError::conflict(format!(
            "Container {name} is paused, unpause the container before exec"
        )));
    }
    if told.restarting {
        return Err(ApiError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        )));
    }
    Ok(pid)
}

impl Exec {
    fn new(id: String, container: Handle, wish: Wish, status: Status) -> Arc<Self> {
        let run = container.state().running().map_or(Timestamp::ZERO, |running| running.started_at);
        Arc::new(Self { id, container, wish, run, status: watch::Sender::new(status) })
    }

    /// Whether it is as if it had never been: its container is no more, or ended before it was started.
    fn is_gone(&self) -> bool {
        let state = self.container.state();
        let same_run = state.running().is_some_and(|running| running.started_at == self.run);
        matches!(state, State::Removed) || (*self.status.borrow() == Status::Created && !same_run)
    }

    fn code(&self) -> Option<i32> {
        match *self.status.borrow() {
            Status::Ended { code, .. } => Some(code),
            Status::Created | Status::Starting | Status::Running { .. } => None,
        }
    }

    fn is_forgotten(&self) -> bool {
        let old = match *self.status.borrow() {
            Status::Ended { at, .. } => at.elapsed() > KEPT_FOR,
            Status::Created | Status::Starting | Status::Running { .. } => false,
        };
        old || self.is_gone()
    }

    /// All about it.
    pub(crate) fn inspect(&self) -> ExecInspect {
        let status = *self.status.borrow();
        let (running, pid, exit_code) = match status {
            Status::Created => (false, 0, None),
            Status::Starting => (true, 0, None),
            Status::Running { pid } => (true, pid, None),
            Status::Ended { pid, code, .. } => (false, pid, Some(code)),
        };
        let wish = &self.wish;
        ExecInspect {
            id: self.id.clone(),
            running,
            exit_code,
            process_config: ExecProcessConfig {
                tty: wish.tty,
                entrypoint: wish.command[0].clone(),
                arguments: wish.command[1..].to_vec(),
                privileged: wish.privileged,
                user: wish.user.clone(),
            },
            open_stdin: wish.streams.stdin,
            open_stderr: wish.streams.stderr,
            open_stdout: wish.streams.stdout,
            can_remove: false,
            container_id: self.container.id.to_string(),
            detach_keys: wish.detach_keys.clone(),
            pid,
        }
    }

    /// Returns when it has ended: its exit code.
    pub(crate) async fn ended(&self) -> i32 {
        let mut status = self.status.subscribe();
        let ended = status.wait_for(|status| matches!(status, Status::Ended { .. })).await;
        match ended.as_deref() {
            Ok(Status::Ended { code, .. }) => *code,
            _ => super::task::KILLED,
        }
    }

    /// Tells of it.
    fn tell(&self, ground: &Ground, action: &str, more: &[(&str, String)]) {
        let mut told = vec![("execID", self.id.clone())];
        told.extend_from_slice(more);
        ground.tell(&self.container.definition(), action, &told);
    }

    /// `exec_create: sh -c true`, as dockerd tells it: with a space even where there are no arguments.
    fn action(&self, verb: &str) -> String {
        format!("{verb}: {} {}", self.wish.command[0], self.wish.command[1..].join(" "))
    }
}
