//! A log on disk, rotated as dockerd does: `log` is the newest, then `log.1`, `log.2` and so on, `.gz` behind those that are compressed.
//!
//! An entry is never torn: neither by a full disk nor by a rotation. Every rotation begins a new file, also where only one is kept, so
//! that a reader that has the old one open reads it to its end and goes on with the new one. Names move under the folder's lock
//! (`flock(2)`), so that a reader who shares it sees each file under one name.
//!
//! One file at a time is compressed, while the log goes on; those that became old meanwhile wait under their names as they are.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caisson_shim::LogFile;

use super::compress::Compressor;
use super::{BATCH, torn};

/// How much room the buffer keeps when it is empty.
const KEPT: usize = 64 << 10;

/// The open file and what is on its way into it.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    /// The file's length.
    length: u64,
    /// How long it may become: the entry that reaches it is its last.
    longest: Option<u64>,
    /// How many files are kept, this one included.
    files: u32,
    compresses: bool,
    compressor: Compressor,
    buffer: Vec<u8>,
    writes: Trouble,
    rotations: Trouble,
}

/// Whether something goes wrong. It is said when that begins, not each time: a container may write for years.
#[derive(Debug, Default)]
struct Trouble {
    lasts: bool,
}

impl Trouble {
    /// Takes note of how it went this time; the error if there was none before.
    fn begins(&mut self, result: io::Result<()>) -> Option<io::Error> {
        let lasted = std::mem::replace(&mut self.lasts, result.is_err());
        result.err().filter(|_| !lasted)
    }
}

impl Rotated {
    pub(super) fn open(what: &LogFile) -> io::Result<Self> {
        if let Some(parent) = what.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = create(&what.path)?;
        if let Err(error) = torn::complete(&mut file, what.format) {
            eprintln!("complete the last entry of the log: {error}");
        }
        let length = file.metadata()?.len();
        Ok(Self {
            path: what.path.clone(),
            file,
            length,
            longest: what.max_bytes,
            files: what.max_files.max(1),
            compresses: what.compress,
            compressor: Compressor::default(),
            buffer: Vec::new(),
            writes: Trouble::default(),
            rotations: Trouble::default(),
        })
    }

    /// Takes an entry, which `write` adds to the buffer. It is written with others, at the latest by [`flush`](Self::flush).
    pub(super) fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.buffer.len();
        write(&mut self.buffer);
        self.entry_added(begin);
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// An entry has been added to the buffer, from there on. If the file was full before it, it begins the next file.
    fn entry_added(&mut self, begin: usize) {
        let full = self.longest.is_some_and(|longest| self.length + begin as u64 >= longest);
        if !full || self.length + begin as u64 == 0 {
            return;
        }
        let entry = self.buffer.split_off(begin);
        self.flush();
        let rotated = self.rotate();
        if let Some(error) = self.rotations.begins(rotated) {
            eprintln!("rotate the log: {error}; it grows");
        }
        self.buffer = entry;
    }

    /// Writes all or nothing, so that the file never has half an entry. A full disk must not stop the container.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.try_flush();
        if let Some(error) = self.writes.begins(written) {
            eprintln!("write the log: {error}; entries are lost");
        }
        self.buffer.clear();
        // One long entry must not cost its memory for good.
        self.buffer.shrink_to(KEPT);
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.buffer.len() {
            match self.file.write(&self.buffer[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let length = self.file.metadata()?.len();
                    self.file.set_len(length.saturating_sub(written as u64))?;
                    return Err(error);
                }
            }
        }
        self.length += written as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let folder = File::open(self.path.parent().unwrap_or(Path::new(".")))?;
        folder.lock()?;
        if self.files == 1 {
            remove(&self.path)?;
        } else {
            self.move_up()?;
        }
        self.file = create(&self.path)?;
        self.length = self.file.metadata()?.len();
        drop(folder);
        if self.compresses {
            self.compress_next();
        }
        Ok(())
    }

    /// Readable when the file that is being compressed has been; `None` if there is none.
    pub(super) fn compressor(&self) -> Option<BorrowedFd<'_>> {
        self.compressor.descriptor()
    }

    /// A file has been compressed. After one that could not be, the others wait for the next rotation.
    pub(super) fn compressed(&mut self) {
        if self.compressor.ended() {
            self.compress_next();
        }
    }

    /// Compresses the newest of the older files that is not yet, unless another one is being compressed.
    fn compress_next(&mut self) {
        if self.compressor.descriptor().is_some() {
            return;
        }
        let mut older = (1..self.files).map(|number| numbered(&self.path, number, ""));
        if let Some(file) = older.find(|file| file.exists()) {
            self.compressor.begin(&file, &self.path);
        }
    }

    /// Each older file becomes one older, the oldest goes.
    fn move_up(&self) -> io::Result<()> {
        for ending in ["", ".gz"] {
            remove(&numbered(&self.path, self.files - 1, ending))?;
        }
        for number in (1..self.files - 1).rev() {
            for ending in ["", ".gz"] {
                rename(&numbered(&self.path, number, ending), &numbered(&self.path, number + 1, ending))?;
            }
        }
        rename(&self.path, &numbered(&self.path, 1, ""))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{ending}"));
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    absent_is_fine(fs::rename(from, to))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use caisson_shim::LogFormat;
    use caisson_sys::spawn::{Detached, detached};
    use rustix::process::{Signal, kill_process};

    use super::super::{Lines, Log, To};
    use super::*;

    fn what(path: PathBuf, max_bytes: Option<u64>, max_files: u32) -> LogFile {
        let (compress, buffer, attributes) = (false, None, Default::default());
        LogFile { path, format: LogFormat::Json, max_bytes, max_files, compress, buffer, attributes }
    }

    fn file_of(log: &mut Log) -> &mut Rotated {
        match &mut log.to {
            To::File(file) => file,
            To::Ring(_) => panic!("nobody asked for a ring"),
        }
    }

    fn texts(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let log = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
        };
        text.lines().map(log).collect()
    }

    #[test]
    fn full_files_move_up_and_the_oldest_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("below/log");
        // An entry takes about 70 bytes: two fit.
        let mut log = Log::of(&what(path.clone(), Some(100), 3)).unwrap();
        Lines::new("stdout").write(b"1\n2\n3\n4\n5\n6\n7\n", &mut log);
        assert_eq!(texts(&path), ["7\n"]);
        assert_eq!(texts(&numbered(&path, 1, "")), ["5\n", "6\n"]);
        assert_eq!(texts(&numbered(&path, 2, "")), ["3\n", "4\n"]);
        assert!(!numbered(&path, 3, "").exists());
        drop(log);
        let mut log = Log::of(&what(path.clone(), Some(100), 3)).unwrap();
        Lines::new("stdout").write(b"8\n9\n", &mut log);
        assert_eq!(
            (texts(&path), texts(&numbered(&path, 1, ""))),
            (vec!["9\n".into()], vec!["7\n".into(), "8\n".into()])
        );
    }

    #[test]
    fn trouble_is_told_when_it_begins() {
        let mut trouble = Trouble::default();
        let failure = || Err(io::ErrorKind::StorageFull.into());
        let told: Vec<bool> = [failure(), failure(), Ok(()), Ok(()), failure()]
            .into_iter()
            .map(|result| trouble.begins(result).is_some())
            .collect();
        assert_eq!(told, [true, false, false, false, true]);
    }

    #[test]
    fn a_log_that_cannot_be_rotated_grows() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        // What the oldest is called is no file.
        fs::create_dir(numbered(&path, 2, "")).unwrap();
        let mut log = Log::of(&what(path.clone(), Some(1), 3)).unwrap();
        Lines::new("stdout").write(b"1\n2\n3\n", &mut log);
        assert_eq!(texts(&path), ["1\n", "2\n", "3\n"]);
        assert!(file_of(&mut log).rotations.lasts);
        fs::remove_dir(numbered(&path, 2, "")).unwrap();
        Lines::new("stdout").write(b"4\n", &mut log);
        assert_eq!((texts(&path), file_of(&mut log).rotations.lasts), (vec!["4\n".into()], false));
    }

    #[test]
    fn one_file_alone_begins_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut log = Log::of(&what(path.clone(), Some(1), 1)).unwrap();
        let before = File::open(&path).unwrap();
        Lines::new("stdout").write(b"1\n2\n", &mut log);
        assert_eq!(texts(&path), ["2\n"]);
        assert!(io::read_to_string(before).unwrap().contains("\"1\\n\""), "its reader has it still");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_slow_compression_holds_nothing_up() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut log = Log::of(&LogFile { compress: true, ..what(path.clone(), Some(1), 3) }).unwrap();
        let arguments = &[OsStr::new("1000")];
        let slow = Detached { program: Path::new("/bin/sleep"), arguments, descriptors: &[] };
        let slow = detached(&slow).unwrap();
        file_of(&mut log).compressor = Compressor::at_work(slow);
        Lines::new("stdout").write(b"1\n2\n3\n", &mut log);
        assert_eq!(texts(&path), ["3\n"]);
        assert_eq!(texts(&numbered(&path, 1, "")), ["2\n"]);
        assert_eq!(texts(&numbered(&path, 2, "")), ["1\n"]);
        assert!(file_of(&mut log).compressor().is_some());
        kill_process(slow, Signal::KILL).unwrap();
        file_of(&mut log).compressed();
        assert!(file_of(&mut log).compressor().is_none(), "after a failure the files wait");
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
            let mut log = Log::of(&what(path.join("log"), None, 1)).unwrap();
            let mut lines = Lines::new("stdout");
            for _ in 0..300 {
                lines.write(b"a line that is not short\nand another\n", &mut log);
            }
            assert!(file_of(&mut log).writes.lasts);
            fs::read_to_string(path.join("log")).unwrap()
        };
        let text = std::thread::spawn(fill).join().unwrap();
        assert!(text.len() > 7000 && text.ends_with("}\n"), "{} bytes", text.len());
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
