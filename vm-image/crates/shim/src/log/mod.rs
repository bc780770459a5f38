//! The container's log, as dockerd's `json-file` and `local` drivers write it: `daemon/logger/copier.go` cuts the lines (here
//! [`Lines`]), a format makes entries of them ([`json`], [`local`]), and a file takes them and is rotated ([`file`]).
//!
//! The log has to keep up with the container and may cost little memory: entries gather in one buffer, which is written when a chunk of
//! output is done or [`BATCH`] is reached.

mod compress;
mod file;
mod json;
mod local;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use caisson_shim::proto::UnixNanos;
use caisson_shim::{LogFile, LogFormat, LogTarget};

use self::file::Rotated;
use crate::time::now;

pub(crate) use self::compress::{COMMAND, compress};

/// A line that is longer comes in parts of this many bytes.
const LONGEST_PART: usize = 16 << 10;

/// How many bytes of entries are written at once, or a little more.
const BATCH: usize = 32 << 10;

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    file: Rotated,
    entries: Entries,
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
        Ok(Self { file: Rotated::open(what)?, entries: Entries::new(what.format, &what.attributes) })
    }

    /// Readable when an older file has been compressed; `None` if none is.
    pub(crate) fn compressor(&self) -> Option<BorrowedFd<'_>> {
        self.file.compressor()
    }

    /// An older file has been compressed.
    pub(crate) fn compressed(&mut self) {
        self.file.compressed();
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let begin = self.file.buffer().len();
        match &mut self.entries {
            Entries::Json(entries) => entries.write(entry, self.file.buffer()),
            Entries::Local(entries) => entries.write(entry, self.file.buffer()),
        }
        self.file.entry_added(begin);
        if self.file.buffer().len() >= BATCH {
            self.file.flush();
        }
    }
}

impl Entries {
    fn new(format: LogFormat, attributes: &BTreeMap<String, String>) -> Self {
        match format {
            LogFormat::Json => Self::Json(json::Entries::new(attributes)),
            LogFormat::Local => Self::Local(local::Entries::new(attributes)),
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
        to.file.flush();
    }

    /// The stream has ended, perhaps within a line.
    pub(crate) fn finish(&mut self, to: &mut Log) {
        if self.line.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.line);
        to.take(&self.next_part(&line, now()));
        to.file.flush();
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
