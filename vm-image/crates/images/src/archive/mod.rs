//! `docker load`: images out of an archive that `docker save`, BuildKit, skopeo or another tool wrote.
//!
//! The archive is spooled, its manifest says what is in it, and then each image comes in: the layers that are not
//! there yet are unpacked, and then image and names are made in one change. An image that is refused leaves nothing;
//! images before it in the archive stay, as with dockerd.

mod docker;
mod layers;
mod oci;
mod spool;

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::{LayerError, Staged};
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::store::{CreateError, Manifest, Store};
use crate::tar::TarError;
use layers::Wanted;
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
    /// The manifests of it that the archive has.
    kept: Vec<Kept>,
    /// An image before it has got its tags, too, for another platform.
    is_another_platform: bool,
}

/// A manifest of the archive, with its own bytes and those of the index that led to it.
#[derive(Debug)]
struct Kept {
    manifest: Manifest,
    documents: Vec<Vec<u8>>,
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
        archive: impl Read + Send,
        options: &LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, LoadError> {
        let spool = Spool::receive(archive, &self.tmp(), self.limits())?;
        let mut load = Load { store: self, on_event, loaded: Vec::new(), parents: Vec::new() };
        let planned = self.plan(&spool, options)?;
        // Now the last layer that is read takes the file with it, which else would be flushed to the disk with the layers.
        drop(spool);
        for image in planned {
            load.image(image)?;
        }
        load.set_parents()?;
        load.report_untagged();
        Ok(load.loaded)
    }

    /// Docker's own manifest tells most, unless the layout's index has the same for several platforms.
    fn plan(&self, spool: &Spool, options: &LoadOptions) -> Result<Vec<Planned>, LoadError> {
        let (platform, limits) = (options.platform.as_ref(), self.limits());
        let index = spool.read(oci::INDEX, limits)?;
        let manifest = spool.read(docker::MANIFEST, limits)?;
        let manifest = manifest.filter(|_| !index.as_ref().is_some_and(|index| oci::has_indexes(index)));
        let Some(manifest) = manifest else {
            return oci::plan(spool, &index.ok_or(LoadError::NoManifest)?, platform, limits);
        };
        let mut planned = docker::plan(spool, &manifest, limits)?;
        planned.retain(|image| platform.is_none_or(|wanted| image.config.is_only_for(wanted)));
        let kept = index.map(|index| oci::manifests(spool, &index, limits)).unwrap_or_default();
        for (config, kept) in kept {
            if let Some(image) = planned.iter_mut().find(|image| Digest::of(&image.bytes) == config) {
                image.kept.push(kept);
            }
        }
        Ok(planned)
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

    fn image(&mut self, mut image: Planned) -> Result<(), LoadError> {
        let diff_ids = &image.config.rootfs.diff_ids;
        if image.layers.len() != diff_ids.len() {
            return Err(LoadError::LayerCount { expected: image.layers.len(), found: diff_ids.len() });
        }
        let (lease, present) = self.store.lease(diff_ids);
        let mut seen: BTreeSet<DiffId> = BTreeSet::new();
        let mut wanted = Vec::new();
        for (index, layer) in std::mem::take(&mut image.layers).into_iter().enumerate() {
            if !present[index] && seen.insert(diff_ids[index]) {
                wanted.push(Wanted { index, layer, diff_id: diff_ids[index] });
            }
        }
        let staged = layers::stage(self.store, wanted, self.on_event)?;
        let committed = self.commit(&image, staged);
        drop(lease);
        let (id, lines) = committed.inspect_err(|_| self.sweep())?;
        lines.into_iter().for_each(|line| self.message(line));
        self.parents.extend(image.parent.map(|parent| (id, parent)));
        if !image.is_another_platform {
            self.loaded.push(Loaded { id, tags: image.tags });
        }
        Ok(())
    }

    /// Makes an image and its names; also says what is to be told of that.
    fn commit(&self, image: &Planned, staged: Vec<Staged>) -> Result<(ImageId, Vec<String>), LoadError> {
        let staged = self.store.layer_store().flush(staged)?;
        let mut change = self.store.change();
        change.add_layers(staged)?;
        let id = change.add_image(&image.bytes)?;
        for kept in &image.kept {
            let documents: Vec<_> = kept.documents.iter().map(Vec::as_slice).collect();
            change.add_manifest(&id, kept.manifest.clone(), &documents)?;
        }
        let mut lines = Vec::new();
        for tag in &image.tags {
            if image.is_another_platform {
                change.name_platform(tag, id)?;
                continue;
            }
            if let Some(before) = change.name(tag, id)? {
                lines.push(format!(
                    "The image {} already exists, renaming the old one with ID {before} to empty string",
                    tag.familiar()
                ));
            }
            lines.push(format!("Loaded image: {}", tag.familiar()));
        }
        Ok((id, lines))
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

#[cfg(test)]
mod tests;
