//! Why nothing was pulled, in dockerd's words.

use std::sync::Arc;

use crate::digest::{DiffId, Digest};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::LayerError;
use crate::manifest::ManifestError;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::RegistryError;
use crate::store::CreateError;

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The repository is not there, or not for everybody.
    #[error("pull access denied for {0}, repository does not exist or may require 'docker login'")]
    Denied(String, #[source] RegistryError),
    /// The tag or digest is not there.
    #[error("manifest for {0} not found")]
    NoManifest(String, #[source] RegistryError),
    /// The repository is not there.
    #[error("repository {0} not found")]
    NoRepository(String, #[source] RegistryError),
    /// Another error of the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What the name leads to is no image.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is none for the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(Platform),
    /// Indexes lead to indexes without end.
    #[error("indexes are nested too deeply")]
    TooDeep,
    /// It has more or fewer layers than the configuration says.
    #[error("mismatched image rootfs and manifest layers")]
    LayerCount,
    /// A layer has another tar than the configuration says.
    #[error("layers from manifest don't match image configuration: expected {expected}, got {found}")]
    DiffId {
        /// What the configuration says.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// A layer's bytes are not what was asked for.
    #[error("filesystem layer verification failed for digest {0}")]
    Verification(Digest),
    /// A layer was refused.
    #[error("failed to register layer")]
    Layer(#[from] LayerError),
    /// The image was not made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something that was pulled together with another client failed.
    #[error(transparent)]
    Shared(Arc<PullError>),
    /// Nobody waits for it any more.
    #[error("the pull was cancelled")]
    Cancelled,
    /// A part of the engine failed.
    #[error("the engine failed: {0}")]
    Engine(String),
}

impl PullError {
    /// Whether another registry with the same image may do better.
    pub(super) fn is_of_source(&self) -> bool {
        match self {
            Self::Registry(_) | Self::Verification(_) | Self::DiffId { .. } => true,
            // Bytes that are wrong, which came to light before their digest did.
            Self::Layer(error) => error.kind() == ErrorKind::Invalid,
            Self::Shared(error) => error.is_of_source(),
            _ => false,
        }
    }

    /// What an answer to the question for a manifest means.
    pub(super) fn of_manifest(name: &Reference, error: RegistryError) -> Self {
        match error.refusal().map(|refusal| refusal.code.as_str()) {
            Some("DENIED") => Self::Denied(name.familiar_name(), error),
            Some("MANIFEST_UNKNOWN") => Self::NoManifest(name.familiar(), error),
            Some("NAME_UNKNOWN") => Self::NoRepository(name.familiar_name(), error),
            _ => Self::Registry(error),
        }
    }
}

impl Classified for PullError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied(..) | Self::NoManifest(..) | Self::NoRepository(..) | Self::NoPlatform(_) => {
                ErrorKind::NotFound
            }
            Self::Manifest(_) | Self::LayerCount | Self::TooDeep => ErrorKind::Invalid,
            Self::Create(error) => error.kind(),
            Self::Shared(error) => error.kind(),
            Self::Registry(_)
            | Self::DiffId { .. }
            | Self::Verification(_)
            | Self::Layer(_)
            | Self::State(_)
            | Self::Cancelled
            | Self::Engine(_) => ErrorKind::Internal,
        }
    }
}
