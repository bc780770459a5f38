//! What the store knows, in memory; and how it finds out at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::holds::Holds;
use super::names::Names;
use super::{Inner, OpenError};
use crate::blobs::{self, BlobError};
use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::{self, StateError};
use crate::error::{Classified, ErrorKind, chain};
use crate::image::Image;
use crate::layer::LayerRecord;
use crate::reference::Reference;

/// 1 did not know of manifests; its records are read as having none.
const FORMAT: u32 = 2;

/// Everything that is kept. Changes make a new one; a reader keeps the one it has.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) images: BTreeMap<ImageId, Known>,
    pub(super) names: Names,
    pub(super) holds: Holds,
    /// Containers of which it cannot be read what they hold: they may hold any layer.
    pub(super) unknown_holds: BTreeSet<String>,
    /// The layers on disk.
    pub(super) layers: BTreeMap<DiffId, Arc<LayerRecord>>,
}

/// What is known of an image.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) config: Arc<ImageConfig>,
    pub(super) record: Record,
}

/// What `images/<id>.json` says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub(super) last_tagged: Option<OffsetDateTime>,
    /// The manifests that it came with, the last first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) manifests: Vec<Manifest>,
}

/// A manifest that an image came with, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The number of its bytes.
    pub size: u64,
    /// The index that led to it, which is kept too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
}

impl Record {
    /// The documents that are kept for this image beside its configuration.
    pub(super) fn documents(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().flat_map(|manifest| [Some(manifest.digest), manifest.index]).flatten()
    }
}

impl Record {
    pub(super) fn new() -> Self {
        Self { version: FORMAT, ..Self::default() }
    }
}

/// Why no image was made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It is no configuration.
    #[error("invalid image JSON")]
    Json(#[from] serde_json::Error),
    /// Its history tells of more layers than it has.
    #[error("too many non-empty layers in History section")]
    History,
    /// It is for another operating system.
    #[error("cannot load {0} image on linux")]
    Os(String),
    /// It could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// It could not be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl Classified for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Json(_) | Self::History | Self::Os(_) => ErrorKind::Invalid,
            Self::State(_) | Self::Blob(_) => ErrorKind::Internal,
        }
    }
}

/// Reads a configuration, if an image of this store can have it.
pub(crate) fn read_config(bytes: &[u8]) -> Result<ImageConfig, CreateError> {
    let config: ImageConfig = serde_json::from_slice(bytes)?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(CreateError::Os(config.os));
    }
    if config.history.iter().filter(|step| !step.empty_layer).count() > config.rootfs.diff_ids.len() {
        return Err(CreateError::History);
    }
    Ok(config)
}

impl State {
    pub(super) fn image(&self, id: &ImageId) -> Option<Image> {
        let known = self.images.get(id)?;
        let sizes = known.config.rootfs.diff_ids.iter().filter_map(|layer| self.layers.get(layer));
        let size = sizes.fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        let references = self.names.of(id);
        Some(Image {
            id: *id,
            config: Arc::clone(&known.config),
            others: self.names.others(id),
            is_behind_another: !references.is_empty() && !self.names.is_first(id),
            references,
            size,
            parent: known.record.parent,
            children: self.children(id),
            last_tagged: known.record.last_tagged,
        })
    }

    pub(super) fn children(&self, id: &ImageId) -> usize {
        self.images.values().filter(|known| known.record.parent.as_ref() == Some(id)).count()
    }

    /// The layers that images and containers need.
    pub(super) fn needed_layers(&self) -> BTreeSet<DiffId> {
        if !self.unknown_holds.is_empty() {
            return self.layers.keys().copied().collect();
        }
        let of_images = self.images.values().flat_map(|known| &known.config.rootfs.diff_ids);
        let of_holds = self.holds.values().flat_map(|held| &held.layers);
        of_images.chain(of_holds).copied().collect()
    }

    /// The documents that images need: configurations, manifests, indexes.
    pub(super) fn needed_documents(&self) -> BTreeSet<Digest> {
        let with = |(id, known): (&ImageId, &Known)| {
            std::iter::once(id.0).chain(known.record.documents()).collect::<Vec<_>>()
        };
        self.images.iter().flat_map(with).collect()
    }
}

pub(super) fn names_path(root: &Path) -> PathBuf {
    root.join("repositories.json")
}

pub(super) fn record_path(root: &Path, id: &ImageId) -> PathBuf {
    root.join("images").join(format!("{}.json", id.0.hex()))
}

/// Finds out what is there. What is not whole is told of and passed over, and the sweep that follows removes it.
pub(super) fn recover(inner: &Inner) -> Result<State, OpenError> {
    let mut state = State { names: Names::recover(&names_path(&inner.root))?, ..State::default() };
    for layer in inner.layers.list()? {
        match inner.layers.record(&layer) {
            Ok(Some(record)) => drop(state.layers.insert(layer, Arc::new(record))),
            Ok(None) => drop(inner.layers.discard(&layer)?),
            Err(OpenError::State(error)) if error.is_damage() => match inner.layers.mend_record(&layer)? {
                Some(record) => {
                    tracing::warn!(%layer, error = %chain(&error), "what is known of a layer is damaged: pull or load one of its images again, which mends it");
                    state.layers.insert(layer, Arc::new(record));
                }
                None => drop(inner.layers.discard(&layer)?),
            },
            Err(error) => return Err(error),
        }
    }
    for digest in blobs::names(&inner.root.join("images"))? {
        let id = ImageId(digest);
        match recover_image(inner, &state, &id)? {
            Ok(known) => drop(state.images.insert(id, known)),
            Err(why) => {
                let names = familiar(&state.names.of(&id));
                tracing::warn!(image = %id, names, why, "an image is damaged, and is forgotten: pull or load it again");
                durable::remove(&record_path(&inner.root, &id))?;
            }
        }
    }
    state.names.retain(|image| state.images.contains_key(image));
    (state.holds, state.unknown_holds) = super::holds::recover(&inner.root)?;
    Ok(state)
}

/// What is known of an image, or why it cannot be used.
fn recover_image(inner: &Inner, state: &State, id: &ImageId) -> Result<Result<Known, String>, OpenError> {
    let path = record_path(&inner.root, id);
    let record = match durable::read_versioned::<Record>(&path, FORMAT) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(Err("its record is gone".to_owned())),
        Err(OpenError::State(error)) if error.is_damage() => return Ok(Err(chain(&error))),
        Err(error) => return Err(error),
    };
    let bytes = match inner.blobs.read(&id.0) {
        Ok(Some(bytes)) => bytes,
        Err(BlobError::State(error)) => return Err(error.into()),
        Ok(None) => return Ok(Err("its configuration is gone".to_owned())),
        Err(error) => return Ok(Err(format!("its configuration: {}", chain(&error)))),
    };
    Ok(match read_config(&bytes) {
        Ok(config) => match config.rootfs.diff_ids.iter().find(|layer| !state.layers.contains_key(layer)) {
            None => Ok(Known { config: Arc::new(config), record }),
            Some(layer) => Err(format!("its layer {layer} is gone")),
        },
        Err(error) => Err(format!("its configuration: {}", chain(&error))),
    })
}

/// Names for a log.
pub(super) fn familiar(names: &[Reference]) -> String {
    names.iter().map(Reference::familiar).collect::<Vec<_>>().join(" ")
}

/// Layers that loads under way will need, and how many of them need each.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<BTreeMap<DiffId, usize>>);

/// Protects layers from removal until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    leases: &'a Leases,
    layers: Vec<DiffId>,
}

impl Leases {
    pub(super) fn take(&self, layers: &[DiffId]) -> Lease<'_> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            *counts.entry(*layer).or_default() += 1;
        }
        Lease { leases: self, layers: layers.to_vec() }
    }

    pub(super) fn release(&self, layers: &[DiffId]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            if let Some(count) = counts.get_mut(layer) {
                *count -= 1;
            }
        }
        counts.retain(|_, count| *count > 0);
    }

    pub(super) fn has(&self, layer: &DiffId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(layer)
    }
}

impl Lease<'_> {
    /// Leaves it to somebody else to release the layers.
    pub(super) fn keep(mut self) {
        self.layers.clear();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.leases.release(&self.layers);
    }
}
