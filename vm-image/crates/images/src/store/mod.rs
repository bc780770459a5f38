//! The store: what is kept, where, and how it stays true.
//!
//! ```text
//! lock                     held by the process that has the store open
//! repositories.json        which name leads to which image
//! images/<id>.json         what this store knows of an image beside its configuration
//! blobs/sha256/<digest>    configurations, manifests and indexes, byte for byte
//! layers/<diff id>/        layer.json, diff/ with the files, blob as registries have it
//! holds/<container>        a configuration whose layers a container needs, whatever becomes of its image
//! tmp/                     whatever has no name yet; emptied at the start
//! ```
//!
//! **Crash-only.** A file appears whole, by a rename, or not at all. What others point to is made before what points
//! to it (layers, configuration, image, name) and removed after it. So a crash leaves at most things that nothing
//! points to, and [`Store::open`] removes these: starting is recovering.
//!
//! **Damage.** A disk may rot. A file that cannot be understood, or whose digest is another, costs what it is about and no more: the
//! engine starts, says in its log what is lost, with the image's names, and what to do; pulling or loading it again mends it.
//!
//! **Formats.** Every record has a version. Format 1 had neither blobs of layers nor manifests: what it left is read, serves
//! containers as before, and becomes whole when the same layers come again; until then it can be neither saved nor pushed.
//!
//! **Concurrency.** Readers take a snapshot and never wait. One change at a time has the writer's lock, for as long
//! as it takes to write small files and rename directories; the long parts of a load (receiving, unpacking) and of a
//! removal (deleting files) are outside of it. Which layers are needed is never counted, but looked up in what is
//! there: images, holds, and the leases of loads under way.

mod change;
mod damage;
mod described;
mod find;
mod holds;
mod lease;
mod names;
mod remove;
mod state;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::IFlags;

use crate::blobs::{BlobError, Blobs};
use crate::config::ImageConfig;
use crate::digest::{DiffId, ImageId};
use crate::durable::{At, StateError};
use crate::error::{Classified, ErrorKind};
use crate::image::Image;
use crate::layer::Layers;
pub(crate) use change::Change;
pub use described::{Described, DescribedManifest, ManifestKind};
pub use find::FindError;
pub use holds::HoldError;
pub(crate) use lease::OwnedLease;
pub use names::TagError;
pub(crate) use names::check_tag;
pub use remove::{Obstacle, RemoveError, RemoveFailed, RemoveOptions};
pub use state::{CreateError, Manifest};
pub(crate) use state::{Lease, read_config};
use state::{Leases, State};

/// Keeps images. Cloning is cheap; clones are the same store. All methods block and may be called from any thread;
/// reading is never blocked by a load or an import under way.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: Limits,
    blobs: Blobs,
    layers: Layers,
    state: RwLock<Arc<State>>,
    writer: Mutex<()>,
    leases: Leases,
    /// Locked as long as it is open.
    _lock: File,
}

/// How much strangers' archives may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The bytes of one layer's tar.
    pub layer_bytes: u64,
    /// The members of one archive.
    pub layer_entries: u64,
    /// The bytes of one configuration, manifest or index.
    pub document_bytes: u64,
    /// The free bytes of the disk that an archive must leave.
    pub keep_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 1 << 40, layer_entries: 8 << 20, document_bytes: 8 << 20, keep_free: 64 << 20 }
    }
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another engine has it.
    #[error("image store {0} is in use by another engine: stop that one, or use another data root")]
    InUse(PathBuf),
    /// It was written by a newer engine.
    #[error(
        "{path} has format {found}, newer than the {known} that this engine knows: use the newer version that wrote it"
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The disk failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse(_) => ErrorKind::Conflict,
            Self::Newer { .. } | Self::State(_) => ErrorKind::Internal,
        }
    }
}

impl Store {
    /// Opens or makes the store in `root`, and recovers: what a crash left half done is removed.
    ///
    /// One process at a time can have a store open. `root` should be on a file system that overlayfs takes lower
    /// directories from, with `trusted.*` attributes.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::open_with(root, Limits::default())
    }

    /// [`open`](Self::open) with other limits.
    pub fn open_with(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, OpenError> {
        let root = root.into();
        for directory in ["images", "blobs/sha256", "layers", "holds", "tmp"] {
            let directory = root.join(directory);
            fs::create_dir_all(&directory).at("make", &directory)?;
        }
        let lock = lock(&root)?;
        let tmp = root.join("tmp");
        empty(&tmp)?;
        spread(&tmp);
        let inner = Inner {
            blobs: Blobs::new(root.join("blobs/sha256"), tmp.clone()),
            layers: Layers::new(root.join("layers"), tmp),
            state: RwLock::default(),
            writer: Mutex::default(),
            leases: Leases::default(),
            _lock: lock,
            limits,
            root,
        };
        *inner.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state::recover(&inner)?);
        let store = Self { inner: Arc::new(inner) };
        let mut change = store.change();
        change.sweep_blobs()?;
        drop(change.sweep()?);
        Ok(store)
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn layer_store(&self) -> &Layers {
        &self.inner.layers
    }

    /// The directory for what has no name yet.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a change; others wait until it is dropped.
    pub(crate) fn change(&self) -> Change<'_> {
        Change::begin(&self.inner)
    }

    /// Protects layers from removal until the lease is dropped; says which of them are there.
    pub(crate) fn lease(&self, layers: &[DiffId]) -> (Lease<'_>, Vec<bool>) {
        let _writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = self.inner.leases.take(layers);
        let state = self.state();
        let is_there = |layer| state.layers.get(layer).is_some_and(|record| record.is_complete());
        (lease, layers.iter().map(is_there).collect())
    }

    /// Every image, the newest first.
    pub fn list(&self) -> Vec<Image> {
        let state = self.state();
        let mut images: Vec<Image> = state.images.keys().filter_map(|id| state.image(id)).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.created()));
        images
    }

    /// The directories of an image's layers, topmost first, for overlayfs' `lowerdir`.
    ///
    /// They stay as long as the image does; a container [`hold`](Self::hold)s them.
    pub fn layers(&self, id: &ImageId) -> Result<Vec<PathBuf>, FindError> {
        let config = self.config(id)?;
        Ok(self.directories(&config.rootfs.diff_ids))
    }

    fn directories(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        // A layer that lies above itself (two steps of a build that made the same, or nothing) is the same without the lower one: what that had,
        // and hid, the upper one has and hides again. Overlayfs takes each directory once.
        let mut seen = HashSet::new();
        let once = layers.iter().rev().filter(|layer| seen.insert(*layer));
        once.map(|layer| self.inner.layers.path(layer)).collect()
    }

    /// An image's configuration.
    pub fn config(&self, id: &ImageId) -> Result<Arc<ImageConfig>, FindError> {
        let state = self.state();
        let known = state.images.get(id).ok_or_else(|| FindError::no_image(id))?;
        Ok(Arc::clone(&known.config))
    }

    /// The bytes of an image's configuration, whose digest is the id.
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, FindError> {
        match self.inner.blobs.read(&id.0) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(FindError::no_image(id)),
            Err(error) => Err(FindError::Damaged(*id, error)),
        }
    }
}

/// Takes the lock that says that the store is open. It goes with the process, however that ends.
fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(root.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(StateError::new("lock", &path, error).into()),
    }
}

/// Lets the file system lay out what is in each directory of `dir` apart from what is in the others: layers are made there, which
/// have nothing to do with one another. ext4 then puts a new one where there is most room (the attribute `T` of chattr(1)), and layers
/// that are unpacked side by side do not get into each other's way, nor into that of what was just removed: without a journal it goes
/// past each inode that was in use minutes ago, one by one, for every file that it makes. It is a hint, which others do not take.
fn spread(dir: &Path) {
    let hint = || {
        let dir = File::open(dir)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        Ok::<_, io::Error>(rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)?)
    };
    if let Err(error) = hint() {
        tracing::debug!(%error, "layers are laid out as all files are");
    }
}

fn empty(dir: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let path = entry.at("list", dir)?.path();
        let removed = match path.symlink_metadata().at("look at", &path)?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::new("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
