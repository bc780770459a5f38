//! dockerd's `json-file` log, byte for byte: `daemon/logger/copier.go` cuts the lines, `jsonfilelog/jsonlog` writes them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use caisson_shim::proto::UnixNanos;

use crate::time::{now, rfc3339};

/// A line that is longer comes in parts of this many bytes.
const LONGEST_PART: usize = 16 << 10;

/// The open log file.
#[derive(Debug)]
pub(crate) struct LogFile(File);

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?))
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.write_all(lines)
    }
}

/// The log of one stream: collects bytes until they are a line.
#[derive(Debug)]
pub(crate) struct LineLog {
    stream: &'static str,
    line: Vec<u8>,
    /// When the first part of a line that comes in parts was written; all its parts have this time.
    parts_since: Option<UnixNanos>,
}

impl LineLog {
    /// `stream` is `stdout` or `stderr`.
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, line: Vec::new(), parts_since: None }
    }

    /// Takes output as it comes.
    pub(crate) fn write(&mut self, bytes: &[u8], to: &mut LogFile) -> io::Result<()> {
        let mut written = Vec::new();
        self.collect(bytes, now(), &mut written);
        if written.is_empty() { Ok(()) } else { to.append(&written) }
    }

    /// The stream has ended, perhaps within a line.
    pub(crate) fn finish(&mut self, to: &mut LogFile) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        let mut written = Vec::new();
        self.emit_part(now(), &mut written);
        to.append(&written)
    }

    fn collect(&mut self, mut bytes: &[u8], now: UnixNanos, written: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LONGEST_PART - self.line.len();
            let here = &bytes[..room.min(bytes.len())];
            match here.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.line.extend_from_slice(&here[..=end]);
                    let time = self.parts_since.take().unwrap_or(now);
                    entry(&self.line, self.stream, time, written);
                    self.line.clear();
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.line.extend_from_slice(here);
                    if self.line.len() == LONGEST_PART {
                        self.emit_part(now, written);
                    }
                    bytes = &bytes[here.len()..];
                }
            }
        }
    }

    fn emit_part(&mut self, now: UnixNanos, written: &mut Vec<u8>) {
        let time = *self.parts_since.get_or_insert(now);
        entry(&self.line, self.stream, time, written);
        self.line.clear();
    }
}

fn entry(text: &[u8], stream: &str, time: UnixNanos, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"log\":\"");
    escape(text, into);
    into.extend_from_slice(
        format!("\",\"stream\":\"{stream}\",\"time\":\"{}\"}}\n", rfc3339(time)).as_bytes(),
    );
}

/// As Go's JSON does for HTML's sake, with each byte that is not UTF-8 as U+FFFD.
fn escape(text: &[u8], into: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => into.extend([b'\\', character as u8]),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    into.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
                }
                plain => into.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "1970-01-01T00:00:01Z";

    fn log(pieces: &[&[u8]]) -> String {
        let mut log = LineLog::new("stdout");
        let mut written = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            log.collect(piece, UnixNanos(1_000_000_000 + 1_000_000_000 * index as u64), &mut written);
        }
        if !log.line.is_empty() {
            log.emit_part(UnixNanos(0), &mut written);
        }
        String::from_utf8(written).unwrap()
    }

    fn line(text: &str, time: &str) -> String {
        format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
    }

    #[test]
    fn lines_are_entries_however_they_come() {
        assert_eq!(log(&[b"one\ntwo\n\n"]), line("one\\n", AT) + &line("two\\n", AT) + &line("\\n", AT));
        assert_eq!(log(&[b"o", b"ne\n"]), line("one\\n", "1970-01-01T00:00:02Z"));
        assert_eq!(log(&[b"no end"]), line("no end", "1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_long_line_comes_in_parts_of_one_time() {
        let long = vec![b'x'; LONGEST_PART + 3];
        let expected = line(&"x".repeat(LONGEST_PART), AT) + &line("xxx\\n", AT);
        assert_eq!(log(&[&long, b"\n"]), expected);
        let exact = vec![b'x'; LONGEST_PART];
        assert_eq!(log(&[&exact, b"\n"]), line(&"x".repeat(LONGEST_PART), AT) + &line("\\n", AT));
    }

    #[test]
    fn bytes_are_escaped_as_dockerd_does() {
        let odd = b"\"\\\r\t\x1b<&>\xff\xe2\x82 \xe2\x82\xac \xe2\x80\xa8\n";
        let expected = "\\\"\\\\\\r\\u0009\\u001b\\u003c\\u0026\\u003e\\ufffd\\ufffd\\ufffd € \\u2028\\n";
        assert_eq!(log(&[odd]), line(expected, AT));
    }
}
