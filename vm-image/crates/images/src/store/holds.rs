//! What containers need, whatever becomes of their images: `holds/<container>.json`.
//!
//! dockerd lets `docker rmi -f` take an image from under a stopped container, which can still be started. So a
//! container holds the layers themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FindError, OpenError, Store};
use crate::digest::{DiffId, ImageId};
use crate::durable::{self, At, StateError};
use crate::error::{Classified, ErrorKind};

const FORMAT: u32 = 1;

/// What a container needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hold {
    version: u32,
    image: ImageId,
    /// Lowest first.
    pub(super) layers: Vec<DiffId>,
}

/// Why layers were not held or released.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The container holds nothing.
    #[error("container {0} holds no image")]
    NotHeld(String),
    /// No container has such an id.
    #[error("{0:?} is no container id")]
    BadContainer(String),
    /// It could not be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for HoldError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Find(error) => error.kind(),
            Self::NotHeld(_) => ErrorKind::NotFound,
            Self::BadContainer(_) => ErrorKind::Invalid,
            Self::State(_) => ErrorKind::Internal,
        }
    }
}

impl Store {
    /// Keeps an image's layers on disk for a container, even if the image is removed by force. Survives restarts.
    ///
    /// Call it when a container is created, before its creation is told to anybody. The directories are those of
    /// [`layers`](Self::layers), topmost first.
    pub fn hold(&self, container: &str, id: &ImageId) -> Result<Vec<PathBuf>, HoldError> {
        check(container)?;
        let mut change = self.change();
        let known = change.state.images.get(id).ok_or_else(|| FindError::no_image(id))?;
        let layers = known.config.rootfs.diff_ids.clone();
        let directories = self.directories(&layers);
        change.add_hold(container, Hold { version: FORMAT, image: *id, layers })?;
        Ok(directories)
    }

    /// The directories that a container holds, topmost first.
    pub fn held(&self, container: &str) -> Result<Vec<PathBuf>, HoldError> {
        let state = self.state();
        let hold = state.holds.get(container).ok_or_else(|| HoldError::NotHeld(container.to_owned()))?;
        Ok(self.directories(&hold.layers))
    }

    /// Ends a [`hold`](Self::hold); layers that nothing else needs are removed. No error if there is none.
    pub fn release(&self, container: &str) -> Result<(), HoldError> {
        self.release_all_but(&|other| other != container)
    }

    /// Ends the holds of all containers but those that `exists`; for the engine's start.
    pub fn release_all_but(&self, exists: &dyn Fn(&str) -> bool) -> Result<(), HoldError> {
        let mut change = self.change();
        let gone: Vec<String> = change.state.holds.keys().filter(|held| !exists(held)).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        for container in gone {
            change.remove_hold(&container)?;
        }
        drop(change.sweep()?);
        Ok(())
    }
}

fn check(container: &str) -> Result<(), HoldError> {
    let good = container.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"_-".contains(&letter));
    match good && !container.is_empty() && container.len() <= 128 {
        true => Ok(()),
        false => Err(HoldError::BadContainer(container.to_owned())),
    }
}

pub(super) fn path(root: &Path, container: &str) -> PathBuf {
    root.join("holds").join(format!("{container}.json"))
}

pub(super) fn recover(root: &Path) -> Result<BTreeMap<String, Hold>, OpenError> {
    let dir = root.join("holds");
    let mut holds = BTreeMap::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        let Some(container) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let Some(hold) = durable::read_json::<Hold>(&path)? else { continue };
        if hold.version > FORMAT {
            return Err(OpenError::Newer { path, found: hold.version, known: FORMAT });
        }
        holds.insert(container.to_owned(), hold);
    }
    Ok(holds)
}
