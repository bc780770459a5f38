//! The volumes of a container that is being made.
//!
//! An anonymous volume belongs to nobody until its container is on record. An engine that is killed in between would leave it for ever, for
//! nothing tells it from one that outlived its container. So its name is on disk before it is made, and goes when the container is there, or
//! is not to be. The next engine removes those that are still named and that no container holds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The extension of the directory that names the volumes, each by an empty file.
pub(crate) const MAKING: &str = "making";

/// What is undone at the next start, unless this is dropped before.
pub(crate) struct Making(PathBuf);

impl Making {
    /// Begins, for the container whose directory is, or is going to be, `container`.
    ///
    /// It is not synced: what a power cut leaves is a volume that `docker volume prune` takes.
    pub(super) fn begin(container: &Path) -> io::Result<Self> {
        let path = container.with_extension(MAKING);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Says that a volume of this name is made next.
    pub(super) fn note(&self, volume: &str) -> io::Result<()> {
        File::create(self.0.join(volume)).map(drop)
    }

    /// The volumes that another engine noted in `path`.
    pub(crate) fn noted(path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the mark of a container that was made goes at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_noted_until_the_container_is_made() {
        let root = tempfile::tempdir().unwrap();
        let making = Making::begin(&root.path().join("abc")).unwrap();
        making.note("one").unwrap();
        making.note("two").unwrap();
        let path = root.path().join("abc.making");
        let mut noted = Making::noted(&path).unwrap();
        noted.sort_unstable();
        assert_eq!(noted, ["one", "two"]);
        drop(making);
        assert!(!path.exists());
    }
}
