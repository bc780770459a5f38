//! A container's output of the past and present, from the files that its shim writes.
//!
//! A reader goes through the files ([`files`]) entry by entry ([`format`]) and, if it follows, waits for more: the kernel's inotify wakes
//! it when the shim writes or rotates, the container's task when the container ends. A slow client slows only its own reader. Which
//! drivers there are and what their options mean is in [`driver`].

pub(crate) mod driver;
mod files;
mod format;
mod line;
mod tag;
mod template;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use caisson_docker_api::time::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::files::{Files, Reader};
use super::state::{State, Status};
use super::{Containers, Handle};
use crate::error::ApiError;
use crate::readiness::watched;

/// A log driver's options.
type Options = BTreeMap<String, String>;

/// What to tell of a container's output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogOptions {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Go on until the container ends.
    pub(crate) follow: bool,
    /// Put its time before each line.
    pub(crate) timestamps: bool,
    /// Put its attributes before each line.
    pub(crate) details: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// The last so many lines; `None` for all.
    pub(crate) tail: Option<usize>,
}

/// A container's output, ready to be told.
pub(crate) struct Logs {
    files: Files,
    status: watch::Receiver<Status>,
    options: LogOptions,
    /// Bytes as they are, without Docker's stream headers: of a container with a terminal.
    raw: bool,
}

impl Containers {
    /// A container's output.
    pub(crate) fn logs(&self, handle: &Handle, options: LogOptions) -> Result<Logs, ApiError> {
        if matches!(handle.state(), State::Removing(_) | State::Removed) {
            return Err(ApiError::conflict(
                "can not get logs from container which is dead or marked for removal",
            ));
        }
        let definition = handle.definition();
        let Some(format) = driver::format(&definition.host_config.log_config.kind) else {
            return Err(ApiError::not_implemented("configured logging driver does not support reading"));
        };
        let newest = driver::path(&self.directory(&handle.id), &handle.id, format);
        let files = Files { newest, format };
        Ok(Logs { files, status: handle.watch(), options, raw: definition.config.tty })
    }
}

impl Logs {
    /// Sends all of it; returns when that is done or nobody listens any more.
    pub(crate) async fn send(self, to: mpsc::Sender<Bytes>) {
        let path = self.files.newest.clone();
        if let Err(error) = self.copy(&to).await {
            warn!(%error, path = %path.display(), "could not read a log");
        }
    }

    async fn copy(mut self, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
        let running = |status: &Status| status.state.running().is_some();
        let mut follow = self.options.follow && running(&self.status.borrow());
        // Before the files are read: what is written after that is told of.
        let changes = if follow { Changes::beside(&self.files.newest).ok() } else { None };
        let tail = self.options.tail;
        let mut readers = self.blocking(move |files| files.open(tail)).await?;
        if !follow && let Some(newest) = readers.back_mut() {
            // Otherwise the log of a container that writes without end would never end.
            newest.end_here()?;
        }
        let Some(mut reader) = readers.pop_front() else { return Ok(()) };
        loop {
            // Asked before reading to the end: what was written before the container ended is then read.
            let last_round = !follow || !running(&self.status.borrow());
            loop {
                while let Some(entries) = reader.next()? {
                    let mut out = Vec::with_capacity(entries.len());
                    let done = self.tell(&entries, &mut out);
                    if !out.is_empty() && to.send(out.into()).await.is_err() {
                        return Ok(());
                    }
                    if done {
                        return Ok(());
                    }
                }
                if !self.go_on(&mut reader, &mut readers, follow).await? {
                    break;
                }
            }
            if last_round {
                return Ok(());
            }
            let Some(changes) = &changes else { return Ok(()) };
            tokio::select! {
                changed = changes.next() => changed?,
                // An error is the end of the container's task: there will be no more.
                ended = self.status.wait_for(|status| !running(status)) => follow &= ended.is_ok(),
                () = to.closed() => return Ok(()),
                () = passed(self.options.until) => return Ok(()),
            }
        }
    }

    /// At a file's end: whether there is more to read, in the same or another.
    async fn go_on(
        &self,
        reader: &mut Reader,
        readers: &mut VecDeque<Reader>,
        follow: bool,
    ) -> io::Result<bool> {
        if let Some(next) = readers.pop_front() {
            *reader = next;
            return Ok(true);
        }
        if !follow {
            return Ok(false);
        }
        if !reader.is_left {
            // What was written to it before the shim left it is read first.
            reader.is_left = self.files.newest_inode()?.is_some_and(|inode| inode != reader.inode);
            return Ok(reader.is_left);
        }
        let inode = reader.inode;
        *readers = self.blocking(move |files| files.newer_than(inode)).await?;
        match readers.pop_front() {
            Some(next) => {
                *reader = next;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Does on a thread for it what may take long: listing files, unpacking them.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Files) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || work(files)).await.map_err(io::Error::other)?
    }

    /// Tells entries as they were asked for; whether the rest is later than that.
    fn tell(&self, mut entries: &[u8], out: &mut Vec<u8>) -> bool {
        let (format, options) = (self.files.format, &self.options);
        while let Some((entry, rest)) = format::first(format, entries) {
            entries = rest;
            let Some(line) = format::parse(format, entry) else { continue };
            if options.until.is_some_and(|until| line.time > until) {
                return true;
            }
            let wanted = if line.is_stderr { options.stderr } else { options.stdout };
            if wanted && options.since.is_none_or(|since| line.time >= since) {
                line.write(out, options, self.raw);
            }
        }
        false
    }
}

async fn passed(until: Option<Timestamp>) {
    match until {
        Some(until) => tokio::time::sleep(Timestamp::now().until(until)).await,
        None => std::future::pending().await,
    }
}

/// Tells when something beside a file was written or renamed.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn beside(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, path.parent().unwrap_or(path), what)?;
        Ok(Self(watched(fd)?))
    }

    async fn next(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        self.0.async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut events)?)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::super::state::Created;
    use super::super::testing;
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

    fn json(path: &Path) -> Files {
        Files { newest: path.to_owned(), format: caisson_shim::LogFormat::Json }
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
        let status = testing::status(State::Created(Created::default()), 0, 0);
        let (_sender, status) = watch::channel(status);
        let (to, chunks) = mpsc::channel(16);
        Logs { files: json(file), status, options, raw: true }.send(to).await;
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
        let (sender, status) = watch::channel(testing::status(testing::running(1), 0, 0));
        let (to, mut chunks) = mpsc::channel(16);
        let logs =
            Logs { files: json(&path), status, options: LogOptions { follow: true, ..options() }, raw: true };
        let telling = tokio::spawn(logs.send(to));
        assert_eq!(chunks.recv().await.unwrap(), "a\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        let written = line("b", 2);
        let (first, second) = written.split_at(10);
        file.write_all(first.as_bytes()).unwrap();
        file.write_all(second.as_bytes()).unwrap();
        assert_eq!(chunks.recv().await.unwrap(), "b\n");
        file.write_all(line("c", 3).as_bytes()).unwrap();
        sender.send_replace(testing::status(testing::exited(0), 1, 0));
        assert_eq!(collect(chunks).await, "c\n");
        telling.await.unwrap();
    }

    /// However far the follower is behind: what it has open it reads to the end, then all that came after.
    #[tokio::test]
    async fn a_follower_goes_on_through_rotations() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let numbered = |number: u32| directory.path().join(format!("log.{number}"));
        std::fs::write(&path, line("a", 1)).unwrap();
        let (sender, status) = watch::channel(testing::status(testing::running(1), 0, 0));
        let (to, mut chunks) = mpsc::channel(1);
        let logs =
            Logs { files: json(&path), status, options: LogOptions { follow: true, ..options() }, raw: true };
        let telling = tokio::spawn(logs.send(to));
        assert_eq!(chunks.recv().await.unwrap(), "a\n");
        File::options().append(true).open(&path).unwrap().write_all(line("b", 2).as_bytes()).unwrap();
        for (text, second) in [("c", 3), ("d", 4), ("e", 5)] {
            for number in [2, 1] {
                let _ = std::fs::rename(numbered(number), numbered(number + 1));
            }
            std::fs::rename(&path, numbered(1)).unwrap();
            std::fs::write(&path, line(text, second)).unwrap();
        }
        let mut seen = String::new();
        while seen != "b\nc\nd\ne\n" {
            seen.push_str(std::str::from_utf8(&chunks.recv().await.expect("it goes on")).unwrap());
        }
        drop(sender);
        telling.await.unwrap();
    }
}
