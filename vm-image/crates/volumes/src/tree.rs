//! Removing a directory with all that is in it, and nothing that is mounted there.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;

/// How directories are opened here.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is being emptied.
struct Level {
    name: CString,
    fd: OwnedFd,
    entries: Dir,
}

impl Level {
    /// Opens a directory of `parent`, unless something is mounted there. The mount counts, not the file system: a bind
    /// of another directory may be of the same one.
    fn open(parent: &OwnedFd, name: CString) -> io::Result<Self> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let fd = openat2(parent, &name, DIRECTORY, Mode::empty(), resolve)?;
        let entries = Dir::read_from(&fd)?;
        Ok(Self { name, fd, entries })
    }

    /// The next name in it, besides its own and its parent's.
    fn next(&mut self) -> io::Result<Option<CString>> {
        for entry in self.entries.by_ref() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }
}

/// Removes `name` of the directory `parent`, with all that is in it. It ends at a mount, with an error: what is mounted
/// belongs to somebody else.
pub(crate) fn remove(parent: &Path, name: &OsStr) -> io::Result<()> {
    let parent = openat(CWD, parent, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())?;
    // A list and no recursion: containers make directories as deep as they like.
    let mut levels = vec![Level::open(&parent, CString::new(name.as_bytes())?)?];
    while let Some(level) = levels.last_mut() {
        match level.next()? {
            Some(name) => match unlinkat(&level.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    let below = Level::open(&level.fd, name)?;
                    levels.push(below);
                }
                Err(error) => return Err(error.into()),
            },
            None => {
                let Some(done) = levels.pop() else { break };
                let above = levels.last().map_or(&parent, |above| &above.fd);
                unlinkat(above, &done.name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_goes_and_links_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let (gone, kept) = (root.path().join("gone"), root.path().join("kept"));
        fs::create_dir_all(gone.join("a/b/c")).unwrap();
        fs::write(gone.join("a/b/file"), "x").unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).unwrap();
        remove(root.path(), OsStr::new("gone")).unwrap();
        assert!(!gone.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        assert!(remove(root.path(), OsStr::new("gone")).is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let root = tempfile::tempdir().unwrap();
        let mut at = openat(CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        // Deeper than a path can be long, and shallower than the files that a process may have open.
        for _ in 0..600 {
            let name = c"some-directory";
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            at = openat(&at, name, DIRECTORY, Mode::empty()).unwrap();
        }
        remove(root.path(), OsStr::new("some-directory")).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
