//! `docker commit`: an image of another one and what a container changed of it.

use std::io::Read;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::changes::{self, ChangeError};
use crate::config::{History, ImageConfig, RunConfig};
use crate::digest::{DiffId, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::{LayerError, OnDisk};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Change, CreateError, FindError, Store, TagError, check_tag};

/// The digest of an archive of nothing, two empty blocks: a container that changed no file has no layer of its own.
const NOTHING: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// How to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image that the layer is a change of; none for a container of no image.
    pub parent: Option<ImageId>,
    /// The name it gets ([`Reference::from_repo_and_tag`]).
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// The remark in its history.
    pub message: String,
    /// What ran, for its history.
    pub created_by: String,
    /// What containers of it start with.
    pub config: RunConfig,
}

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The parent is gone.
    #[error(transparent)]
    Find(#[from] FindError),
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

impl Classified for CommitError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Find(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Tag(error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::Json(_) | Self::State(_) => ErrorKind::Internal,
        }
    }
}

/// Follows Dockerfile instructions, one or more to each text, in order.
///
/// # Errors
/// The first instruction that cannot be followed.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    changes::apply(config, changes)
}

impl Store {
    /// Makes an image of its parent and one more layer, the tar of what was changed. Read to its end; an error of the
    /// reader leaves nothing behind.
    pub fn commit(&self, layer: impl Read + Send, options: &CommitOptions) -> Result<ImageId, CommitError> {
        if let Some(reference) = &options.reference {
            check_tag(reference)?;
        }
        let parent = options.parent.as_ref().map(|parent| self.config(parent)).transpose()?;
        let parent = parent.map(|config| ImageConfig::clone(&config)).unwrap_or_default();
        // The parent may be removed meanwhile, its layers may not.
        let (_lease, _) = self.lease(&parent.rootfs.diff_ids);
        let staged = self.layer_store().stage(layer, self.limits())?;
        let layer = Some(staged.diff_id).filter(|id| id.to_string() != NOTHING);
        let config = serde_json::to_vec(&configuration(options, parent, layer))?;
        let staged = self.layer_store().flush(layer.map(|_| staged).into_iter().collect())?;
        let mut change = self.change();
        let made = make(&mut change, staged, &config, options);
        if made.is_err()
            && let Err(error) = change.sweep()
        {
            tracing::warn!(%error, "the layer of an image that was not committed is left until the next start");
        }
        made
    }
}

fn make(
    change: &mut Change<'_>,
    layer: OnDisk,
    config: &[u8],
    options: &CommitOptions,
) -> Result<ImageId, CommitError> {
    change.add_layers(layer)?;
    let id = change.add_image(config)?;
    if let Some(parent) = options.parent.filter(|parent| change.image(parent).is_some()) {
        change.set_parent(&id, parent)?;
    }
    if let Some(name) = &options.reference {
        change.name(name, id)?;
    }
    Ok(id)
}

fn configuration(options: &CommitOptions, parent: ImageConfig, layer: Option<DiffId>) -> ImageConfig {
    let platform = parent.platform();
    let platform = Platform { variant: parent.variant.clone(), ..platform };
    let created = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    let mut config = ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        author: options.author.clone(),
        comment: options.message.clone(),
        created: created.clone(),
        config: Some(options.config.clone()),
        docker_version: String::new(),
        ..parent
    };
    config.rootfs.diff_ids.extend(layer);
    config.history.push(History {
        created,
        created_by: options.created_by.clone(),
        author: options.author.clone(),
        comment: options.message.clone(),
        empty_layer: layer.is_none(),
    });
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::import::ImportOptions;

    fn archive(name: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &b"x"[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn a_commit_is_its_parent_and_one_layer_more() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let parent = store.import(&archive("a")[..], &ImportOptions::default()).unwrap();
        let options = CommitOptions {
            parent: Some(parent),
            author: "me".into(),
            message: "why".into(),
            created_by: "sh -c x".into(),
            ..CommitOptions::default()
        };
        let id = store.commit(&archive("b")[..], &options).unwrap();
        let (before, after) = (store.config(&parent).unwrap(), store.config(&id).unwrap());
        assert_eq!(after.rootfs.diff_ids[..1], before.rootfs.diff_ids[..]);
        assert_eq!((after.rootfs.diff_ids.len(), after.history.len()), (2, 2));
        assert_eq!((after.author.as_str(), after.history[1].comment.as_str()), ("me", "why"));
        assert_eq!(store.find(&id.to_string()).unwrap().parent, Some(parent));
        assert!(store.layers(&id).unwrap()[0].join("b").exists());
    }

    #[test]
    fn nothing_changed_is_no_layer() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(Digest::of(&[0; 1024]).to_string(), NOTHING);
        let id = store.commit(&[0; 1024][..], &CommitOptions::default()).unwrap();
        let config = store.config(&id).unwrap();
        assert!(config.rootfs.diff_ids.is_empty() && config.history[0].empty_layer);
    }

    #[test]
    fn an_archive_that_breaks_off_leaves_nothing() {
        struct Broken(Vec<u8>);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() {
                    return Err(std::io::Error::other("packing failed"));
                }
                let length = buffer.len().min(self.0.len());
                buffer[..length].copy_from_slice(&self.0[..length]);
                self.0.drain(..length);
                Ok(length)
            }
        }
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(store.commit(Broken(archive("a")), &CommitOptions::default()).is_err());
        assert!(store.list().is_empty());
        for directory in ["tmp", "layers"] {
            assert_eq!(std::fs::read_dir(root.path().join(directory)).unwrap().count(), 0, "{directory}");
        }
    }
}
