//! A container's output of the past and present: the `json-file` that its shim writes.
//!
//! A reader goes through the file line by line and, if it follows, waits for more: the kernel's inotify wakes it when
//! the shim writes, the container's task when the container ends. A slow client slows only its own reader.

mod line;
mod tail;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use caisson_docker_api::time::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::line::Line;
use super::state::Status;
use super::{Containers, Handle};
use crate::error::ApiError;
use crate::readiness::watched;

/// How much of the file is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// What to tell of a container's output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogOptions {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Go on until the container ends.
    pub(crate) follow: bool,
    /// Put its time before each line.
    pub(crate) timestamps: bool,
    /// Put its attributes before each line. There are none: a blank.
    pub(crate) details: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// The last so many lines; `None` for all.
    pub(crate) tail: Option<usize>,
}

/// A container's output, ready to be told.
pub(crate) struct Logs {
    path: PathBuf,
    status: watch::Receiver<Status>,
    options: LogOptions,
    /// Bytes as they are, without Docker's stream headers: of a container with a terminal.
    raw: bool,
}

impl Containers {
    /// A container's output.
    pub(crate) fn logs(&self, handle: &Handle, options: LogOptions) -> Result<Logs, ApiError> {
        if handle.definition.host_config.log_config.kind == "none" {
            return Err(ApiError::not_implemented("configured logging driver does not support reading"));
        }
        Ok(Logs {
            path: self.directory(&handle.definition.id).log(&handle.definition.id),
            status: handle.watch(),
            options,
            raw: handle.definition.config.tty,
        })
    }
}

impl Logs {
    /// Sends all of it; returns when that is done or nobody listens any more.
    pub(crate) async fn send(self, to: mpsc::Sender<Bytes>) {
        let path = self.path.clone();
        if let Err(error) = self.copy(&to).await {
            warn!(%error, path = %path.display(), "could not read a log");
        }
    }

    async fn copy(mut self, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
        let running = |status: &Status| status.state.running().is_some();
        let mut follow = self.options.follow && running(&self.status.borrow());
        // Before the file is read: what is written after that is told of.
        let changes = if follow { Changes::of(&self.path).ok() } else { None };
        let mut reader = match Reader::open(&self.path, self.options.tail) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        loop {
            // Asked before reading to the end: what was written before the container ended is then read.
            let last_round = !follow || !running(&self.status.borrow());
            while let Some(lines) = reader.next()? {
                let mut out = Vec::with_capacity(CHUNK);
                for text in lines.split_inclusive(|b| *b == b'\n') {
                    match self.told(text, &mut out) {
                        Told::Go => {}
                        Told::Done => {
                            follow = false;
                            break;
                        }
                    }
                }
                if !out.is_empty() && to.send(out.into()).await.is_err() {
                    return Ok(());
                }
                if !follow && self.options.follow && self.options.until.is_some() {
                    return Ok(());
                }
            }
            if last_round {
                return Ok(());
            }
            let Some(changes) = &changes else { return Ok(()) };
            tokio::select! {
                changed = changes.next() => changed?,
                // An error is the end of the container's task: there will be no more.
                _ = self.status.wait_for(|status| !running(status)) => {}
                () = to.closed() => return Ok(()),
                () = passed(self.options.until) => return Ok(()),
            }
        }
    }

    fn told(&self, text: &[u8], out: &mut Vec<u8>) -> Told {
        let Some(line) = Line::parse(text) else { return Told::Go };
        let options = &self.options;
        if options.until.is_some_and(|until| line.time > until) {
            return Told::Done;
        }
        let wanted = if line.is_stderr { options.stderr } else { options.stdout };
        if wanted && options.since.is_none_or(|since| line.time >= since) {
            line.write(out, options, self.raw);
        }
        Told::Go
    }
}

enum Told {
    Go,
    /// The rest is later than what was asked for.
    Done,
}

async fn passed(until: Option<Timestamp>) {
    match until {
        Some(until) => tokio::time::sleep(Timestamp::now().until(until)).await,
        None => std::future::pending().await,
    }
}

/// Reads whole lines.
struct Reader {
    file: File,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, tail: Option<usize>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if let Some(lines) = tail {
            let start = tail::start_of_last(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self { file, partial: Vec::new() })
    }

    /// Whole lines, as many as one read brings; `None` at the end of what is there.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut buffer)?;
            if length == 0 {
                return Ok(None);
            }
            self.partial.extend_from_slice(&buffer[..length]);
            if let Some(end) = self.partial.iter().rposition(|b| *b == b'\n') {
                let rest = self.partial.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.partial, rest)));
            }
        }
    }
}

/// Tells when a file was written to.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY)?;
        Ok(Self(watched(fd)?))
    }

    async fn next(&self) -> io::Result<()> {
        let mut events = [0; 1024];
        self.0.async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut events)?)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::state::{Created, Exited, Running, State};
    use super::*;

    fn options() -> LogOptions {
        LogOptions {
            stdout: true,
            stderr: true,
            follow: false,
            timestamps: false,
            details: false,
            since: None,
            until: None,
            tail: None,
        }
    }

    fn running() -> State {
        let sandbox = caisson_networks::Sandbox {
            container: String::new(),
            netns: None,
            endpoints: Vec::new(),
            published: Vec::new(),
        };
        State::Running(Running {
            pid: 1,
            started_at: Timestamp::ZERO,
            finished_before: Timestamp::ZERO,
            sandbox,
        })
    }

    fn line(text: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
        )
    }

    async fn collect(mut chunks: mpsc::Receiver<Bytes>) -> String {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk);
        }
        String::from_utf8(all).unwrap()
    }

    async fn told(file: &Path, options: LogOptions) -> String {
        let status = Status { state: State::Created(Created::default()), ends: 0, exit_code: 0 };
        let (_sender, status) = watch::channel(status);
        let (to, chunks) = mpsc::channel(16);
        Logs { path: file.to_owned(), status, options, raw: true }.send(to).await;
        collect(chunks).await
    }

    #[tokio::test]
    async fn the_past_is_told_as_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(told(&path, options()).await, "", "no file is no output");
        std::fs::write(&path, [line("a", 1), line("b", 2), line("c", 3)].concat()).unwrap();
        assert_eq!(told(&path, options()).await, "a\nb\nc\n");
        assert_eq!(told(&path, LogOptions { tail: Some(2), ..options() }).await, "b\nc\n");
        assert_eq!(told(&path, LogOptions { tail: Some(0), ..options() }).await, "");
        let at = |text| Timestamp::parse(text);
        let since = at("2026-01-01T00:00:02Z");
        assert_eq!(told(&path, LogOptions { since, ..options() }).await, "b\nc\n");
        let until = at("2026-01-01T00:00:02Z");
        assert_eq!(told(&path, LogOptions { until, ..options() }).await, "a\n");
        assert_eq!(told(&path, LogOptions { stdout: false, ..options() }).await, "");
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_written_until_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, line("a", 1)).unwrap();
        let (sender, status) = watch::channel(Status { state: running(), ends: 0, exit_code: 0 });
        let (to, mut chunks) = mpsc::channel(16);
        let logs =
            Logs { path: path.clone(), status, options: LogOptions { follow: true, ..options() }, raw: true };
        let telling = tokio::spawn(logs.send(to));
        assert_eq!(chunks.recv().await.unwrap(), "a\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        let written = line("b", 2);
        let (first, second) = written.split_at(10);
        file.write_all(first.as_bytes()).unwrap();
        file.write_all(second.as_bytes()).unwrap();
        assert_eq!(chunks.recv().await.unwrap(), "b\n");
        file.write_all(line("c", 3).as_bytes()).unwrap();
        let exited = Exited {
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
        };
        sender.send_replace(Status { state: State::Exited(exited), ends: 1, exit_code: 0 });
        assert_eq!(collect(chunks).await, "c\n");
        telling.await.unwrap();
    }
}
