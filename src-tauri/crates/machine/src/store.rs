//! Who owns the machine: a lock on a file beside the data disk, held by a living process.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use caisson_os::{LockError, ProcessLock};

use crate::SpawnError;

/// Takes the data disk into possession, whether it exists yet or not.
pub(crate) fn take(data_disk: &Path) -> Result<ProcessLock, SpawnError> {
    let lock = lock_file(data_disk);
    if let Some(dir) = lock.parent() {
        fs::create_dir_all(dir).map_err(|source| SpawnError::Directory { path: dir.into(), source })?;
    }
    ProcessLock::acquire(&lock).map_err(|error| match error {
        LockError::Held { owner, .. } => SpawnError::InUse { disk: data_disk.into(), owner },
        error @ LockError::File(..) => SpawnError::Lock(error),
    })
}

fn lock_file(data_disk: &Path) -> PathBuf {
    let mut path = OsString::from(data_disk);
    path.push(".lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("machine/data.raw");
        let first = take(&disk).unwrap();
        let error = take(&disk).unwrap_err();
        let us = Some(std::process::id());
        assert!(
            matches!(&error, SpawnError::InUse { owner, .. } if cfg!(windows) || *owner == us),
            "{error}"
        );
        drop(first);
        take(&disk).unwrap();
    }
}
