//! Layers: each unpacked once, into `layers/<diff id>/diff`, and shared by all images that have it.
//!
//! A layer is unpacked aside, in the store's `tmp`. Only when its stream has come to its end and its digest is the
//! expected one, and everything is on disk, does it get its name; until then dropping it removes every trace.
//!
//! The diff id alone names a layer's directory: what a layer's tar says does not depend on the layers below it.

mod apply;
mod compression;
mod path;
mod space;
mod tree;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{DiffId, Digest};
use crate::durable::{self, At, StateError};
use crate::error::{Classified, ErrorKind};
use crate::store::{Limits, OpenError};
use crate::tar::TarError;
pub(crate) use compression::decompressed;
pub(crate) use path::LayerPath;
pub(crate) use space::Space;

const FORMAT: u32 = 1;

/// A layer was refused, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its tar cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name in it leads out of it.
    #[error("{0:?} is outside of the layer")]
    Outside(String),
    /// It hides something that cannot be hidden.
    #[error("{0:?} is no name of a whiteout")]
    BadWhiteout(String),
    /// A user or group number that no file can have.
    #[error("{0:?} has an owner that cannot be")]
    BadOwner(String),
    /// It has more members than allowed.
    #[error("layer has more than {0} entries")]
    TooManyEntries(u64),
    /// It is larger than allowed.
    #[error("layer is larger than {0} bytes")]
    TooLarge(u64),
    /// The disk has no room for it.
    #[error("no space left on device: remove containers and images that are not needed any more")]
    NoSpace,
    /// Its content is not what the image's configuration says.
    #[error("layer has diff ID {found}, expected {expected}")]
    DiffId {
        /// What the configuration says.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// Something in it could not be made.
    #[error("could not {action} {path:?}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Its name in the layer.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The store itself failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl LayerError {
    fn file(action: &'static str, path: &LayerPath, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            _ => Self::File { action, path: path.to_string(), source },
        }
    }
}

impl Classified for LayerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSpace | Self::State(_) => ErrorKind::Internal,
            Self::File { source, .. } => match Errno::from_io_error(source) {
                // Names that contradict each other: a file where a directory is needed, a link to nothing.
                Some(
                    Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::NOENT
                    | Errno::ISDIR
                    | Errno::NAMETOOLONG
                    | Errno::EXIST,
                ) => ErrorKind::Invalid,
                _ => ErrorKind::Internal,
            },
            Self::Tar(_)
            | Self::Outside(_)
            | Self::BadWhiteout(_)
            | Self::BadOwner(_)
            | Self::TooManyEntries(_)
            | Self::TooLarge(_)
            | Self::DiffId { .. } => ErrorKind::Invalid,
        }
    }
}

/// Where the layers are.
#[derive(Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    tmp: PathBuf,
}

/// A layer that is unpacked but has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) diff_id: DiffId,
    /// The bytes in its files.
    pub(crate) size: u64,
    dir: tempfile::TempDir,
}

/// What `layer.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    size: u64,
}

impl Layers {
    pub(crate) fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp }
    }

    /// The directory of a layer's files.
    pub(crate) fn path(&self, layer: &DiffId) -> PathBuf {
        self.home(layer).join("diff")
    }

    fn home(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(layer.0.hex())
    }

    /// Unpacks a layer's tar, compressed or not; the whole stream is read, and its digest is the layer's diff id.
    pub(crate) fn stage(&self, source: impl Read, limits: &Limits) -> Result<Staged, LayerError> {
        let dir = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(&self.tmp)
            .at("make a directory in", &self.tmp)?;
        let diff = dir.path().join("diff");
        fs::create_dir(&diff).at("make", &diff)?;
        set_mode(&diff, 0o755)?;
        let (size, digest) = unpack(source, &diff, limits)?;
        let record = dir.path().join("layer.json");
        durable::write_json(&record, &Record { version: FORMAT, size }, &self.tmp)?;
        Ok(Staged { diff_id: DiffId(digest), size, dir })
    }

    /// Gives staged layers their names, after everything in them is on disk.
    pub(crate) fn publish(&self, staged: Vec<Staged>) -> Result<(), StateError> {
        if staged.is_empty() {
            return Ok(());
        }
        File::open(&self.dir).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?)).at("sync", &self.dir)?;
        for layer in staged {
            let home = self.home(&layer.diff_id);
            match fs::rename(layer.dir.path(), &home) {
                // The same layer came from somewhere else meanwhile; dropping this one removes it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(StateError::new("make", &home, error)),
                Ok(()) => drop(layer.dir.keep()),
            }
        }
        durable::sync_parent(&self.dir.join("any"))
    }

    /// The size of a layer, if it is there and whole.
    pub(crate) fn size(&self, layer: &DiffId) -> Result<Option<u64>, OpenError> {
        let path = self.home(layer).join("layer.json");
        let record: Option<Record> = durable::read_json(&path)?;
        if let Some(Record { version: found, .. }) = record
            && found > FORMAT
        {
            return Err(OpenError::Newer { path, found, known: FORMAT });
        }
        Ok(record.filter(|_| self.path(layer).is_dir()).map(|record| record.size))
    }

    pub(crate) fn list(&self) -> Result<Vec<DiffId>, StateError> {
        Ok(crate::blobs::names(&self.dir)?.into_iter().map(DiffId).collect())
    }

    /// Takes a layer's name away at once. Its files go when what is returned is dropped, which may take long.
    pub(crate) fn discard(&self, layer: &DiffId) -> Result<Discarded, StateError> {
        let bin = tempfile::Builder::new()
            .prefix("gone-")
            .tempdir_in(&self.tmp)
            .at("make a directory in", &self.tmp)?;
        let home = self.home(layer);
        fs::rename(&home, bin.path().join("layer")).at("remove", &home)?;
        durable::sync_parent(&home)?;
        Ok(Discarded { _dir: bin })
    }
}

/// A layer without a name, whose files are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Discarded {
    _dir: tempfile::TempDir,
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Unpacks a stream to its very end, which is more than the end of the archive in it.
fn unpack(source: impl Read, root: &Path, limits: &Limits) -> Result<(u64, Digest), LayerError> {
    let plain = decompressed(source).map_err(|error| LayerError::Tar(TarError::from_read(error)))?;
    let mut hashed =
        Hashed { source: plain, hasher: Sha256::new(), left: limits.layer_bytes, exceeded: false };
    let applied = apply::apply(&mut hashed, root, limits).and_then(|size| {
        io::copy(&mut hashed, &mut io::sink()).map_err(TarError::from_read)?;
        Ok(size)
    });
    match applied {
        _ if hashed.exceeded => Err(LayerError::TooLarge(limits.layer_bytes)),
        Ok(size) => Ok((size, Digest::finish(hashed.hasher))),
        Err(error) => Err(error),
    }
}

/// Takes the digest of what is read through it, and stops at a limit.
struct Hashed<R> {
    source: R,
    hasher: Sha256,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            self.exceeded = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        };
        self.left = left;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
