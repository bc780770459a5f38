//! Files that are whole or not there, whatever happens: written beside, synced, renamed, and the rename synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::store::OpenError;

/// A file of the store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path}")]
pub struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is tried with a file whose content is not what it should be.
const UNDERSTAND: &str = "understand";

impl StateError {
    /// Whether the file is there and can be read, but says nothing that can be: a disk that rots, or a crash of the whole machine.
    pub(crate) fn is_damage(&self) -> bool {
        self.action == UNDERSTAND
    }

    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// Gives an `io::Result` the action and the path that it was about.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StateError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StateError> {
        self.map_err(|source| StateError::new(action, path, source))
    }
}

/// Replaces `path` by a file with these bytes. `tmp` is a directory on the same file system that is emptied at start.
pub(crate) fn write(path: &Path, bytes: &[u8], tmp: &Path) -> Result<(), StateError> {
    let mut file = tempfile::NamedTempFile::new_in(tmp).at("make a file in", tmp)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).at("write", path)?;
    file.persist(path).map_err(|error| error.error).at("write", path)?;
    sync_parent(path)
}

/// Removes a file; that it is not there is as good.
pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateError::new("remove", path, error)),
    }
}

/// Makes what was renamed, made or removed in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StateError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).at("sync", parent)
}

/// Reads a file if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::new("read", path, error)),
    }
}

/// Reads a JSON file of this store if it is there.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from).at(UNDERSTAND, path)
}

/// Reads a JSON file of this store that tells its format's version, if it is there. A newer one is refused as such, before
/// its other fields are looked at: they may have another shape, and must not pass for damage.
pub(crate) fn read_versioned<T: serde::de::DeserializeOwned>(
    path: &Path,
    known: u32,
) -> Result<Option<T>, OpenError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Some(bytes) = read(path)? else { return Ok(None) };
    if let Ok(Version { version: found }) = serde_json::from_slice(&bytes)
        && found > known
    {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from).at(UNDERSTAND, path)?))
}

/// Writes a JSON file of this store.
pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T, tmp: &Path) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from).at("write", path)?;
    write(path, &bytes, tmp)
}
