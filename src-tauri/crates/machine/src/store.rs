//! Who owns the machine: a lock on a file beside the data disk, held by a living process.
//!
//! The system gives the lock back when the process ends, however it ends, so a lock is never stale. The process writes
//! its number into the file, for people only.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::SpawnError;

/// The possession of a data disk. Ends when dropped, and when the process ends.
#[derive(Debug)]
pub(crate) struct Possession {
    _locked: File,
}

impl Possession {
    /// Takes the data disk into possession, whether it exists yet or not.
    pub(crate) fn take(data_disk: &Path) -> Result<Self, SpawnError> {
        let lock = lock_file(data_disk);
        let failed = |action| {
            let path = lock.clone();
            move |source| SpawnError::File { action, path, source }
        };
        if let Some(dir) = lock.parent() {
            fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&lock).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SpawnError::InUse { disk: data_disk.into(), owner: owner(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        sign(&mut file).map_err(failed("write"))?;
        Ok(Self { _locked: file })
    }
}

fn lock_file(data_disk: &Path) -> PathBuf {
    let mut path = OsString::from(data_disk);
    path.push(".lock");
    path.into()
}

fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Who wrote its number into the file. On Windows a locked file cannot be read.
fn owner(file: &mut File) -> String {
    let mut number = String::new();
    match file.read_to_string(&mut number) {
        Ok(_) if !number.trim().is_empty() => number.trim().to_owned(),
        Ok(_) | Err(_) => "(unknown)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("machine/data.raw");
        let first = Possession::take(&disk).unwrap();
        let error = Possession::take(&disk).unwrap_err();
        let us = std::process::id().to_string();
        assert!(
            matches!(&error, SpawnError::InUse { owner, .. } if cfg!(windows) || *owner == us),
            "{error}"
        );
        drop(first);
        Possession::take(&disk).unwrap();
    }

    #[test]
    fn a_file_that_a_dead_owner_left_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("data.raw");
        fs::write(lock_file(&disk), "4194304\nand some more that is longer").unwrap();
        let _held = Possession::take(&disk).unwrap();
        let signed = fs::read_to_string(lock_file(&disk)).unwrap();
        assert_eq!(signed, format!("{}\n", std::process::id()));
    }
}
