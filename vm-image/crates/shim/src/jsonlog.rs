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
pub(crate) struct LogFile {
    file: File,
    /// The last write failed, and this has been said.
    failing: bool,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Self { file, failing: false })
    }

    /// Writes all or nothing, so that the file never has half an entry. A full disk must not stop the container; the shim says once that
    /// entries are lost, as long as they are.
    fn append(&mut self, entries: &[u8]) {
        let result = self.try_append(entries);
        if let Err(error) = &result
            && !self.failing
        {
            eprintln!("write the log: {error}; entries are lost");
        }
        self.failing = result.is_err();
    }

    fn try_append(&mut self, entries: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < entries.len() {
            match self.file.write(&entries[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let length = self.file.metadata()?.len();
                    self.file.set_len(length.saturating_sub(written as u64))?;
                    return Err(error);
                }
            }
        }
        Ok(())
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
    pub(crate) fn write(&mut self, bytes: &[u8], to: &mut LogFile) {
        let mut written = Vec::new();
        self.collect(bytes, now(), &mut written);
        to.append(&written);
    }

    /// The stream has ended, perhaps within a line.
    pub(crate) fn finish(&mut self, to: &mut LogFile) {
        if self.line.is_empty() {
            return;
        }
        let mut written = Vec::new();
        self.emit_part(now(), &mut written);
        to.append(&written);
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

    /// In a mount namespace of the thread's own, which ends with it.
    #[test]
    fn a_full_disk_costs_whole_entries() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root, for a small file system");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_owned();
        let fill = move || {
            use rustix::mount::{MountFlags, MountPropagationFlags as Flags, mount, mount_change};
            caisson_sys::clone::unshare(libc::CLONE_NEWNS).unwrap();
            mount_change("/", Flags::PRIVATE | Flags::REC).unwrap();
            mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(c"size=8k")).unwrap();
            let mut file = LogFile::open(&path.join("log")).unwrap();
            let mut log = LineLog::new("stdout");
            for _ in 0..300 {
                log.write(b"a line that is not short\nand another\n", &mut file);
            }
            assert!(file.failing);
            std::fs::read_to_string(path.join("log")).unwrap()
        };
        let text = std::thread::spawn(fill).join().unwrap();
        assert!(text.len() > 7000 && text.ends_with("}\n"), "{} bytes", text.len());
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn bytes_are_escaped_as_dockerd_does() {
        let odd = b"\"\\\r\t\x1b<&>\xff\xe2\x82 \xe2\x82\xac \xe2\x80\xa8\n";
        let expected = "\\\"\\\\\\r\\u0009\\u001b\\u003c\\u0026\\u003e\\ufffd\\ufffd\\ufffd € \\u2028\\n";
        assert_eq!(log(&[odd]), line(expected, AT));
    }
}
