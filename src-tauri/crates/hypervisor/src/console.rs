//! The log of a guest's console: what every backend does with it, whoever writes it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::LaunchError;

/// The most that the log of a boot holds: a boot says some 100 KiB, and a guest may say anything for as long as it likes.
const LOG_BYTES: u64 = 16 << 20;

/// Begins the log of a boot, at `log`; that of the boot before is kept beside it, with `.1` at the end.
pub fn begin(log: &Path) -> Result<BoundedLog, LaunchError> {
    BoundedLog::begin(log, LOG_BYTES).map_err(|source| LaunchError::File {
        action: "start the console log",
        path: log.to_owned(),
        source,
    })
}

fn rotate(log: &Path) -> io::Result<File> {
    let mut before = OsString::from(log);
    before.push(".1");
    match fs::rename(log, before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::create(log)
}

/// A log that no writer can fill the disk with: once it has `limit` bytes it goes aside, as `FILE.1`, and a new one begins.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    room: u64,
    limit: u64,
}

impl BoundedLog {
    /// Begins the log at `path`. The one before goes aside.
    pub fn begin(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: rotate(path)?, room: limit, limit })
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            self.file = rotate(&self.path)?;
            self.room = self.limit;
        }
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.room -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_begins_empty_and_the_one_before_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("console.log");
        begin(&log).expect("there was none before");
        fs::write(&log, "first boot").expect("it can be written");
        begin(&log).expect("the first goes aside");
        assert_eq!(fs::read(&log).expect("it is there"), b"");
        let before = fs::read(dir.path().join("console.log.1")).expect("it is kept");
        assert_eq!(before, b"first boot");
    }

    #[test]
    fn a_log_that_cannot_begin_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = begin(&dir.path().join("no/console.log")).expect_err("its folder is absent");
        assert!(error.to_string().ends_with("console.log"), "{error}");
    }

    #[test]
    fn a_log_takes_twice_its_limit_of_room_at_most_and_keeps_the_end() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("console.log");
        let mut log = BoundedLog::begin(&path, 8).expect("it begins");
        log.write_all(b"0123456789abcdefghij").expect("it can be written");
        assert_eq!(fs::read(&path).expect("it is there"), b"ghij");
        assert_eq!(fs::read(dir.path().join("console.log.1")).expect("it is kept"), b"89abcdef");
    }
}
