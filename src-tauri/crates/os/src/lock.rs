//! A lock that a living process holds, and that dies with it, however it dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// A locked file. The system lets go of it when this is dropped or the process ends.
///
/// The file itself stays: removing it would let two processes hold two files of the same name.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living process holds it.
    #[error("{} is held by {}", path.display(), owner.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The file.
        path: PathBuf,
        /// The process, if it can be told.
        owner: Option<u32>,
    },
    /// The file could not be used.
    #[error("cannot lock {}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl ProcessLock {
    /// Takes the lock or fails at once, and writes this process's number into the file.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::File(path.to_owned(), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { path: path.to_owned(), owner: read_pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// On Windows a locked file cannot be read; then the owner stays unknown.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_free_after_its_owner_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = ProcessLock::acquire(&path).unwrap();
        let Err(LockError::Held { owner, .. }) = ProcessLock::acquire(&path) else {
            panic!("it is held");
        };
        assert_eq!(owner, (!cfg!(windows)).then(std::process::id));
        drop(first);
        ProcessLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_file_that_a_dead_owner_left_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4194304\nand some more that is longer").unwrap();
        let held = ProcessLock::acquire(&path).unwrap();
        drop(held);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
