//! Why nothing was pushed, in dockerd's words.

use crate::digest::DiffId;
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::registry::RegistryError;
use crate::store::{CreateError, FindError};

/// Why nothing (more) was pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// No image has this name.
    #[error("tag does not exist: {0}")]
    NoTag(String),
    /// No image has a name in this repository.
    #[error("An image does not exist locally with the tag: {0}")]
    NoImage(String),
    /// The image went meanwhile.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The registry asks for a name and password, and none are known.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// The registry refused, or could not be reached.
    #[error(transparent)]
    Registry(RegistryError),
    /// A layer was kept by a version that did not keep what pushing needs.
    #[error(
        "layer {0} was stored by an older version that kept no copy to push: load or pull the image again"
    )]
    Incomplete(DiffId),
    /// A layer could not be read.
    #[error("could not read layer {0}")]
    Read(DiffId, #[source] std::io::Error),
    /// What is kept of a layer is not what it was: a disk that rots.
    #[error("layer {0} is damaged: pull or load the image again, then push it")]
    Damaged(DiffId),
    /// What was pushed could not be written down.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A part of the engine failed.
    #[error("the engine failed: {0}")]
    Engine(String),
}

impl From<RegistryError> for PushError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoCredentials { .. } => Self::NoCredentials,
            error => Self::Registry(error),
        }
    }
}

impl Classified for PushError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTag(_) | Self::NoImage(_) => ErrorKind::NotFound,
            Self::Find(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::NoCredentials
            | Self::Incomplete(_)
            | Self::Read(..)
            | Self::Damaged(_)
            | Self::State(_)
            | Self::Engine(_) => ErrorKind::Internal,
        }
    }
}
