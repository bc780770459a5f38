//! Text that a container keeps for Docker to read: its lists of users and groups.
//!
//! What lies there is the container's choice. A device would be opened with the reader's rights, past the container's device filter, and
//! `/dev/zero` has no end. So a file is held first (`O_PATH`, which opens nothing), looked at, and then opened as what is held: no name is
//! resolved twice.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::root::file_type;

/// Nobody's list is longer than this, in bytes.
const MOST: u64 = 16 << 20;

/// This process' descriptors, as the kernel shows them. To be had before a container's file system is entered, whose `/proc` may be anything.
#[derive(Debug)]
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    pub(crate) fn own() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, "/proc/self/fd", flags, Mode::empty())?))
    }

    /// The text of a file that is held, as far as it is a list's. What is no regular file lists nobody, as `/dev/null` does under dockerd.
    pub(crate) fn read(&self, held: BorrowedFd<'_>) -> io::Result<String> {
        if file_type(held)? != FileType::RegularFile {
            return Ok(String::new());
        }
        // Some of the kernel's own files are regular, and wait for something to tell.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.0, held.as_raw_fd().to_string(), flags, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn read(path: &Path) -> String {
        let held = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Descriptors::own().unwrap().read(held.as_fd()).unwrap()
    }

    #[test]
    fn only_a_file_is_read_and_not_without_end() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::write(at("passwd"), "root:x:0:0").unwrap();
        assert_eq!(read(&at("passwd")), "root:x:0:0");
        symlink("/dev/zero", at("device")).unwrap();
        assert_eq!(read(&at("device")), "");
        assert_eq!(read(place.path()), "");
        File::create(at("long")).unwrap().set_len(MOST + 1).unwrap();
        assert_eq!(read(&at("long")).len() as u64, MOST);
    }
}
