//! Layers: each unpacked once, into `layers/<diff id>/diff`, and shared by all images that have it.
//!
//! A layer is unpacked aside, in the store's `tmp`. Only when its stream has come to its end and its digest is the
//! expected one, and everything is on disk, does it get its name; until then dropping it removes every trace.
//!
//! Beside `diff/` lies `blob`, the layer as a registry has it (see [`blob`]), and `layer.json` that tells of both. They
//! appear and go with the layer's directory, so that neither is ever without the other.
//!
//! The diff id alone names a layer's directory: what a layer's tar says does not depend on the layers below it.

mod ahead;
pub(crate) mod apply;
mod blob;
mod compression;
mod flush;
mod path;
mod remove;
mod space;
pub(crate) mod tree;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::digest::{DiffId, Digest, Hasher};
use crate::durable::{self, At, StateError};
use crate::error::{Classified, ErrorKind};
use crate::store::{Limits, OpenError};
use crate::tar::TarError;
pub(crate) use ahead::read_ahead;
pub use blob::{Compression, LayerBlob};
pub(crate) use blob::{HashedWriter, LayerRecord};
use blob::{Keeper, Measured, Packer, Tee};
use compression::Opened;
pub(crate) use compression::decompressed;
pub(crate) use flush::OnDisk;
pub(crate) use path::LayerPath;
pub(crate) use space::Space;

/// 1 had no blobs. What it left serves containers, and is made whole when the same layer comes again.
const FORMAT: u32 = 2;

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
    /// A directory would be replaced by a file, or the other way round, where that was not wanted.
    #[error("cannot overwrite {there} \"{path}\" with {new} \"{target}\"")]
    Overwrite {
        /// What is there.
        there: &'static str,
        /// What would come.
        new: &'static str,
        /// Its name in the archive.
        path: String,
        /// Where it would be.
        target: String,
    },
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
            Self::NoSpace | Self::State(_) | Self::Overwrite { .. } => ErrorKind::Internal,
            Self::File { source, .. } => match Errno::from_io_error(source) {
                // Names that contradict each other: a file where a directory is needed, a link to nothing.
                Some(
                    Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::NOENT
                    | Errno::ISDIR
                    | Errno::NAMETOOLONG
                    | Errno::EXIST
                    // An attribute that its kind cannot have, such as capabilities of no known form.
                    | Errno::INVAL,
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
    flushes: flush::Flushes,
}

/// A layer that is unpacked but has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) diff_id: DiffId,
    pub(crate) record: LayerRecord,
    dir: tempfile::TempDir,
}

impl Layers {
    pub(crate) fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp, flushes: flush::Flushes::default() }
    }

    /// The directory of a layer's files.
    pub(crate) fn path(&self, layer: &DiffId) -> PathBuf {
        self.home(layer).join("diff")
    }

    fn home(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(layer.0.hex())
    }

    fn blob(&self, layer: &DiffId) -> PathBuf {
        self.home(layer).join("blob")
    }

    /// Unpacks a layer's tar, compressed or not, and keeps it as it came, or compressed if it came plain. The whole
    /// stream is read.
    pub(crate) fn stage(&self, source: impl Read + Send, limits: &Limits) -> Result<Staged, LayerError> {
        let dir = self.stage_directory()?;
        let path = dir.path().join("blob");
        let blob = File::create(&path).at("make", &path)?;
        let space = Space::of(dir.path(), limits.keep_free).at("look at", dir.path())?;
        let keep = Keeper { file: &blob, space };
        let (size, measured) = unpack(source, &dir.path().join("diff"), limits, Keep::Here(keep))?;
        self.staged(dir, measured.diff_id, LayerRecord::new(size, &measured))
    }

    /// Unpacks a layer of which `repository` has the blob, which is being written to `blob`, from where `source` reads it; whoever
    /// writes it takes its digest. The file is moved to the layer.
    pub(crate) fn stage_file(
        &self,
        source: impl Read + Send,
        blob: tempfile::TempPath,
        (digest, repository): (Digest, &str),
        limits: &Limits,
    ) -> Result<Staged, LayerError> {
        let dir = self.stage_directory()?;
        let (size, measured) = unpack(source, &dir.path().join("diff"), limits, Keep::Elsewhere(digest))?;
        let path = dir.path().join("blob");
        blob.persist(&path).map_err(|error| error.error).at("make", &path)?;
        let mut record = LayerRecord::new(size, &measured);
        // Said now, it need not be written down once more.
        record.remember(measured.blob, repository);
        self.staged(dir, measured.diff_id, record)
    }

    fn stage_directory(&self) -> Result<tempfile::TempDir, StateError> {
        let dir = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(&self.tmp)
            .at("make a directory in", &self.tmp)?;
        let diff = dir.path().join("diff");
        fs::create_dir(&diff).at("make", &diff)?;
        set_mode(&diff, 0o755)?;
        Ok(dir)
    }

    fn staged(
        &self,
        dir: tempfile::TempDir,
        diff_id: DiffId,
        record: LayerRecord,
    ) -> Result<Staged, LayerError> {
        // It is flushed with all the rest, before anything leads to it.
        let path = dir.path().join("layer.json");
        let bytes = serde_json::to_vec(&record).map_err(io::Error::from).at("write", &path)?;
        fs::write(&path, bytes).at("write", &path)?;
        Ok(Staged { diff_id, record, dir })
    }

    /// Puts everything of staged layers on disk, which may take long: best before the store is changed.
    pub(crate) fn flush(&self, staged: Vec<Staged>) -> Result<OnDisk, StateError> {
        if !staged.is_empty() {
            self.flushes.flush(&self.dir)?;
        }
        Ok(OnDisk(staged))
    }

    /// Gives staged layers their names.
    pub(crate) fn publish(&self, OnDisk(staged): OnDisk) -> Result<(), StateError> {
        if staged.is_empty() {
            return Ok(());
        }
        for layer in staged {
            let home = self.home(&layer.diff_id);
            match fs::rename(layer.dir.path(), &home) {
                // The same layer came from somewhere else meanwhile; dropping this one removes it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => self.complete(&layer)?,
                Err(error) => return Err(StateError::new("make", &home, error)),
                Ok(()) => drop(layer.dir.keep()),
            }
        }
        durable::sync_parent(&self.dir.join("any"))
    }

    /// Gives a layer that format 1 has left the blob that it lacks: first the blob, then what tells of it.
    fn complete(&self, staged: &Staged) -> Result<(), StateError> {
        let record = self.home(&staged.diff_id).join("layer.json");
        if durable::read_json::<LayerRecord>(&record)?.is_some_and(|record| record.is_complete()) {
            return Ok(());
        }
        let blob = self.blob(&staged.diff_id);
        fs::rename(staged.dir.path().join("blob"), &blob).at("make", &blob)?;
        fs::rename(staged.dir.path().join("layer.json"), &record).at("make", &record)?;
        durable::sync_parent(&record)
    }

    /// What is known of a layer, if it is there and whole.
    pub(crate) fn record(&self, layer: &DiffId) -> Result<Option<LayerRecord>, OpenError> {
        let path = self.home(layer).join("layer.json");
        let record: Option<LayerRecord> = durable::read_versioned(&path, FORMAT)?;
        let whole = |record: &LayerRecord| {
            self.path(layer).is_dir() && (!record.is_complete() || self.blob(layer).is_file())
        };
        Ok(record.filter(whole))
    }

    /// Puts another record in the place of a damaged one, if the layer's files are there: they were on disk before the layer got
    /// its name, and containers may be using them. Its blob is not known any more; a pull or a load brings it, and the size, back.
    pub(crate) fn mend_record(&self, layer: &DiffId) -> Result<Option<LayerRecord>, StateError> {
        if !self.path(layer).is_dir() {
            return Ok(None);
        }
        let record =
            LayerRecord { version: FORMAT, size: 0, tar_bytes: None, blob: None, remote: Vec::new() };
        self.write_record(layer, &record)?;
        Ok(Some(record))
    }

    /// Replaces what is known of a layer that is there.
    pub(crate) fn write_record(&self, layer: &DiffId, record: &LayerRecord) -> Result<(), StateError> {
        durable::write_json(&self.home(layer).join("layer.json"), record, &self.tmp)
    }

    /// The bytes of a layer's blob.
    pub(crate) fn open_blob(&self, layer: &DiffId) -> Result<File, StateError> {
        let path = self.blob(layer);
        File::open(&path).at("open", &path)
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
        Ok(Discarded { dir: bin })
    }
}

/// A layer without a name, whose files are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Discarded {
    dir: tempfile::TempDir,
}

impl Drop for Discarded {
    fn drop(&mut self) {
        remove::remove_files(self.dir.path());
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Unpacks a stream to its very end, which is more than the end of the archive in it. Returns the bytes of its files
/// too.
fn unpack(
    source: impl Read + Send,
    root: &Path,
    limits: &Limits,
    keep: Keep<'_>,
) -> Result<(u64, Measured), LayerError> {
    let opened = Opened::new(source).map_err(bad_read)?;
    let format = opened.format;
    let is_packed = format.compression() != Compression::None;
    let (mut raw, mut packer, mut known) = (None, None, None);
    match keep {
        Keep::Here(keep) if is_packed => raw = Some(keep),
        Keep::Here(keep) => packer = Some(Packer::new(keep).map_err(bad_read)?),
        Keep::Elsewhere(digest) => known = Some(digest),
    }
    let mut blob = Tee::new(opened.whole(), is_packed && known.is_none(), raw);
    let plain = format.decompress(&mut blob).map_err(bad_read)?;
    let Unpacked { size, diff_id, tar_bytes, packed } = unpack_tar(plain, root, limits, packer)?;
    let (digest, bytes) = blob.finish().map_err(bad_read)?;
    let digest = known.or(digest).unwrap_or(diff_id.0);
    let as_it_came = LayerBlob { digest, size: bytes, compression: format.compression() };
    Ok((size, Measured { diff_id, tar_bytes, blob: packed.unwrap_or(as_it_came) }))
}

/// Where a blob is kept.
enum Keep<'a> {
    /// In a file that is written here.
    Here(Keeper<'a>),
    /// In a file that somebody else writes, who takes its digest.
    Elsewhere(Digest),
}

struct Unpacked {
    size: u64,
    diff_id: DiffId,
    tar_bytes: u64,
    packed: Option<LayerBlob>,
}

fn unpack_tar(
    source: impl Read + Send,
    root: &Path,
    limits: &Limits,
    packer: Option<Packer<'_>>,
) -> Result<Unpacked, LayerError> {
    let hashed = Hashed { source, hasher: Hasher::new(), left: limits.layer_bytes, exceeded: false, packer };
    let (applied, hashed) = ahead::read_ahead(hashed, |tar| {
        let size = apply::apply(&mut *tar, root, limits)?;
        io::copy(tar, &mut io::sink()).map_err(bad_read)?;
        Ok(size)
    });
    if hashed.exceeded {
        return Err(LayerError::TooLarge(limits.layer_bytes));
    }
    let size = applied.map_err(|error| match error {
        LayerError::Tar(TarError::Read(error)) => bad_read(error),
        error => error,
    })?;
    Ok(Unpacked {
        size,
        diff_id: DiffId(hashed.hasher.finish()),
        tar_bytes: limits.layer_bytes - hashed.left,
        packed: hashed.packer.map(Packer::finish).transpose().map_err(bad_read)?,
    })
}

fn bad_read(error: io::Error) -> LayerError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LayerError::NoSpace,
        _ => LayerError::Tar(TarError::from_read(error)),
    }
}

/// Takes the digest of the tar that is read through it, packs it if that is asked for, and stops at a limit.
struct Hashed<'a, R> {
    source: R,
    hasher: Hasher,
    left: u64,
    exceeded: bool,
    packer: Option<Packer<'a>>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            self.exceeded = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        };
        self.left = left;
        self.hasher.update(&buffer[..read]);
        if let Some(packer) = &mut self.packer {
            packer.write(&buffer[..read])?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
