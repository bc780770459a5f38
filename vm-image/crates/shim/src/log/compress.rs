//! Compressing an older file, by a process of its own: this same program with [`COMMAND`]. So the shim goes on serving the container, and
//! its memory stays small.
//!
//! The log is rotated meanwhile, and the file gets other names. So the process is given it open, writes where no name is, and looks at the end
//! for the name that the file has by then, under the folder's lock. Who is killed leaves the file as it was, or with its `.gz` beside it, which
//! readers prefer.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::helper;
use crate::exit;

/// The word before the log's path.
pub(crate) const COMMAND: &str = "--compress-log";

/// The process at work, if there is one.
#[derive(Debug, Default)]
pub(super) struct Compressor(Option<OwnedFd>);

impl Compressor {
    /// Begins to compress a file of a log. One that cannot be stays as it is, which readers take as well.
    pub(super) fn begin(&mut self, file: &Path, log: &Path) {
        match spawn(file, log) {
            Ok(pid) => *self = Self::at_work(pid),
            Err(error) => eprintln!("compress {}: {error}", file.display()),
        }
    }

    /// With a child that is at work.
    pub(super) fn at_work(child: Pid) -> Self {
        match pidfd_open(child, PidfdFlags::empty()) {
            Ok(process) => Self(Some(process)),
            // Its end will not be seen, and it stays a zombie as long as the shim.
            Err(error) => {
                eprintln!("watch the compression of a log: {error}");
                Self(None)
            }
        }
    }

    /// Readable when the process has ended; `None` if there is none.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// The process has ended: whether it has done its work.
    pub(super) fn ended(&mut self) -> bool {
        self.0.take().is_some_and(|process| matches!(exit::reap(process.as_fd()), Ok(0)))
    }
}

fn spawn(file: &Path, log: &Path) -> io::Result<Pid> {
    let file = File::open(file)?;
    helper(&[OsStr::new(COMMAND), log.as_os_str()], file.as_fd())
}

/// Compresses the standard input, which is an older file of a log.
pub(crate) fn compress(log: &Path) -> io::Result<()> {
    pack(io::stdin().as_fd().try_clone_to_owned()?.into(), log)
}

/// Puts a compressed file in the place of one that is written no more. Its number on the file system goes into the header, by which a reader
/// that has it open knows where it is in the order.
fn pack(file: File, log: &Path) -> io::Result<()> {
    let folder = log.parent().unwrap_or(Path::new("."));
    let inode = file.metadata()?.ino();
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let to = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o640))?);
    let mut encoder =
        GzBuilder::new().extra(format!("{{\"inode\":{inode}}}")).write(to, Compression::default());
    io::copy(&mut BufReader::with_capacity(64 << 10, file), &mut encoder)?;
    let packed = encoder.finish()?;
    let lock = File::open(folder)?;
    lock.lock()?;
    // One that was too old has gone meanwhile.
    let Some(path) = find(log, folder, inode)? else { return Ok(()) };
    let mut name = OsString::from(&path);
    name.push(".gz");
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    linkat(CWD, format!("/proc/self/fd/{}", packed.as_raw_fd()), CWD, &name, AtFlags::SYMLINK_FOLLOW)?;
    fs::remove_file(path)
}

/// Which of the log's older files has this number.
fn find(log: &Path, folder: &Path, inode: u64) -> io::Result<Option<PathBuf>> {
    let prefix = [log.file_name().unwrap_or_default().as_encoded_bytes(), b"."].concat();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(&prefix[..]);
        let is_older = number.is_some_and(|number| number.iter().all(u8::is_ascii_digit));
        if is_older && entry.metadata()?.ino() == inode {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_file_becomes_its_gz_under_the_name_that_it_has_by_then() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("log.1"), [b'x'; 100_000]).unwrap();
        let inode = fs::metadata(at("log.1")).unwrap().ino();
        let file = File::open(at("log.1")).unwrap();
        fs::rename(at("log.1"), at("log.2")).unwrap();
        fs::write(at("log.1"), "newer").unwrap();
        pack(file, &at("log")).unwrap();
        assert!(!at("log.2").exists() && !at("log.1.gz").exists());
        assert_eq!(fs::read_to_string(at("log.1")).unwrap(), "newer");
        let mut decoder = GzDecoder::new(File::open(at("log.2.gz")).unwrap());
        let mut text = Vec::new();
        decoder.read_to_end(&mut text).unwrap();
        assert_eq!(text, [b'x'; 100_000]);
        let extra = decoder.header().and_then(|header| header.extra()).unwrap();
        assert_eq!(extra, format!("{{\"inode\":{inode}}}").as_bytes());
    }

    #[test]
    fn a_file_that_has_gone_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let old = place.path().join("log.1");
        fs::write(&old, "old").unwrap();
        let file = File::open(&old).unwrap();
        fs::remove_file(&old).unwrap();
        pack(file, &place.path().join("log")).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
