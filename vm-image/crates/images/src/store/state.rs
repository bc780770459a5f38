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
use crate::digest::{DiffId, ImageId};
use crate::durable::{self, StateError};
use crate::error::{Classified, ErrorKind};
use crate::image::Image;

const FORMAT: u32 = 1;

/// Everything that is kept. Changes make a new one; a reader keeps the one it has.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) images: BTreeMap<ImageId, Known>,
    pub(super) names: Names,
    pub(super) holds: Holds,
    /// The layers on disk, and the bytes in their files.
    pub(super) layers: BTreeMap<DiffId, u64>,
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
        let size = sizes.fold(0, |sum: u64, size| sum.saturating_add(*size));
        Some(Image {
            id: *id,
            config: Arc::clone(&known.config),
            references: self.names.of(id),
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
        let of_images = self.images.values().flat_map(|known| &known.config.rootfs.diff_ids);
        let of_holds = self.holds.values().flat_map(|held| &held.layers);
        of_images.chain(of_holds).copied().collect()
    }

    fn has_layers(&self, config: &ImageConfig) -> bool {
        config.rootfs.diff_ids.iter().all(|layer| self.layers.contains_key(layer))
    }
}

pub(super) fn names_path(root: &Path) -> PathBuf {
    root.join("repositories.json")
}

pub(super) fn record_path(root: &Path, id: &ImageId) -> PathBuf {
    root.join("images").join(format!("{}.json", id.0.hex()))
}

/// Finds out what is there. What is not whole is passed over, and the sweep that follows removes it.
pub(super) fn recover(inner: &Inner) -> Result<State, OpenError> {
    let mut state = State { names: Names::read(&names_path(&inner.root))?, ..State::default() };
    for layer in inner.layers.list()? {
        match inner.layers.size(&layer)? {
            Some(size) => drop(state.layers.insert(layer, size)),
            None => drop(inner.layers.discard(&layer)?),
        }
    }
    for digest in blobs::names(&inner.root.join("images"))? {
        let id = ImageId(digest);
        match recover_image(inner, &state, &id)? {
            Some(known) => drop(state.images.insert(id, known)),
            None => {
                tracing::warn!(image = %id, "image is not whole, and is forgotten");
                durable::remove(&record_path(&inner.root, &id))?;
            }
        }
    }
    state.names.retain(|image| state.images.contains_key(image));
    state.holds = super::holds::recover(&inner.root)?;
    Ok(state)
}

fn recover_image(inner: &Inner, state: &State, id: &ImageId) -> Result<Option<Known>, OpenError> {
    let path = record_path(&inner.root, id);
    let Some(record) = durable::read_json::<Record>(&path)? else { return Ok(None) };
    if record.version > FORMAT {
        return Err(OpenError::Newer { path, found: record.version, known: FORMAT });
    }
    let bytes = match inner.blobs.read(&id.0) {
        Ok(Some(bytes)) => bytes,
        Err(BlobError::State(error)) => return Err(error.into()),
        Ok(None) | Err(_) => return Ok(None),
    };
    let config = read_config(&bytes).ok().filter(|config| state.has_layers(config));
    Ok(config.map(|config| Known { config: Arc::new(config), record }))
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

    pub(super) fn has(&self, layer: &DiffId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(layer)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut counts = self.leases.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in &self.layers {
            if let Some(count) = counts.get_mut(layer) {
                *count -= 1;
            }
        }
        counts.retain(|_, count| *count > 0);
    }
}
