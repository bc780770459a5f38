//! The store. (Contract; the bodies follow.)
#![expect(clippy::unimplemented, reason = "the contract is committed before what is behind it")]
#![allow(missing_docs, unused_variables, dead_code, reason = "as above")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{ImageConfig, Platform};
use crate::digest::ImageId;
use crate::error::{Classified, ErrorKind};
use crate::image::{ContainerUse, Image, Removed};
use crate::reference::Reference;

/// Keeps images. Cloning is cheap; clones are the same store. All methods block and may be called from any thread;
/// reading is never blocked by a load or an import under way.
#[derive(Debug, Clone)]
pub struct Store;

/// Why the store could not be opened. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

impl Classified for OpenError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why no image was found. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FindError(String);

impl Classified for FindError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why no name was given. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TagError(String);

impl Classified for TagError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why nothing was removed. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RemoveError(String);

impl Classified for RemoveError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why the archive was not loaded. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl Classified for LoadError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why the image was not imported. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ImportError(String);

impl Classified for ImportError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Why layers were not held or released. (Variants follow; use [`Classified::kind`] and print the chain.)
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HoldError(String);

impl Classified for HoldError {
    fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

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
        /// Bytes of the archive's member read so far, and in all.
        current: u64,
        total: u64,
    },
    /// A line for the user, with its line feed: `{"stream":"Loaded image: busybox:latest\n"}`.
    Message(String),
}

/// An image that a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    /// The tags that now lead to it.
    pub tags: Vec<Reference>,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name it gets (`Reference::from_repo_and_tag`).
    pub reference: Option<Reference>,
    /// The platform it is said to be for; this one by default.
    pub platform: Option<Platform>,
    /// The remark in its history.
    pub message: String,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Remove what stopped containers use, and every name.
    pub force: bool,
    /// Leave untagged parents.
    pub no_prune: bool,
}

impl Store {
    /// Opens or makes the store in `root`, and recovers: what a crash left half done is removed.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, OpenError> {
        unimplemented!()
    }

    /// Loads every image of a `docker save` archive or an OCI layout in a tar.
    pub fn load(
        &self,
        archive: impl Read,
        options: &LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, LoadError> {
        unimplemented!()
    }

    /// Makes an image of one layer out of a root file system's tar.
    pub fn import(&self, archive: impl Read, options: &ImportOptions) -> Result<ImageId, ImportError> {
        unimplemented!()
    }

    /// Every image, the newest first.
    pub fn list(&self) -> Vec<Image> {
        unimplemented!()
    }

    /// The image that a name, an id or the beginning of an id leads to.
    pub fn find(&self, name: &str) -> Result<Image, FindError> {
        unimplemented!()
    }

    /// Gives an image one more name, taking it from the image that had it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Image, TagError> {
        unimplemented!()
    }

    /// Takes a name from an image, and removes the image if it was the last, as `docker rmi` does.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        in_use: &dyn Fn(&ImageId) -> Vec<ContainerUse>,
    ) -> Result<Vec<Removed>, RemoveError> {
        unimplemented!()
    }

    /// The directories of an image's layers, topmost first, for overlayfs' `lowerdir`.
    pub fn layers(&self, id: &ImageId) -> Result<Vec<PathBuf>, FindError> {
        unimplemented!()
    }

    /// Keeps an image's layers on disk for a container, even if the image is removed by force. Survives restarts.
    /// Call it when a container is created; the directories, topmost first, are as of [`layers`](Self::layers).
    pub fn hold(&self, container: &str, id: &ImageId) -> Result<Vec<PathBuf>, HoldError> {
        unimplemented!()
    }

    /// The directories that a container holds, topmost first.
    pub fn held(&self, container: &str) -> Result<Vec<PathBuf>, HoldError> {
        unimplemented!()
    }

    /// Ends a [`hold`](Self::hold); layers that nothing else needs are removed. No error if there is none.
    pub fn release(&self, container: &str) -> Result<(), HoldError> {
        unimplemented!()
    }

    /// Ends the holds of all containers but those that `exists`; for the engine's start.
    pub fn release_all_but(&self, exists: &dyn Fn(&str) -> bool) -> Result<(), HoldError> {
        unimplemented!()
    }

    /// An image's configuration.
    pub fn config(&self, id: &ImageId) -> Result<Arc<ImageConfig>, FindError> {
        unimplemented!()
    }

    /// The bytes of an image's configuration, whose digest is the id.
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, FindError> {
        unimplemented!()
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        unimplemented!()
    }
}
