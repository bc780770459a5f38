//! `docker import`: an image of one layer out of a root file system's tar.

use std::io::Read;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::changes::{self, ChangeError};
use crate::config::{History, ImageConfig, RootFs, RunConfig};
use crate::digest::{DiffId, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::{LayerError, OnDisk};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Change, CreateError, Store, TagError, check_tag};

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name it gets ([`Reference::from_repo_and_tag`]).
    pub reference: Option<Reference>,
    /// The platform it is said to be for; this one by default.
    pub platform: Option<Platform>,
    /// The remark in its history.
    pub message: String,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is said to be for another operating system.
    #[error("operating system is not supported")]
    Os,
    /// An instruction cannot be followed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The layer was refused.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The name cannot be given.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The image was not made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The configuration could not be written.
    #[error("could not write the image's configuration")]
    Json(#[from] serde_json::Error),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for ImportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Os | Self::Change(_) => ErrorKind::Invalid,
            Self::Layer(error) => error.kind(),
            Self::Tag(error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::Json(_) | Self::State(_) => ErrorKind::Internal,
        }
    }
}

impl Store {
    /// Makes an image of one layer out of a root file system's tar, which may be compressed. Read to its end.
    pub fn import(&self, archive: impl Read + Send, options: &ImportOptions) -> Result<ImageId, ImportError> {
        if options.platform.as_ref().is_some_and(|platform| platform.os != "linux") {
            return Err(ImportError::Os);
        }
        let mut run = RunConfig::default();
        changes::apply(&mut run, &options.changes)?;
        if let Some(reference) = &options.reference {
            check_tag(reference)?;
        }
        let staged = self.layer_store().stage(archive, self.limits())?;
        let config = serde_json::to_vec(&configuration(options, run, staged.diff_id))?;
        let staged = self.layer_store().flush(vec![staged])?;
        let mut change = self.change();
        let made = make(&mut change, staged, &config, options.reference.as_ref());
        if made.is_err()
            && let Err(error) = change.sweep()
        {
            tracing::warn!(%error, "the layer of an image that was not imported is left until the next start");
        }
        made
    }
}

fn make(
    change: &mut Change<'_>,
    layer: OnDisk,
    config: &[u8],
    name: Option<&Reference>,
) -> Result<ImageId, ImportError> {
    change.add_layers(layer)?;
    let id = change.add_image(config)?;
    if let Some(name) = name {
        change.name(name, id)?;
    }
    Ok(id)
}

fn configuration(options: &ImportOptions, run: RunConfig, layer: DiffId) -> ImageConfig {
    let platform = options.platform.clone().unwrap_or_else(Platform::here);
    let created = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        comment: options.message.clone(),
        created: created.clone(),
        config: Some(run),
        history: vec![History { created, comment: options.message.clone(), ..History::default() }],
        rootfs: RootFs { diff_ids: vec![layer], ..RootFs::default() },
        ..ImageConfig::default()
    }
}
