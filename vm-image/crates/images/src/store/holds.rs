//! What containers need, whatever becomes of their images: `holds/<container>`.
//!
//! dockerd lets `docker rmi -f` take an image from under a stopped container, which can still be started. So a
//! container holds the layers themselves. A hold is a hard link to the image's configuration, which names them: it is
//! made without writing or syncing anything, since it is on the way of every `docker run`.
//!
//! So a power cut right after it may take it back, but only while the image is there: the holds of an image are synced
//! before it goes. At its start the engine therefore calls [`Store::hold`] for every container that it finds, which is
//! nothing for one that holds its image already, and then [`Store::release_all_but`] for those that it did not find.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::state::read_config;
use super::{FindError, OpenError, Store};
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::{At, StateError};
use crate::error::{Classified, ErrorKind};

/// What each container holds.
pub(super) type Holds = BTreeMap<String, Hold>;

/// What a container holds. The image need not be there any more.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) image: ImageId,
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
    /// Call it when a container is created, before its creation is told to anybody, and again for each container when
    /// the engine starts: a power cut may have taken the hold back. A container that holds this image goes on holding
    /// it, also if the image is gone; one that holds another lets go of that. The directories are those of
    /// [`layers`](Self::layers), topmost first.
    pub fn hold(&self, container: &str, id: &ImageId) -> Result<Vec<PathBuf>, HoldError> {
        check(container)?;
        if let Some(held) = self.state().holds.get(container).filter(|held| held.image == *id) {
            return Ok(self.directories(&held.layers));
        }
        let mut change = self.change();
        let known = change.state.images.get(id).ok_or_else(|| FindError::no_image(id))?;
        let layers = known.config.rootfs.diff_ids.clone();
        let directories = self.directories(&layers);
        change.add_hold(container, id, layers)?;
        Ok(directories)
    }

    /// The directories that a container holds, topmost first.
    pub fn held(&self, container: &str) -> Result<Vec<PathBuf>, HoldError> {
        let state = self.state();
        let held = state.holds.get(container).ok_or_else(|| HoldError::NotHeld(container.to_owned()))?;
        Ok(self.directories(&held.layers))
    }

    /// Ends a [`hold`](Self::hold); layers that nothing else needs are removed. No error if there is none.
    pub fn release(&self, container: &str) -> Result<(), HoldError> {
        self.release_all_but(&|other| other != container)
    }

    /// Ends the holds of all containers but those that `exists`; for the engine's start.
    pub fn release_all_but(&self, exists: &dyn Fn(&str) -> bool) -> Result<(), HoldError> {
        let mut change = self.change();
        let held = change.state.holds.keys().chain(&change.state.unknown_holds);
        let gone: Vec<String> = held.filter(|held| !exists(held)).cloned().collect();
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
    root.join("holds").join(container)
}

/// What containers hold, and the containers of which that cannot be read: a rotten configuration is so for its image and for
/// all that hold it, since they are one file.
pub(super) fn recover(root: &Path) -> Result<(Holds, BTreeSet<String>), OpenError> {
    let dir = root.join("holds");
    let (mut holds, mut unknown) = (Holds::new(), BTreeSet::new());
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        let Some(container) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let bytes = fs::read(&path).at("read", &path)?;
        match read_config(&bytes) {
            Ok(config) => {
                let hold = Hold { image: ImageId(Digest::of(&bytes)), layers: config.rootfs.diff_ids };
                holds.insert(container.to_owned(), hold);
            }
            Err(error) => {
                tracing::warn!(container, %error, "what a container holds cannot be read: no layer is removed while it is there");
                unknown.insert(container.to_owned());
            }
        }
    }
    Ok((holds, unknown))
}
