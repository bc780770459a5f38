//! Child processes that never outlive us, whose end is seen at once, and whose last words are kept.
//!
//! The kernel kills the child when its parent *thread* ends (`PR_SET_PDEATHSIG`, prctl(2)), so children are started
//! from one thread that lives as long as the process. That holds also for `kill -9` of this process, where no code of
//! ours runs any more. (QEMU 10.2 can do this by itself, `-run-with exit-with-parent=on`; Debian's are older.)

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, ChildStdout, Command},
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
};

/// How many of a process's last lines are kept.
const TAIL_LINES: usize = 20;
/// How long the last lines of a process that has ended may take to reach us.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    pid: u32,
    child: Child,
    tail: Tail,
    reader: Option<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// Whether its exit status was 0.
    pub(super) success: bool,
    /// In words: "exit status 1", "killed by signal 9".
    pub(super) how: String,
    /// The last that it said, oldest line first.
    pub(super) tail: Vec<String>,
}

impl Process {
    /// Starts a program whose errors are kept as its last words, and gives its standard output.
    pub(super) async fn spawn(program: &Path, arguments: &[OsString]) -> io::Result<(Self, ChildStdout)> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        tie_to_us(&mut command);
        let mut child = spawn_from_lasting_thread(command).await?;
        let tail = Tail::default();
        let stdout = child.stdout.take().expect("it was asked for just above");
        let stderr = child.stderr.take().expect("it was asked for just above");
        let reader = Some(tokio::spawn(tail.clone().follow(stderr)));
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let pid = child.id().expect("it has not been waited for");
        Ok((Self { name, pid, child, tail, reader }, stdout))
    }

    /// The program's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its number. Only good for telling people and for records, as it may have ended.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns when it has ended. May be dropped while waiting, and called again.
    pub(super) async fn exited(&mut self) -> Exit {
        let status = self.child.wait().await;
        if let Some(reader) = &mut self.reader {
            // A descendant may hold the pipe open; then what has arrived must do.
            let _ = tokio::time::timeout(LAST_WORDS, reader).await;
            self.reader = None;
        }
        let tail = self.tail.lines();
        match status {
            Ok(status) => Exit { success: status.success(), how: in_words(status), tail },
            Err(error) => Exit { success: false, how: format!("its status is unknown: {error}"), tail },
        }
    }

    /// Kills it and returns when it is gone.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(process = self.name, pid = self.pid, %error, "could not be killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Lets the kernel kill the child when the thread that starts it ends.
#[expect(unsafe_code, reason = "the death signal must be set between fork and exec, by the child itself")]
fn tie_to_us(command: &mut Command) {
    let us = getpid();
    let tie = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() == Some(us) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe things may happen. `tie` makes two system calls, prctl and
    // getppid, and allocates nothing: its error is a plain kind.
    unsafe { command.pre_exec(tie) };
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts the child from the thread that lives as long as this process.
async fn spawn_from_lasting_thread(mut command: Command) -> io::Result<Child> {
    static THREAD: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let run = move || inbox.into_iter().for_each(|job| job());
        if let Err(error) = std::thread::Builder::new().name("children".into()).spawn(run) {
            tracing::error!(%error, "cannot start the thread that starts children");
        }
        jobs
    });
    let (reply, child) = oneshot::channel();
    let runtime = Handle::current();
    let job = Box::new(move || {
        let _entered = runtime.enter();
        // Nobody waits any more: the child is dropped and thereby killed.
        let _ = reply.send(command.spawn());
    });
    let gone = || io::Error::other("the thread that starts children is gone");
    thread.send(job).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

/// The last lines that a process said.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    async fn follow(self, output: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::debug!(line, "a child said");
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == TAIL_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Process {
        Process::spawn(Path::new("/bin/sh"), &["-c".into(), script.into()]).await.unwrap().0
    }

    #[tokio::test]
    async fn the_end_of_a_process_tells_how_and_its_last_words() {
        let exit = shell("for i in $(seq 30); do echo line $i >&2; done; exit 3").await.exited().await;
        assert!(!exit.success);
        assert_eq!(exit.how, "exit status 3");
        assert_eq!(exit.tail.len(), TAIL_LINES);
        assert_eq!(exit.tail.last().unwrap(), "line 30");
    }

    #[tokio::test]
    async fn a_killed_process_says_by_which_signal() {
        let mut process = shell("kill -9 $$").await;
        assert_eq!(process.exited().await.how, "killed by signal 9");
        process.kill().await;
    }

    #[tokio::test]
    async fn a_child_asks_the_kernel_to_die_with_us() {
        // /proc does not show it; only the child itself can ask the kernel.
        let exit = shell("exec setpriv --dump >&2").await.exited().await;
        assert!(exit.tail.contains(&"Parent death signal: KILL".to_owned()), "{exit:?}");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error_of_its_own() {
        let error = Process::spawn(Path::new("/nowhere/program"), &[]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
