//! State on disk: JSON, replaced whole, so that a reader finds the old or the new and never half of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caisson_sys::replace::{Survives, replace};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be read.
    #[error("could not read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It could not be written.
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// It could not be removed.
    #[error("could not remove {}", .0.display())]
    Remove(PathBuf, #[source] io::Error),
    /// It is not what any version writes.
    #[error("{} is damaged: move it away, and it is made anew", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
    /// A newer version wrote it.
    #[error("{} was written by a newer version (format {found}, this one knows {known}): use that version", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this version knows.
        known: u32,
    },
}

/// Replaces a file.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T, survives: Survives) -> Result<(), StateError> {
    let text = serde_json::to_vec(value).map_err(io::Error::from);
    text.and_then(|text| replace(path, &text, survives))
        .map_err(|error| StateError::Write(path.to_owned(), error))
}

/// Reads a file that this version or an older one wrote; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, known: u32) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Read(path.to_owned(), error)),
    };
    let malformed = |error| StateError::Malformed(path.to_owned(), error);
    let Format { version: found } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if found > known {
        return Err(StateError::Newer { path: path.to_owned(), found, known });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}

/// What every version writes.
#[derive(Deserialize)]
struct Format {
    version: u32,
}

/// Removes a file; one that is gone is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Remove(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_was_written_last_is_read_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert!(read::<Value>(&path, 1).unwrap().is_none());
        for n in 0..3 {
            write(&path, &json!({"version": 1, "n": n}), Survives::PowerFailure).unwrap();
        }
        assert_eq!(read::<Value>(&path, 1).unwrap().unwrap()["n"], 2);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_newer_format_and_garbage_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, r#"{"version": 9, "shape": "unknown"}"#).unwrap();
        assert!(matches!(read::<Value>(&path, 1), Err(StateError::Newer { found: 9, known: 1, .. })));
        fs::write(&path, "{\"vers").unwrap();
        assert!(matches!(read::<Value>(&path, 1), Err(StateError::Malformed(..))));
    }
}
