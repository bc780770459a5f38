//! From what a client writes to an image.

use super::state::State;
use super::{BlobError, Store};
use crate::digest::{Digest, ImageId};
use crate::error::{Classified, ErrorKind};
use crate::image::Image;
use crate::reference::{AnyReference, ReferenceError};

/// Why there is no image to show.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// What was asked for is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// There is none of this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
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
            Self::NotFound(_) => ErrorKind::NotFound,
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
    /// The image that a name, an id or the beginning of an id leads to.
    pub fn find(&self, name: &str) -> Result<Image, FindError> {
        let state = self.state();
        let id = state.find(name)?;
        state.image(&id).ok_or_else(|| FindError::no_image(&id))
    }
}
