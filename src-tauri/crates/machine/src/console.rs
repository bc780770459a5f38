//! The end of the guest's console, for people who want to know why it did not boot.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How many lines are shown.
const LINES: usize = 30;
/// How much of the file is read for them.
const BYTES: u64 = 16 << 10;

/// The last lines of the console, oldest first; none if it cannot be read.
pub(crate) fn tail(log: &Path) -> Vec<String> {
    let text = last_bytes(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

fn last_bytes(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The line without what steers a terminal: the firmware clears its screen, and a guest may print anything.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // A control sequence ends with a letter or another character from @ to ~ (ECMA-48, 5.4).
            while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
        } else if !c.is_control() || c == '\t' {
            plain.push(c);
        }
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(text: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        std::fs::write(&log, text).unwrap();
        tail(&log)
    }

    #[test]
    fn the_last_lines_without_what_steers_a_terminal() {
        assert_eq!(
            tail_of(b"\x1bc\x1b[?7l\x1b[2JSeaBIOS\r\n\r\n[0.0] \x1b[1;31mpanic\x1b[0m\x07\r\n"),
            ["cSeaBIOS", "[0.0] panic"]
        );
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let tail = tail_of(many.as_bytes());
        assert_eq!((tail.len(), tail[0].as_str()), (LINES, "line 70"));
    }

    #[test]
    fn bytes_that_are_no_text_and_a_log_that_is_not_there_do_no_harm() {
        assert_eq!(tail_of(b"\xff\xfeok\n"), ["\u{fffd}\u{fffd}ok"]);
        assert_eq!(tail_of(&vec![b'x'; 100_000]).len(), 1);
        assert!(tail(Path::new("/nowhere")).is_empty());
    }
}
