//! The engine's end of a container's shim: make its bundle, start it, talk to it, find it again.
//!
//! Everything about a running container goes through its socket, `<bundle>/shim.sock`; see `caisson_shim::proto`. The
//! engine that started a shim is its parent and reaps it; one that found it again sees its end on the connection on
//! which it waits, which the kernel closes whatever way the shim ends.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caisson_docker_api::time::Timestamp;
use caisson_guest_proto::{read_frame, write_frame};
use caisson_shim::ShimConfig;
use caisson_shim::config::{
    CONFIG_FILE, EXECS_DIRECTORY, LISTENER_FD, LOG_FILE, SOCKET_FILE, SPEC_FILE, exec_file, exec_record,
};
use caisson_shim::proto::{ExitRecord, Reply, Request, StartFailure, State, Step, UnixNanos};
use caisson_sys::spawn::{Detached, detached};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, trace, warn};

use super::news::News;
use crate::error::{ApiError, chain};
use crate::readiness::watched;

/// How long a shim may take to answer what it answers at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a start may take: the runtime's work, with a slow disk below it.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// How long to wait before a shim that did not answer is asked again.
const ASKS_AGAIN: Duration = Duration::from_millis(100);
/// How long a shim whose container has ended may take before it is asked whether it only serves clients. Most need some milliseconds.
const SERVES_ALONE_AFTER: Duration = Duration::from_secs(1);
/// How long a shim may take to exit once its container has ended.
const EXITS_WITHIN: Duration = Duration::from_secs(10);

/// The file in a bundle that says that an engine has paused the container for a moment.
const PAUSE_FILE: &str = "paused-for-a-moment";

/// How many bytes at most the engine's log has of what a shim said.
const TROUBLES_TOLD: usize = 4 << 10;

/// A container's bundle and the shim in it.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    bundle: PathBuf,
}

/// A shim's process, to be waited for by whoever started it.
pub(crate) struct ShimProcess {
    shim: Shim,
    pid: Pid,
}

/// What is known of a shim that is asked where its container stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Stands(State),
    /// Nobody listens any more: it is gone.
    Gone,
    /// It is there, and has not answered yet.
    None,
}

/// What came of a start.
pub(crate) type Started = Result<(u32, Timestamp), StartFailure>;

impl Shim {
    pub(crate) fn new(shims: &Path, id: &str) -> Self {
        Self { bundle: shims.join(id) }
    }

    /// Whether there is one, or was one that nobody cleared away.
    pub(crate) fn exists(&self) -> bool {
        self.bundle.exists()
    }

    /// Makes the bundle and starts the shim, which then waits for requests. Blocks for as long as small files on a
    /// memory file system and a `posix_spawn` take.
    pub(crate) fn spawn(
        &self,
        program: &Path,
        spec: &impl Serialize,
        config: &ShimConfig,
    ) -> io::Result<ShimProcess> {
        self.clear()?;
        std::fs::create_dir_all(&self.bundle)?;
        std::fs::write(self.bundle.join(SPEC_FILE), serde_json::to_vec(spec)?)?;
        std::fs::write(self.bundle.join(CONFIG_FILE), serde_json::to_vec(config)?)?;
        let listener = UnixListener::bind(self.bundle.join(SOCKET_FILE))?;
        let log = File::create(self.bundle.join(LOG_FILE))?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let pid = detached(&Detached {
            program,
            arguments: &[self.bundle.as_os_str()],
            descriptors: &[
                (null.as_fd(), 0),
                (null.as_fd(), 1),
                (log.as_fd(), 2),
                (listener.as_fd(), LISTENER_FD),
            ],
        })?;
        Ok(ShimProcess { shim: self.clone(), pid })
    }

    /// Removes the bundle, with which goes what the shim said to nobody.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let troubles = self.troubles();
        if !troubles.is_empty() {
            warn!(bundle = %self.bundle.display(), troubles, "a shim had its troubles");
        }
        match std::fs::remove_dir_all(&self.bundle) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes that the container stands still until this engine lets it go on. An error of the kind `AlreadyExists` says that it does so already.
    pub(crate) fn note_pause(&self) -> io::Result<()> {
        File::create_new(self.bundle.join(PAUSE_FILE)).map(drop)
    }

    /// Takes the note back; whether there was one.
    pub(crate) fn clear_pause(&self) -> io::Result<bool> {
        match std::fs::remove_file(self.bundle.join(PAUSE_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Runs the container. An error is the shim's own failure, not the container's.
    pub(crate) async fn start(&self) -> io::Result<Started> {
        match tokio::time::timeout(STARTS_WITHIN, self.ask(&Request::Start)).await?? {
            Reply::Started { pid, started_at, steps } => {
                for Step { name, micros } in steps {
                    trace!(step = name, micros, "the shim's");
                }
                Ok(Ok((pid, timestamp(started_at))))
            }
            Reply::Failed(failure) => Ok(Err(failure)),
            other => Err(unexpected(other)),
        }
    }

    /// A connection that carries the container's streams from now on.
    pub(crate) async fn attach(&self, stdin: bool, stdout: bool, stderr: bool) -> io::Result<UnixStream> {
        let request = Request::Attach { stdin, stdout, stderr };
        let (reply, stream) = tokio::time::timeout(ANSWERS_WITHIN, self.exchange(&request)).await??;
        match reply {
            Reply::Attached => Ok(stream),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for something that is done at once.
    pub(crate) async fn order(&self, request: &Request) -> Result<(), ApiError> {
        match tokio::time::timeout(ANSWERS_WITHIN, self.ask(request)).await {
            Ok(Ok(Reply::Done)) => Ok(()),
            Ok(Ok(Reply::Refused { message })) => Err(ApiError::conflict(message)),
            Ok(Ok(other)) => Err(ApiError::from_chain("the shim failed", &unexpected(other))),
            Ok(Err(error)) => Err(ApiError::from_chain("the shim does not answer", &error)),
            Err(error) => Err(ApiError::from_chain("the shim does not answer", &error)),
        }
    }

    /// Where the container stands, by its shim; an error if there is no shim, or none that answers.
    pub(crate) async fn state(&self) -> io::Result<State> {
        match tokio::time::timeout(ANSWERS_WITHIN, self.ask(&Request::State)).await?? {
            Reply::State(state) => Ok(state),
            other => Err(unexpected(other)),
        }
    }

    /// Asks until the shim answers: where the container stands, or `None` if the shim is gone. Only a socket on which nobody listens
    /// says that: a shim that is late has a container that runs.
    pub(crate) async fn answered(&self) -> Option<State> {
        loop {
            match self.state().await {
                Ok(state) => return Some(state),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) =>
                {
                    return None;
                }
                Err(error) => debug!(%error, bundle = %self.bundle.display(), "a shim does not answer"),
            }
            tokio::time::sleep(ASKS_AGAIN).await;
        }
    }

    /// The same, for as long as an answer is worth waiting for.
    pub(crate) async fn answered_within(&self, patience: Duration) -> Word {
        match tokio::time::timeout(patience, self.answered()).await {
            Ok(Some(state)) => Word::Stands(state),
            Ok(None) => Word::Gone,
            Err(_) => Word::None,
        }
    }

    /// Whether the shim is gone, and not just late.
    pub(crate) async fn is_gone(&self) -> bool {
        self.answered_within(ANSWERS_WITHIN).await == Word::Gone
    }

    /// Returns when the container has ended: how, if the shim or the record that it left says so. What the shim tells of it until then goes
    /// to `news`; an older one tells nothing.
    pub(super) async fn ended(&self, record: &Path, news: &mpsc::Sender<News>) -> Option<ExitRecord> {
        let mut request = Request::Watch;
        loop {
            match self.watch(&request, news).await {
                Ok(Reply::Exited(record)) => return Some(record),
                Ok(other) => warn!(error = %unexpected(other), "asked a shim for its container's end"),
                Err(error) => {
                    debug!(%error, "a shim went without a word");
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        // If it is not gone, it is too old for more than that.
                        request = Request::Wait;
                    }
                }
            }
            if self.answered().await.is_none() {
                return read_record(record);
            }
            tokio::time::sleep(ASKS_AGAIN).await;
        }
    }

    /// The last answer to a request that may get several.
    async fn watch(&self, request: &Request, news: &mpsc::Sender<News>) -> io::Result<Reply> {
        let (mut reply, mut stream) = self.exchange(request).await?;
        while let Reply::OomKills { count } = reply {
            // Without a hearer the container's task is gone.
            let _ = news.send(News::OomKills(count)).await;
            reply = next_reply(&mut stream).await?;
        }
        Ok(reply)
    }

    /// Writes what a process that is to be added is.
    pub(crate) fn write_exec(&self, id: &str, file: &impl Serialize) -> io::Result<()> {
        let path = exec_file(&self.bundle, id);
        let text = serde_json::to_vec(file)?;
        if std::fs::write(&path, &text).is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(self.bundle.join(EXECS_DIRECTORY))?;
        std::fs::write(&path, text)
    }

    /// Removes what was written of a process. What is not there need not go.
    pub(crate) fn clear_exec(&self, id: &str) {
        for path in [exec_file(&self.bundle, id), exec_record(&self.bundle, id)] {
            let _ = std::fs::remove_file(path);
        }
    }

    /// What was written of processes, by their names.
    pub(crate) fn exec_files(&self) -> Vec<(String, Vec<u8>)> {
        let directory = std::fs::read_dir(self.bundle.join(EXECS_DIRECTORY));
        let paths = directory.into_iter().flatten().flatten().map(|entry| entry.path());
        let named = paths.filter_map(|path| {
            let id = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
            Some((id, std::fs::read(path).ok()?))
        });
        named.collect()
    }

    /// Adds a process: its pid, and the connection, which is a raw stream now if any stream was asked for. An error is the shim's own
    /// failure, not the process'.
    pub(crate) async fn exec(
        &self,
        request: &Request,
    ) -> io::Result<Result<(u32, UnixStream), StartFailure>> {
        let (reply, stream) = tokio::time::timeout(STARTS_WITHIN, self.exchange(request)).await??;
        match reply {
            Reply::Started { pid, .. } => Ok(Ok((pid, stream))),
            Reply::Failed(failure) => Ok(Err(failure)),
            other => Err(unexpected(other)),
        }
    }

    /// Where an added process stands; `None` for one that was never started.
    pub(crate) async fn exec_state(&self, id: &str) -> io::Result<Option<State>> {
        let request = Request::ExecState { id: id.to_owned() };
        match tokio::time::timeout(ANSWERS_WITHIN, self.ask(&request)).await?? {
            Reply::State(state) => Ok(Some(state)),
            Reply::Refused { .. } => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Returns when an added process has ended: how, if the shim or the record that it left says so.
    pub(crate) async fn exec_ended(&self, id: &str) -> Option<ExitRecord> {
        let record = exec_record(&self.bundle, id);
        loop {
            match self.ask(&Request::ExecWait { id: id.to_owned() }).await {
                Ok(Reply::Exited(record)) => return Some(record),
                Ok(_) => return read_record(&record),
                Err(error) => debug!(%error, exec = id, "a shim does not tell of a process"),
            }
            if self.answered().await.is_none() {
                return read_record(&record);
            }
            tokio::time::sleep(ASKS_AGAIN).await;
        }
    }

    async fn ask(&self, request: &Request) -> io::Result<Reply> {
        Ok(self.exchange(request).await?.0)
    }

    async fn exchange(&self, request: &Request) -> io::Result<(Reply, UnixStream)> {
        let mut stream = UnixStream::connect(self.bundle.join(SOCKET_FILE)).await?;
        write_frame(&mut stream, request).await.map_err(io::Error::other)?;
        Ok((next_reply(&mut stream).await?, stream))
    }

    /// What the shim said to nobody: why it failed.
    pub(crate) fn last_words(&self) -> String {
        self.troubles().lines().last().unwrap_or_default().to_owned()
    }

    /// The last of all that it said to nobody.
    fn troubles(&self) -> String {
        let said = std::fs::read(self.bundle.join(LOG_FILE)).unwrap_or_default();
        let last = &said[said.len().saturating_sub(TROUBLES_TOLD)..];
        String::from_utf8_lossy(last).trim_end().to_owned()
    }
}

async fn next_reply(stream: &mut UnixStream) -> io::Result<Reply> {
    let reply = read_frame(stream).await.map_err(io::Error::other)?;
    Ok(reply.ok_or(io::ErrorKind::UnexpectedEof)?)
}

/// A shim that this engine started, on its way to its exit.
pub(crate) struct Finishing {
    pid: Pid,
    reaped: JoinHandle<()>,
}

impl ShimProcess {
    /// Ends the shim, whatever it is doing.
    pub(crate) fn kill(self) -> Finishing {
        kill(self.pid);
        self.finish()
    }

    /// Reaps the shim when it exits, whenever that is, and then removes its bundle.
    pub(crate) fn finish(self) -> Finishing {
        let Self { shim, pid } = self;
        let reaped = tokio::spawn(async move {
            if let Err(error) = reap(pid).await {
                warn!(%error, %pid, "could not reap a shim");
            }
            if let Err(error) = shim.clear() {
                warn!(error = %chain(&error), bundle = %shim.bundle.display(), "could not remove a bundle");
            }
        });
        Finishing { pid, reaped }
    }
}

impl Finishing {
    /// Whether the shim is gone, when it has had its time for that. Not to be asked again when it is.
    pub(crate) async fn is_done(&mut self) -> bool {
        tokio::time::timeout(EXITS_WITHIN, &mut self.reaped).await.is_ok()
    }

    /// Returns once the shim is gone, or has nothing left to do but to give its clients what they have not taken yet, however slow they are:
    /// then it goes on alone, and needs its bundle no more. To be asked when its container has ended: one that does neither is killed.
    pub(crate) async fn done_or_serving(mut self, shim: &Shim) {
        if tokio::time::timeout(SERVES_ALONE_AFTER, &mut self.reaped).await.is_ok() {
            return;
        }
        match shim.answered_within(ANSWERS_WITHIN).await {
            Word::Stands(State::Exited(_)) => debug!(pid = %self.pid, "a shim goes on serving its clients"),
            Word::Stands(_) | Word::Gone | Word::None => self.done().await,
        }
    }

    /// Returns once the shim is gone. To be asked when its container has ended: one that does not exit then is killed.
    pub(crate) async fn done(mut self) {
        if self.is_done().await {
            return;
        }
        warn!(pid = %self.pid, "a shim does not exit; killing it");
        kill(self.pid);
        if let Err(error) = self.reaped.await {
            warn!(%error, pid = %self.pid, "could not wait for a shim");
        }
    }
}

/// Kills a shim that has not been reaped: until then the pid is its own.
fn kill(pid: Pid) {
    if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        warn!(%error, %pid, "could not kill a shim");
    }
}

/// Waits for a child without blocking a thread. The pid is ours until it is reaped here.
async fn reap(pid: Pid) -> io::Result<()> {
    let pidfd = watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
    loop {
        let mut ready = pidfd.readable().await?;
        if waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?
            .is_some()
        {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// The record that a shim leaves of its container's end.
pub(crate) fn read_record(path: &Path) -> Option<ExitRecord> {
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(|error| warn!(%error, path = %path.display(), "unreadable exit record"))
        .ok()
}

/// A shim's moment in the API's terms.
pub(crate) fn timestamp(at: UnixNanos) -> Timestamp {
    Timestamp::from_unix_nanos(i64::try_from(at.0).unwrap_or(i64::MAX))
}

fn unexpected(reply: Reply) -> io::Error {
    match reply {
        Reply::Refused { message } => io::Error::other(message),
        other => io::Error::other(format!("unexpected answer {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::serve;
    use super::*;

    const AT_ONCE: Duration = Duration::from_millis(300);

    fn shim() -> (tempfile::TempDir, Shim) {
        let root = tempfile::tempdir().unwrap();
        let shim = Shim::new(root.path(), "c");
        std::fs::create_dir(&shim.bundle).unwrap();
        (root, shim)
    }

    #[tokio::test]
    async fn only_who_does_not_listen_is_gone() {
        let (_root, shim) = shim();
        assert_eq!(shim.answered_within(AT_ONCE).await, Word::Gone, "there is no socket");
        let socket = shim.bundle.join(SOCKET_FILE);
        let listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(shim.answered_within(AT_ONCE).await, Word::None, "it is late");
        drop(listener);
        assert_eq!(shim.answered_within(AT_ONCE).await, Word::Gone, "it has gone");
    }

    #[test]
    fn what_a_shim_said_last_is_known_and_no_more_than_that() {
        let (_root, shim) = shim();
        assert_eq!((shim.troubles(), shim.last_words()), (String::new(), String::new()));
        let said = [&"again\n".repeat(10_000), "at last\n"].concat();
        std::fs::write(shim.bundle.join(LOG_FILE), said).unwrap();
        assert!(shim.troubles().len() <= TROUBLES_TOLD && shim.troubles().ends_with("again\nat last"));
        assert_eq!(shim.last_words(), "at last");
    }

    #[test]
    fn a_note_that_cannot_be_taken_back_is_not_none() {
        let (_root, shim) = shim();
        assert!(!shim.clear_pause().unwrap());
        shim.note_pause().unwrap();
        assert!(shim.clear_pause().unwrap());
        // No file can be removed that is a directory.
        std::fs::create_dir(shim.bundle.join(PAUSE_FILE)).unwrap();
        shim.clear_pause().unwrap_err();
    }

    #[tokio::test]
    async fn a_shim_that_loses_a_connection_is_asked_again() {
        let (_root, shim) = shim();
        let lost = std::sync::atomic::AtomicBool::new(false);
        serve(&shim.bundle, move |_| {
            lost.swap(true, std::sync::atomic::Ordering::Relaxed).then_some(Reply::State(State::Created))
        });
        assert_eq!(shim.answered().await, Some(State::Created));
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_is_no_process_end() {
        let (_root, shim) = shim();
        let lost = std::sync::atomic::AtomicBool::new(false);
        serve(&shim.bundle, move |request| match request {
            Request::State => Some(Reply::State(State::Running { pid: 1, started_at: UnixNanos(1) })),
            _ => lost.swap(true, std::sync::atomic::Ordering::Relaxed).then_some(Reply::Exited(ExitRecord {
                code: 3,
                finished_at: UnixNanos(1),
                oom_killed: false,
                failure: None,
            })),
        });
        assert_eq!(shim.exec_ended("added").await.map(|record| record.code), Some(3));
    }

    fn process(shim: &Shim) -> (Pid, ShimProcess) {
        let pid = detached(&Detached {
            program: Path::new("/bin/sleep"),
            arguments: &["1000".as_ref()],
            descriptors: &[],
        });
        let pid = pid.unwrap();
        (pid, ShimProcess { shim: shim.clone(), pid })
    }

    #[tokio::test]
    async fn a_shim_that_still_serves_is_left_to_it() {
        let (_root, shim) = shim();
        let record = ExitRecord { code: 0, finished_at: UnixNanos(1), oom_killed: false, failure: None };
        serve(&shim.bundle, move |_| Some(Reply::State(State::Exited(record.clone()))));
        let (pid, process) = process(&shim);
        process.finish().done_or_serving(&shim).await;
        assert!(rustix::process::test_kill_process(pid).is_ok(), "its clients have not taken all");
        kill(pid);
    }

    #[tokio::test]
    async fn a_shim_that_is_called_off_is_gone() {
        let (_root, shim) = shim();
        let (pid, process) = process(&shim);
        assert!(process.kill().is_done().await);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is reaped");
        assert!(!shim.exists());
    }
}
