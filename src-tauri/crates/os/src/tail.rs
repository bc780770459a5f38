//! The end of a log file, and what is added to it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// As much of a file as is looked at for its last lines.
const LOOK_BACK_BYTES: u64 = 1 << 20;

/// The last `lines` lines of the file, but no more than its last MiB. A file that is not there is empty.
pub fn tail_lines(path: &Path, lines: usize) -> io::Result<String> {
    Follow::from_tail(path, lines).map(|(text, _)| text)
}

/// A place in a log file that grows, and that may be replaced by a new one under the same name.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    position: u64,
}

impl Follow {
    /// The last `lines` lines, and the place after them.
    pub fn from_tail(path: &Path, lines: usize) -> io::Result<(String, Self)> {
        let mut follow = Self { path: path.to_owned(), position: 0 };
        let size = follow.size()?;
        follow.position = size.saturating_sub(LOOK_BACK_BYTES);
        let text = follow.more()?;
        Ok((last_lines(&text, lines).to_owned(), follow))
    }

    /// What was added since; all of it if the file was begun anew.
    pub fn more(&mut self) -> io::Result<String> {
        let size = self.size()?;
        if size < self.position {
            self.position = 0;
        }
        if size == self.position {
            return Ok(String::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::new();
        file.take(LOOK_BACK_BYTES).read_to_end(&mut bytes)?;
        bytes.truncate(bytes.len() - begun_character(&bytes));
        self.position += bytes.len() as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn size(&self) -> io::Result<u64> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes at the end are the beginning of a character whose rest is still to be written or read.
fn begun_character(bytes: &[u8]) -> usize {
    let end = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(end) {
        Err(error) if error.error_len().is_none() => end.len(),
        Ok(_) | Err(_) => 0,
    }
}

fn last_lines(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    match lines.checked_sub(1) {
        None => "",
        Some(before) => body.rmatch_indices('\n').nth(before).map_or(text, |(at, _)| &text[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_counted_with_and_without_an_end_of_line() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\n", 5, "a\n"),
            ("", 3, ""),
            ("a\nb\n", 0, ""),
        ] {
            assert_eq!(last_lines(text, lines), expected, "{lines} of {text:?}");
        }
    }

    #[test]
    fn what_is_added_is_seen_and_a_new_file_is_read_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (text, mut follow) = Follow::from_tail(&path, 10).unwrap();
        assert_eq!(text, "");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(follow.more().unwrap(), "one\ntwo\n");
        assert_eq!(follow.more().unwrap(), "");
        file.write_all(&"글".as_bytes()[..2]).unwrap();
        assert_eq!(follow.more().unwrap(), "", "half a character waits for the rest");
        file.write_all(&"글".as_bytes()[2..]).unwrap();
        assert_eq!(follow.more().unwrap(), "글");
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(follow.more().unwrap(), "new\n");
    }
}
