//! Starting a process: the shim makes it, and tells its end to a task of its own.

use std::sync::Arc;
use std::time::Instant;

use caisson_shim::proto::{FailureKind, Request as ShimRequest, StartFailure};
use tokio::net::UnixStream;
use tracing::debug;

use super::super::task::KILLED;
use super::super::{Containers, Ground};
use super::{Exec, Status};
use crate::error::{ApiError, ErrorKind};

/// The code of a process that could not be started for a reason that has no code of its own.
const CANNOT_BE_INVOKED: i32 = 126;

/// A process that has begun.
pub(crate) enum Begun {
    /// With its streams.
    Attached(UnixStream),
    /// Nobody wants its streams.
    Alone,
}

impl Containers {
    /// Starts a prepared process and returns when its program runs. `streams` says whether the client takes the streams that it was prepared
    /// with; `size` is its terminal's, in lines and columns.
    pub(crate) async fn start_exec(
        &self,
        exec: &Arc<Exec>,
        attached: bool,
        size: Option<[u32; 2]>,
    ) -> Result<Begun, ApiError> {
        exec.claim()?;
        exec.tell(&self.ground, &exec.action("exec_start"), &[]);
        match exec.begin(&self.ground, attached, size).await {
            Ok((pid, begun)) => {
                exec.status.send_replace(Status::Running { pid });
                tokio::spawn(exec.clone().watch(self.ground.clone()));
                Ok(begun)
            }
            Err((code, error)) => {
                exec.status.send_replace(Status::Ended { pid: 0, code, at: Instant::now() });
                Err(error)
            }
        }
    }

    /// Sends a signal to a process that was added.
    pub(crate) async fn signal_exec(&self, exec: &Exec, signal: i32) -> Result<(), ApiError> {
        let request = ShimRequest::ExecSignal { id: exec.id.clone(), signal };
        self.ground.shim_of(&exec.container.id).order(&request).await
    }

    /// Sets the size of its terminal.
    pub(crate) async fn resize_exec(&self, exec: &Exec, rows: u16, cols: u16) -> Result<(), ApiError> {
        let mut status = exec.status.subscribe();
        let begun = status.wait_for(|status| !matches!(status, Status::Created | Status::Starting));
        let begun = tokio::time::timeout(std::time::Duration::from_secs(10), begun).await;
        match begun.map(|status| status.map(|status| *status)) {
            Err(_) => return Err(ApiError::internal("timeout waiting for exec session ready")),
            Ok(Ok(Status::Ended { pid: 0, .. })) => {
                return Err(ApiError::invalid("exec process is not started"));
            }
            Ok(_) => {}
        }
        if !exec.wish.tty {
            // As dockerd, to which a process without a terminal has one of no size.
            return Ok(());
        }
        let request = ShimRequest::ExecResize { id: exec.id.clone(), rows, cols };
        self.ground.shim_of(&exec.container.id).order(&request).await
    }

    /// Tells that a client has left a process by its detach keys.
    pub(crate) fn tell_exec_detached(&self, exec: &Exec) {
        exec.tell(&self.ground, "exec_detach", &[]);
    }

    /// Forgets a process that has ended and that nobody but its starter knows.
    pub(crate) fn forget_exec(&self, exec: &Exec) {
        self.ground.execs.forget(&exec.id);
        self.ground.shim_of(&exec.container.id).clear_exec(&exec.id);
    }
}

impl Exec {
    /// Makes sure that it is started once.
    fn claim(&self) -> Result<(), ApiError> {
        let mut found = Status::Created;
        self.status.send_if_modified(|status| {
            found = *status;
            let free = *status == Status::Created;
            if free {
                *status = Status::Starting;
            }
            free
        });
        match found {
            Status::Created => Ok(()),
            Status::Starting | Status::Running { .. } => {
                Err(ApiError::conflict(format!("exec command {} is already running", self.id)))
            }
            Status::Ended { .. } => {
                Err(ApiError::conflict(format!("exec command {} has already run", self.id)))
            }
        }
    }

    async fn begin(
        &self,
        ground: &Ground,
        attached: bool,
        size: Option<[u32; 2]>,
    ) -> Result<(u32, Begun), (i32, ApiError)> {
        let shim = ground.shim_of(&self.container.id);
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let wanted = |stream: bool| stream && attached;
        let streams = self.wish.streams;
        let request = ShimRequest::Exec {
            id: self.id.clone(),
            terminal: self.wish.tty,
            size: size.map(|[rows, columns]| (small(rows), small(columns))),
            stdin: wanted(streams.stdin),
            stdout: wanted(streams.stdout),
            stderr: wanted(streams.stderr),
        };
        let started = shim.exec(&request).await;
        let started = started.map_err(|error| {
            (CANNOT_BE_INVOKED, ApiError::from_chain("could not start the process", &error))
        })?;
        let (pid, stream) = started.map_err(|failure| refusal(&failure))?;
        let any = attached && (streams.stdin || streams.stdout || streams.stderr);
        Ok((pid, if any { Begun::Attached(stream) } else { Begun::Alone }))
    }

    /// Waits for its end, and tells.
    pub(super) async fn watch(self: Arc<Self>, ground: Arc<Ground>) {
        let shim = ground.shim_of(&self.container.id);
        let record = shim.exec_ended(&self.id).await;
        // Without a record it went with its shim.
        let code = record.map_or(KILLED, |record| record.code);
        self.end(&ground, code);
    }

    pub(super) fn end(&self, ground: &Ground, code: i32) {
        debug!(exec = self.id, code, "an added process ended");
        let pid = match *self.status.borrow() {
            Status::Running { pid } => pid,
            Status::Created | Status::Starting | Status::Ended { .. } => 0,
        };
        self.tell(ground, "exec_die", &[("exitCode", code.to_string())]);
        self.status.send_replace(Status::Ended { pid, code, at: Instant::now() });
    }
}

/// What dockerd makes of a failure: the code by the words, and words that clients tell 126 and 127 by.
fn refusal(failure: &StartFailure) -> (i32, ApiError) {
    const RUNC: &str = "OCI runtime exec failed: exec failed: unable to start container process: ";
    if failure.kind == FailureKind::Invalid {
        return (CANNOT_BE_INVOKED, ApiError::internal(failure.message.clone()));
    }
    let text = format!("{RUNC}{}", failure.message);
    let says = |words: &str| failure.message.contains(words);
    let (code, text) = if says("permission denied") {
        (126, text)
    } else if says("is a directory") {
        (126, format!("{text}: permission denied"))
    } else if says("not a directory") {
        let hint = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
        (127, format!("{text}: {hint}"))
    } else if says("executable file not found") || says("no such file or directory") {
        (127, text)
    } else {
        return (128, ApiError::internal(text));
    };
    (code, ApiError::new(ErrorKind::InvalidParameter, text))
}
