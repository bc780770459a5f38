//! From what a client writes to an image.

use std::sync::Arc;

use super::state::{Manifest, State};
use super::{BlobError, Store};
use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{Classified, ErrorKind};
use crate::image::Image;
use crate::layer::LayerRecord;
use crate::platform::Platform;
use crate::reference::{AnyReference, Reference, ReferenceError};

/// Why there is no image to show.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// What was asked for is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// There is none of this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// It is for another platform than was asked for.
    #[error(
        "image with reference {name} was found but its platform ({found}) does not match the specified platform ({wanted})"
    )]
    Platform {
        /// As it was asked for.
        name: String,
        /// What it is for.
        found: Box<Platform>,
        /// What was asked for.
        wanted: Box<Platform>,
    },
    /// It is there for several platforms, and not for the one that was asked for.
    #[error("image with reference {name} was found but does not provide the specified platform ({wanted})")]
    NoPlatform {
        /// As it was asked for.
        name: String,
        /// What was asked for.
        wanted: Box<Platform>,
    },
    /// The file of its configuration is not what it was.
    #[error("image {0} is damaged")]
    Damaged(ImageId, #[source] BlobError),
}

impl FindError {
    pub(crate) fn no_image(id: &ImageId) -> Self {
        Self::NotFound(id.to_string())
    }
}

impl Classified for FindError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_) => ErrorKind::Invalid,
            Self::NotFound(_) | Self::Platform { .. } | Self::NoPlatform { .. } => ErrorKind::NotFound,
            Self::Damaged(..) => ErrorKind::Internal,
        }
    }
}

impl State {
    /// The image that a name, an id, or the beginning of an id leads to. A name goes before the beginning of an id.
    pub(super) fn find(&self, text: &str) -> Result<ImageId, FindError> {
        let wanted = AnyReference::parse(text)?;
        let found = match &wanted {
            AnyReference::Id(id) => Some(ImageId(*id)).filter(|id| self.images.contains_key(id)),
            AnyReference::Named(name) => self.names.get(name).or_else(|| self.by_beginning(text)),
        };
        found.ok_or_else(|| FindError::NotFound(wanted.to_string()))
    }

    /// The same, and then what a name leads to for other platforms.
    pub(super) fn find_all(&self, text: &str) -> Result<Vec<ImageId>, FindError> {
        let first = self.find(text)?;
        match AnyReference::parse(text)? {
            AnyReference::Named(name) if self.names.get(&name) == Some(first) => {
                Ok(self.names.all(&name).to_vec())
            }
            _ => Ok(vec![first]),
        }
    }

    /// The image that runs best on a platform, of those that a name leads to, or that names lead to which lead to an image
    /// of this id, too.
    pub(super) fn find_for(&self, text: &str, wanted: &Platform) -> Result<ImageId, FindError> {
        self.find_best(text, wanted, |config| config.rank_for(wanted))
    }

    /// The same of exactly this platform.
    pub(super) fn find_only_for(&self, text: &str, wanted: &Platform) -> Result<ImageId, FindError> {
        self.find_best(text, wanted, |config| config.is_only_for(wanted).then_some(0))
    }

    /// The image of the lowest rank.
    fn find_best(
        &self,
        text: &str,
        wanted: &Platform,
        rank: impl Fn(&ImageConfig) -> Option<usize>,
    ) -> Result<ImageId, FindError> {
        let mut images = self.find_all(text)?;
        if let [one] = images[..] {
            images.extend(self.names.others(&one));
        }
        let ranked = images.iter().filter_map(|id| Some((rank(&self.images.get(id)?.config)?, id)));
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(*best);
        }
        let (name, wanted) = (text.to_owned(), Box::new(wanted.clone()));
        match images[..] {
            [one] => {
                let known = self.images.get(&one).ok_or_else(|| FindError::no_image(&one))?;
                Err(FindError::Platform { name, found: Box::new(known.config.platform()), wanted })
            }
            _ => Err(FindError::NoPlatform { name, wanted }),
        }
    }

    /// The only image whose id begins so.
    fn by_beginning(&self, text: &str) -> Option<ImageId> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let first = Digest::from_hex(&format!("{digits:0<64}")).ok()?;
        let mut found = self.images.range(ImageId(first)..).map(|(id, _)| *id);
        let mut found = found.by_ref().take_while(|id| id.0.hex().starts_with(digits));
        found.next().filter(|_| found.next().is_none())
    }
}

impl Store {
    /// The images that exactly this name leads to, for each platform one.
    pub(crate) fn all_led_to(&self, name: &Reference) -> Vec<ImageId> {
        self.state().names.all(name).to_vec()
    }

    /// The tags of a repository, and the images that each leads to, for each platform one.
    pub(crate) fn tags_of(&self, repository: &Reference) -> Vec<(Reference, Vec<ImageId>)> {
        self.state().names.tags_of(repository)
    }

    /// What is known of a layer.
    pub(crate) fn layer_record(&self, layer: &DiffId) -> Option<Arc<LayerRecord>> {
        self.state().layers.get(layer).cloned()
    }

    /// The bytes in a layer's files.
    pub fn layer_size(&self, layer: &DiffId) -> Option<u64> {
        self.state().layers.get(layer).map(|record| record.size)
    }

    /// The manifests that an image came with or was pushed with, the last first.
    pub fn manifests(&self, id: &ImageId) -> Vec<Manifest> {
        self.state().images.get(id).map(|known| known.record.manifests.clone()).unwrap_or_default()
    }

    /// A manifest or index that is kept.
    pub(crate) fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        let read = self.inner.blobs.read(digest);
        read.inspect_err(|error| tracing::warn!(%digest, %error, "a manifest cannot be read")).ok().flatten()
    }

    /// The image that a name, an id or the beginning of an id leads to.
    pub fn find(&self, name: &str) -> Result<Image, FindError> {
        let state = self.state();
        let id = state.find(name)?;
        state.image(&id).ok_or_else(|| FindError::no_image(&id))
    }
    /// The images that a name leads to, for each platform one, the first of which [`find`](Self::find) gives.
    pub fn find_all(&self, name: &str) -> Result<Vec<ImageId>, FindError> {
        self.state().find_all(name)
    }

    /// The image that these lead to for a platform, or what that runs; the one that [`find`](Self::find) gives if none is
    /// asked for.
    pub fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, FindError> {
        let Some(platform) = platform else { return self.find(name) };
        let state = self.state();
        let id = state.find_for(name, platform)?;
        state.image(&id).ok_or_else(|| FindError::no_image(&id))
    }

    /// The image that these lead to for exactly a platform.
    pub(crate) fn find_only_for(&self, name: &str, platform: &Platform) -> Result<ImageId, FindError> {
        self.state().find_only_for(name, platform)
    }
}
