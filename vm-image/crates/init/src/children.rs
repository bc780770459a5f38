//! The machine's processes: starting ours, and reaping all.
//!
//! PID 1 inherits every orphan, so it waits for any child; and as there can be only one such wait, those who started a
//! process are told from here. The event loop has a single thread and a process is started and entered into the table
//! without a pause between, so none can be reaped before it is known.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::process::{Command, Stdio};
use std::rc::Rc;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Knows which of the machine's processes somebody waits for.
#[derive(Clone, Default)]
pub(crate) struct Children {
    waited_for: Rc<RefCell<HashMap<Pid, oneshot::Sender<Exit>>>>,
}

/// A process that was started here.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// Its output and its errors, in the order in which it wrote them.
    pub(crate) output: pipe::Receiver,
    /// Comes when it has ended.
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl Exit {
    fn of(status: WaitStatus) -> Option<Self> {
        let code = status.exit_status().map(Self::Code);
        code.or_else(|| status.terminating_signal().map(Self::Signal))
    }
}

impl Children {
    /// Starts a program with no input and its output in a pipe.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Started> {
        let (reader, writer) = io::pipe()?;
        let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
        let pid = Pid::from_child(&child);
        let (tell, exit) = oneshot::channel();
        self.waited_for.borrow_mut().insert(pid, tell);
        // The command keeps its ends of the pipe until it is dropped or told otherwise, and the reader would wait for them.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Started { pid, output: pipe::Receiver::from_owned_fd(reader.into())?, exit })
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, command: &mut Command) -> io::Result<(Exit, String)> {
        let mut started = self.start(command)?;
        let mut output = Vec::new();
        started.output.read_to_end(&mut output).await?;
        let exit = started.exit.await.map_err(io::Error::other)?;
        Ok((exit, String::from_utf8_lossy(&output).trim().to_owned()))
    }

    /// Reaps for as long as the machine runs.
    pub(crate) async fn reap(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap_all();
            ended.recv().await;
        }
    }

    /// Kills every process of the machine but this one; false once there is none left.
    pub(crate) fn kill_all(&self) -> bool {
        // Process group 1 means all processes but PID 1 itself: this is kill(-1, SIGKILL). That it finds none is no error.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
        self.reap_all() == Left::Some
    }

    fn reap_all(&self) -> Left {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.tell(pid, status),
                Ok(None) => return Left::Some,
                // ECHILD: and every orphan is a child of this process.
                Err(_) => return Left::None,
            }
        }
    }

    fn tell(&self, pid: Pid, status: WaitStatus) {
        let Some(exit) = Exit::of(status) else { return };
        if let Some(waiting) = self.waited_for.borrow_mut().remove(&pid) {
            // Nobody waits any more: that is theirs to decide.
            let _ = waiting.send(exit);
        }
    }
}

/// Whether there are processes left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Some,
    None,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn who_starts_a_program_is_told_what_it_wrote_and_how_it_ended() {
        let table = [
            ("echo out; echo err >&2; exit 3", Exit::Code(3), "out\nerr"),
            ("true", Exit::Code(0), ""),
            ("kill -9 $$", Exit::Signal(9), ""),
        ];
        let children = Children::default();
        let run_all = async {
            let reaping = children.clone();
            let reaping = tokio::task::spawn_local(async move { reaping.reap().await });
            for (script, exit, output) in table {
                let ran = timeout(Duration::from_secs(20), children.run(&mut shell(script))).await;
                assert_eq!(ran.unwrap().unwrap(), (exit, output.to_owned()), "{script}");
            }
            reaping.abort();
        };
        LocalSet::new().run_until(run_all).await;
        assert!(children.waited_for.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let children = Children::default();
        assert!(children.start(&mut Command::new("/nonexistent")).is_err());
        assert!(children.waited_for.borrow().is_empty());
    }
}
