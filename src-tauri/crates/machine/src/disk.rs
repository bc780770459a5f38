//! The data disk: a sparse raw file with all of the user's containers and images.
//!
//! It is made when there is none and grown when the user wants a bigger one; the guest then grows its file system. It is
//! never made smaller, emptied or deleted here: that takes the user's own word. As it is sparse, it takes
//! what is in use, and what the guest frees is given back.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use caisson_hypervisor::Mib;

use crate::host;

/// With less room than this on the computer's disk, a machine that writes would soon stand still.
const LEAST_ROOM: Mib = Mib(256);

/// Why the data disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot {action} the data disk {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this computer's disk has {free} left in {}, the machine needs at least {LEAST_ROOM}", dir.display())]
    HostFull { dir: PathBuf, free: Mib },
    #[error("the data disk {} is not a file", .0.display())]
    NotAFile(PathBuf),
}

/// Makes the data disk ready for a machine: there, and at least of this size.
pub(crate) fn prepare(path: &Path, size: Mib) -> Result<(), DiskError> {
    let failed = |action| move |source| DiskError::File { action, path: path.into(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    let file = open(path).map_err(failed("open"))?;
    let now = file.metadata().map_err(failed("measure"))?;
    if !now.is_file() {
        return Err(DiskError::NotAFile(path.into()));
    }
    check_room(dir, host::free_bytes(dir).map_err(failed("find room for"))?)?;
    if now.len() < size.bytes() {
        tracing::info!(disk = %path.display(), from = now.len(), to = size.bytes(), "growing the data disk");
        if let Err(error) = caisson_os::make_sparse(&file) {
            tracing::warn!(disk = %path.display(), %error, "the data disk takes its whole size at once");
        }
        file.set_len(size.bytes()).map_err(failed("grow"))?;
        file.sync_all().map_err(failed("write"))?;
    }
    Ok(())
}

/// Opens the disk as it is, or makes an empty one that only its user may read.
fn open(path: &Path) -> io::Result<File> {
    host::private_file().read(true).write(true).create(true).truncate(false).open(path)
}

fn check_room(dir: &Path, free: Option<u64>) -> Result<(), DiskError> {
    match free {
        Some(bytes) if bytes < LEAST_ROOM.bytes() => {
            Err(DiskError::HostFull { dir: dir.into(), free: Mib(bytes >> 20) })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::{Read, Seek, SeekFrom, Write},
    };

    use super::*;

    #[test]
    fn a_new_disk_has_its_size_and_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data.raw");
        prepare(&path, Mib::from_gib(64)).unwrap();
        let facts = fs::metadata(&path).unwrap();
        assert_eq!(facts.len(), 64 << 30);
        #[cfg(unix)]
        assert!(std::os::unix::fs::MetadataExt::blocks(&facts) < 64);
    }

    #[test]
    fn a_disk_grows_and_keeps_what_is_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.raw");
        prepare(&path, Mib(8)).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all(b"precious").unwrap();
        for size in [Mib(16), Mib(4), Mib(0)] {
            prepare(&path, size).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), Mib(16).bytes());
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut kept = [0; 8];
        file.read_exact(&mut kept).unwrap();
        assert_eq!(&kept, b"precious");
    }

    #[test]
    fn a_full_computer_is_told_with_what_is_left_and_needed() {
        let error = check_room(Path::new("/data"), Some(Mib(12).bytes())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this computer's disk has 12 MiB left in /data, the machine needs at least 256 MiB"
        );
        assert!(check_room(Path::new("/data"), Some(LEAST_ROOM.bytes())).is_ok());
        assert!(check_room(Path::new("/data"), None).is_ok());
    }

    #[test]
    fn a_directory_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(prepare(dir.path(), Mib(8)).is_err());
        assert!(dir.path().is_dir());
    }
}
