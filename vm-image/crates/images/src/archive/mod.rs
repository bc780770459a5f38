//! `docker load`: images out of an archive that `docker save`, BuildKit, skopeo or another tool wrote.
//!
//! The archive is spooled, its manifest says what is in it, and then each image comes in: the layers that are not
//! there yet are unpacked, and then image and names are made in one change. An image that is refused leaves nothing;
//! images before it in the archive stay, as with dockerd.

mod docker;
mod oci;
mod spool;

use std::collections::BTreeSet;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::config::{ImageConfig, Platform};
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::{LayerError, Staged};
use crate::reference::{Reference, ReferenceError};
use crate::store::{CreateError, Store};
use crate::tar::TarError;
use spool::{Section, Spool};

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Load only what is for this platform (`POST /images/load?platform=`).
    pub platform: Option<Platform>,
}

/// What happens during a load, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer is being unpacked: `{"status":"Loading layer","progressDetail":{…},"id":short id}`.
    Layer {
        /// The first 12 digits of its diff id.
        id: String,
        /// The bytes of the archive's member that have been read.
        current: u64,
        /// The bytes of the archive's member.
        total: u64,
    },
    /// A line for the user, with its line feed: `{"stream":"Loaded image: busybox:latest\n"}`.
    Message(String),
}

/// An image that a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The tags that now lead to it.
    pub tags: Vec<Reference>,
}

/// Why an archive was not loaded (any further).
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read as a tar.
    #[error("invalid archive")]
    Tar(#[from] TarError),
    /// It is a tar of something else.
    #[error("invalid archive: does not contain a manifest.json")]
    NoManifest,
    /// Its manifest says `null`.
    #[error("invalid manifest, manifest cannot be null (but can be [])")]
    NullManifest,
    /// A JSON file in it cannot be understood.
    #[error("invalid archive: failed to decode {0}")]
    Json(String, #[source] serde_json::Error),
    /// A JSON file in it is larger than such files are.
    #[error("invalid archive: {0} is larger than {1} bytes")]
    DocumentTooLarge(String, u64),
    /// Something that it speaks of is not in it.
    #[error("invalid archive: does not contain {0}")]
    Missing(String),
    /// A name in it leads out of it.
    #[error("invalid archive: {0:?} is outside of the archive")]
    Outside(String),
    /// A file in it is sparse, which nobody does here.
    #[error("invalid archive: {0:?} is sparse")]
    Sparse(String),
    /// It has more members than allowed.
    #[error("invalid archive: more than {0} members")]
    TooManyMembers(u64),
    /// A blob is not what its name says.
    #[error("invalid archive: {name} has digest {found}")]
    Digest {
        /// Its name in the archive.
        name: String,
        /// The digest of its bytes.
        found: Digest,
    },
    /// Indexes lead to indexes without end.
    #[error("invalid archive: indexes are nested too deeply")]
    TooDeep,
    /// There is nothing in it for the platform.
    #[error("no matching manifest for {0} in the archive")]
    NoPlatform(Platform),
    /// It has more or fewer layers than the configuration says.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {found}")]
    LayerCount {
        /// The layers in the manifest.
        expected: usize,
        /// The layers in the configuration.
        found: usize,
    },
    /// A layer is not what the configuration says.
    #[error("invalid diffID for layer {index}: expected {:?}, got {:?}", .expected.to_string(), .found.to_string())]
    DiffId {
        /// Its place in the stack, from zero.
        index: usize,
        /// What the configuration says.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// A layer was refused.
    #[error("failed to load layer {0}")]
    Layer(DiffId, #[source] LayerError),
    /// An image's name in it is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An image's name in it has no tag.
    #[error("invalid tag {0:?}")]
    BadTag(String),
    /// An image cannot be made of a configuration in it.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The image that it calls a parent cannot be it.
    #[error("image {parent} is not a valid parent for {child}")]
    BadParent {
        /// The supposed parent.
        parent: ImageId,
        /// The image.
        child: ImageId,
    },
    /// The disk has no room for it.
    #[error("no space left on device: remove containers and images that are not needed any more")]
    NoSpace,
    /// It could not be spooled.
    #[error("could not spool the archive")]
    Spool(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Layer(_, error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::NoSpace | Self::Spool(_) | Self::State(_) => ErrorKind::Internal,
            Self::NoPlatform(_) => ErrorKind::NotFound,
            Self::Tar(_)
            | Self::NoManifest
            | Self::NullManifest
            | Self::Json(..)
            | Self::DocumentTooLarge(..)
            | Self::Missing(_)
            | Self::Outside(_)
            | Self::Sparse(_)
            | Self::TooManyMembers(_)
            | Self::Digest { .. }
            | Self::TooDeep
            | Self::LayerCount { .. }
            | Self::DiffId { .. }
            | Self::Reference(_)
            | Self::BadTag(_)
            | Self::BadParent { .. } => ErrorKind::Invalid,
        }
    }
}

/// An image of the archive.
#[derive(Debug)]
struct Planned {
    bytes: Vec<u8>,
    config: ImageConfig,
    /// Lowest first.
    layers: Vec<Layer>,
    tags: Vec<Reference>,
    parent: Option<ImageId>,
}

/// A layer of the archive.
#[derive(Debug)]
struct Layer {
    section: Section,
    /// The digest of its bytes as they are in the archive, if it is known.
    digest: Option<Digest>,
}

impl Store {
    /// Loads every image of a `docker save` archive or an OCI layout in a tar, which may be compressed.
    ///
    /// `archive` is read once, to its end. Events come on the calling thread.
    pub fn load(
        &self,
        archive: impl Read,
        options: &LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, LoadError> {
        let spool = Spool::receive(archive, &self.tmp(), self.limits())?;
        let mut load = Load { store: self, on_event, loaded: Vec::new(), parents: Vec::new() };
        for image in self.plan(&spool, options)? {
            load.image(image)?;
        }
        load.set_parents()?;
        load.report_untagged();
        Ok(load.loaded)
    }

    fn plan(&self, spool: &Spool, options: &LoadOptions) -> Result<Vec<Planned>, LoadError> {
        let platform = options.platform.as_ref();
        if let Some(manifest) = spool.read(docker::MANIFEST, self.limits())? {
            let mut planned = docker::plan(spool, &manifest, self.limits())?;
            planned.retain(|image| platform.is_none_or(|wanted| wanted.runs(&image.config.platform())));
            return Ok(planned);
        }
        let index = spool.read(oci::INDEX, self.limits())?.ok_or(LoadError::NoManifest)?;
        oci::plan(spool, &index, platform, self.limits())
    }
}

struct Load<'a> {
    store: &'a Store,
    on_event: &'a mut dyn FnMut(LoadEvent),
    loaded: Vec<Loaded>,
    parents: Vec<(ImageId, ImageId)>,
}

impl Load<'_> {
    fn message(&mut self, line: String) {
        (self.on_event)(LoadEvent::Message(line + "\n"));
    }

    fn image(&mut self, image: Planned) -> Result<(), LoadError> {
        let diff_ids = &image.config.rootfs.diff_ids;
        if image.layers.len() != diff_ids.len() {
            return Err(LoadError::LayerCount { expected: image.layers.len(), found: diff_ids.len() });
        }
        let (lease, present) = self.store.lease(diff_ids);
        let mut seen: BTreeSet<DiffId> = BTreeSet::new();
        let mut staged = Vec::new();
        for (index, layer) in image.layers.into_iter().enumerate() {
            if !present[index] && seen.insert(diff_ids[index]) {
                staged.push(self.layer(index, layer, diff_ids[index])?);
            }
        }
        let committed = self.commit(&image.bytes, staged, &image.tags);
        drop(lease);
        let id = committed.inspect_err(|_| self.sweep())?;
        self.parents.extend(image.parent.map(|parent| (id, parent)));
        self.loaded.push(Loaded { id, tags: image.tags });
        Ok(())
    }

    fn layer(&mut self, index: usize, layer: Layer, expected: DiffId) -> Result<Staged, LoadError> {
        let refused = |error| match error {
            LayerError::NoSpace => LoadError::NoSpace,
            error => LoadError::Layer(expected, error),
        };
        let digest = layer.digest;
        let mut source = Watched::new(layer, expected, self.on_event);
        let staged = self.store.layer_store().stage(&mut source, self.store.limits()).map_err(refused)?;
        let found = source.finish().map_err(|error| refused(LayerError::Tar(TarError::from_read(error))))?;
        if let (Some(digest), Some(found)) = (digest, found)
            && digest != found
        {
            return Err(LoadError::Digest { name: format!("blobs/sha256/{}", digest.hex()), found });
        }
        match staged.diff_id == expected {
            true => Ok(staged),
            false => Err(LoadError::DiffId { index, expected, found: staged.diff_id }),
        }
    }

    fn commit(
        &mut self,
        config: &[u8],
        staged: Vec<Staged>,
        tags: &[Reference],
    ) -> Result<ImageId, LoadError> {
        let mut change = self.store.change();
        change.add_layers(staged)?;
        let id = change.add_image(config)?;
        let mut lines = Vec::new();
        for tag in tags {
            if let Some(before) = change.name(tag, id)? {
                lines.push(format!(
                    "The image {} already exists, renaming the old one with ID {before} to empty string",
                    tag.familiar()
                ));
            }
            lines.push(format!("Loaded image: {}", tag.familiar()));
        }
        drop(change);
        lines.into_iter().for_each(|line| self.message(line));
        Ok(id)
    }

    /// Removes the layers of an image that could not be made, for which there may be no room.
    fn sweep(&self) {
        if let Err(error) = self.store.change().sweep() {
            tracing::warn!(%error, "the layers of an image that was not loaded are left until the next start");
        }
    }

    /// Remembers which image of the archive was made from which other.
    fn set_parents(&mut self) -> Result<(), LoadError> {
        for (child, parent) in std::mem::take(&mut self.parents) {
            if !self.loaded.iter().any(|loaded| loaded.id == parent) || child == parent {
                continue;
            }
            let mut change = self.store.change();
            let history = |id| change.image(id).map(|image| image.config.history.clone()).unwrap_or_default();
            let (of_child, of_parent) = (history(&child), history(&parent));
            let extends = of_child.len() == of_parent.len() + 1 && of_child.starts_with(&of_parent);
            let untold = of_child.is_empty() && of_parent.is_empty();
            if !(extends || untold) {
                return Err(LoadError::BadParent { parent, child });
            }
            change.set_parent(&child, parent)?;
        }
        Ok(())
    }

    /// dockerd tells ids only when the last image of the archive has no name.
    fn report_untagged(&mut self) {
        if self.loaded.last().is_some_and(|loaded| loaded.tags.is_empty()) {
            let ids: Vec<_> = self.loaded.iter().map(|loaded| loaded.id).collect();
            ids.into_iter().for_each(|id| self.message(format!("Loaded image ID: {id}")));
        }
    }
}

/// Tells how far a layer has been read, and takes the digest of its bytes.
struct Watched<'a> {
    section: Section,
    /// Only a blob that has a digest to compare needs one.
    hasher: Option<Sha256>,
    id: String,
    total: u64,
    told: u64,
    on_event: &'a mut dyn FnMut(LoadEvent),
}

impl<'a> Watched<'a> {
    fn new(layer: Layer, id: DiffId, on_event: &'a mut dyn FnMut(LoadEvent)) -> Self {
        let total = layer.section.len();
        let hasher = layer.digest.map(|_| Sha256::new());
        Self { section: layer.section, hasher, id: id.0.short(), total, told: 0, on_event }
    }

    fn tell(&mut self) {
        self.told = self.total - self.section.len();
        let event = LoadEvent::Layer { id: self.id.clone(), current: self.told, total: self.total };
        (self.on_event)(event);
    }

    /// Reads what the decompressor left, and gives the digest of all.
    fn finish(mut self) -> io::Result<Option<Digest>> {
        io::copy(&mut self, &mut io::sink())?;
        self.tell();
        Ok(self.hasher.map(Digest::finish))
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.section.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        let step = (self.total / 100).max(512 * 1024);
        if self.total - self.section.len() >= self.told + step {
            self.tell();
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
