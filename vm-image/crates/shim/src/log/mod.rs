//! The container's log, as dockerd's `json-file` and `local` drivers write it: `daemon/logger/copier.go` cuts the lines (here
//! [`Lines`]), a format makes entries of them ([`json`], [`local`]), and a file takes them and is rotated ([`file`]): at once, so that the
//! container waits for it, or by way of a buffer of limited size ([`ring`]).
//!
//! The log has to keep up with the container and may cost little memory: entries gather in one buffer, which is written when a chunk of
//! output is done or [`BATCH`] is reached.

mod compress;
mod file;
mod json;
mod local;
mod ring;
mod torn;
mod unread;
mod writer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use caisson_shim::proto::UnixNanos;
use caisson_shim::{LogFile, LogFormat, LogTarget};
use caisson_sys::spawn::{Detached, detached};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use self::file::Rotated;
use self::ring::Ring;
use crate::time::now;

pub(crate) use self::compress::{COMMAND as COMPRESS, compress};
pub(crate) use self::writer::{COMMAND as WRITE, write};

/// A line that is longer comes in parts of this many bytes.
const LONGEST_PART: usize = 16 << 10;

/// How many bytes of entries are written at once, or a little more.
const BATCH: usize = 32 << 10;

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    to: To,
    entries: Entries,
}

/// Where entries go.
#[derive(Debug)]
enum To {
    File(Rotated),
    Ring(Ring),
}

/// What of a log a wait was about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About {
    /// An older file has been compressed.
    Compressor,
    /// The writer takes more.
    Room,
    /// The writer has ended.
    Writer,
}

/// Makes entries of a format.
#[derive(Debug)]
enum Entries {
    Json(json::Entries),
    Local(local::Entries),
}

/// A line, or a part of one.
#[derive(Debug)]
struct Entry<'a> {
    /// Without the line feed.
    text: &'a [u8],
    /// Whether there was a line feed.
    ends: bool,
    stream: &'static str,
    time: UnixNanos,
    part: Option<Part>,
}

/// Which part of a line that comes in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// When the first part was written; all have this time.
    since: UnixNanos,
    /// 1 for the first.
    ordinal: u32,
}

impl Log {
    /// Opens what the engine asks for; `None` if it asks for none.
    pub(crate) fn open(target: &LogTarget) -> io::Result<Option<Self>> {
        match target {
            LogTarget::None => Ok(None),
            LogTarget::File(what) => Ok(Some(Self::of(what)?)),
        }
    }

    fn of(what: &LogFile) -> io::Result<Self> {
        let entries = Entries::new(what.format, &what.attributes);
        let file = Rotated::open(what)?;
        let to = match what.buffer {
            None => To::File(file),
            // The writer opens it anew; that it can is known now.
            Some(room) => To::Ring(Ring::open(what, room)?),
        };
        Ok(Self { to, entries })
    }

    /// What to watch, and for what.
    pub(crate) fn interests<'a>(&'a self, mut watch: impl FnMut(About, PollFd<'a>)) {
        match &self.to {
            To::File(file) => {
                if let Some(compressor) = file.compressor() {
                    watch(About::Compressor, PollFd::from_borrowed_fd(compressor, PollFlags::IN));
                }
            }
            To::Ring(ring) => ring.interests(watch),
        }
    }

    /// Does what a wait was about.
    pub(crate) fn attend(&mut self, about: About) {
        match (about, &mut self.to) {
            (About::Compressor, To::File(file)) => file.compressed(),
            (About::Room, To::Ring(ring)) => ring.flush(),
            (About::Writer, To::Ring(ring)) => ring.writer_ended(),
            (About::Compressor, To::Ring(_)) | (About::Room | About::Writer, To::File(_)) => {}
        }
    }

    /// No more will come.
    pub(crate) fn end(&mut self) {
        match &mut self.to {
            To::File(_) => {}
            To::Ring(ring) => ring.end(),
        }
    }

    /// What is not in the file by now is lost.
    pub(crate) fn give_up(&mut self) {
        match &mut self.to {
            To::File(_) => {}
            To::Ring(ring) => ring.give_up(),
        }
    }

    /// Whether all that came is in the file.
    pub(crate) fn is_written(&self) -> bool {
        match &self.to {
            To::File(_) => true,
            To::Ring(ring) => ring.is_written(),
        }
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let write = |into: &mut Vec<u8>| self.entries.write(entry, into);
        match &mut self.to {
            To::File(file) => file.take(write),
            To::Ring(ring) => ring.take(write),
        }
    }

    fn flush(&mut self) {
        match &mut self.to {
            To::File(file) => file.flush(),
            To::Ring(ring) => ring.flush(),
        }
    }
}

/// Starts this same program for a part of the log's work, with something to read.
fn helper(arguments: &[&OsStr], stdin: BorrowedFd<'_>) -> io::Result<Pid> {
    let null = File::options().write(true).open("/dev/null")?;
    let stderr = io::stderr();
    detached(&Detached {
        program: Path::new("/proc/self/exe"),
        arguments,
        descriptors: &[(stdin, 0), (null.as_fd(), 1), (stderr.as_fd(), 2)],
    })
}

impl Entries {
    fn new(format: LogFormat, attributes: &BTreeMap<String, String>) -> Self {
        match format {
            LogFormat::Json => Self::Json(json::Entries::new(attributes)),
            LogFormat::Local => Self::Local(local::Entries::new(attributes)),
        }
    }

    fn write(&mut self, entry: &Entry<'_>, into: &mut Vec<u8>) {
        match self {
            Self::Json(entries) => entries.write(entry, into),
            Self::Local(entries) => entries.write(entry, into),
        }
    }
}

/// One stream's way into the log: collects bytes until they are a line.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: &'static str,
    line: Vec<u8>,
    /// The part before, of a line that comes in parts.
    part: Option<Part>,
}

impl Lines {
    /// `stream` is `stdout` or `stderr`.
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, line: Vec::new(), part: None }
    }

    /// Takes output as it comes.
    pub(crate) fn write(&mut self, bytes: &[u8], to: &mut Log) {
        self.cut(bytes, now(), |entry| to.take(&entry));
        to.flush();
    }

    /// The stream has ended, perhaps within a line.
    pub(crate) fn finish(&mut self, to: &mut Log) {
        if self.line.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.line);
        to.take(&self.next_part(&line, now()));
        to.flush();
    }

    fn cut(&mut self, mut bytes: &[u8], now: UnixNanos, mut give: impl FnMut(Entry<'_>)) {
        while !bytes.is_empty() {
            let room = LONGEST_PART - self.line.len();
            let here = &bytes[..room.min(bytes.len())];
            let end = here.iter().position(|byte| *byte == b'\n');
            let text = &here[..end.unwrap_or(here.len())];
            bytes = &bytes[text.len() + usize::from(end.is_some())..];
            let full = self.line.len() + text.len() == LONGEST_PART;
            if end.is_none() && !full {
                self.line.extend_from_slice(text);
                return;
            }
            // A line that came whole is not copied.
            let mut line = std::mem::take(&mut self.line);
            let whole = if line.is_empty() {
                text
            } else {
                line.extend_from_slice(text);
                &line
            };
            give(if end.is_some() { self.last_part(whole, now) } else { self.next_part(whole, now) });
            line.clear();
            self.line = line;
        }
    }

    fn last_part<'a>(&mut self, text: &'a [u8], now: UnixNanos) -> Entry<'a> {
        let part = self.part.take().map(|before| Part { ordinal: before.ordinal + 1, ..before });
        let time = part.map_or(now, |part| part.since);
        Entry { text, ends: true, stream: self.stream, time, part }
    }

    fn next_part<'a>(&mut self, text: &'a [u8], now: UnixNanos) -> Entry<'a> {
        let part = match self.part {
            Some(before) => Part { ordinal: before.ordinal + 1, ..before },
            None => Part { since: now, ordinal: 1 },
        };
        self.part = Some(part);
        Entry { text, ends: false, stream: self.stream, time: part.since, part: Some(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Entries as text: the line, `$` if it ended, its second, its part.
    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new("stdout");
        let mut all = Vec::new();
        let told = |entry: Entry<'_>| {
            let text = match entry.text.len() {
                short @ ..20 => String::from_utf8_lossy(&entry.text[..short]).into_owned(),
                long => format!("{long} bytes"),
            };
            let end = if entry.ends { "$" } else { "" };
            let part = entry.part.map(|part| format!(" part {}", part.ordinal)).unwrap_or_default();
            format!("{text}{end} at {}{part}", entry.time.0 / SECOND)
        };
        for (index, piece) in pieces.iter().enumerate() {
            lines.cut(piece, UnixNanos(SECOND * (index as u64 + 1)), |entry| all.push(told(entry)));
        }
        if !lines.line.is_empty() {
            let line = std::mem::take(&mut lines.line);
            all.push(told(lines.next_part(&line, UnixNanos(0))));
        }
        all
    }

    #[test]
    fn lines_are_entries_however_they_come() {
        assert_eq!(cut(&[b"one\ntwo\n\n"]), ["one$ at 1", "two$ at 1", "$ at 1"]);
        assert_eq!(cut(&[b"o", b"ne\n"]), ["one$ at 2"]);
        assert_eq!(cut(&[b"no end"]), ["no end at 0 part 1"]);
    }

    #[test]
    fn a_long_line_comes_in_parts_of_one_time() {
        let long = vec![b'x'; LONGEST_PART + 3];
        assert_eq!(cut(&[&long, b"\n"]), ["16384 bytes at 1 part 1", "xxx$ at 1 part 2"]);
        let exact = vec![b'x'; LONGEST_PART];
        assert_eq!(cut(&[&exact, b"\nnext\n"]), ["16384 bytes at 1 part 1", "$ at 1 part 2", "next$ at 2"]);
    }
}
