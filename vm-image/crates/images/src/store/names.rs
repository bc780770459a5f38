//! Which name leads to which image: `repositories.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FindError, OpenError, Store};
use crate::digest::ImageId;
use crate::durable::{self, StateError};
use crate::error::{Classified, ErrorKind};
use crate::image::Image;
use crate::reference::Reference;

const FORMAT: u32 = 1;

/// Which name leads to which image.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<String, (Reference, ImageId)>);

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    references: BTreeMap<Reference, ImageId>,
}

/// Why a name was not given.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// There is no image to name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The name has a digest, which nobody can give.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// The name could not be told from an id.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
    /// It could not be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for TagError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Find(error) => error.kind(),
            Self::Digest | Self::Ambiguous => ErrorKind::Invalid,
            Self::State(_) => ErrorKind::Internal,
        }
    }
}

impl Names {
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        let file: Option<File> = durable::read_json(path)?;
        let Some(file) = file else { return Ok(Self::default()) };
        if file.version > FORMAT {
            return Err(OpenError::Newer { path: path.to_owned(), found: file.version, known: FORMAT });
        }
        let named = |(reference, image): (Reference, ImageId)| (reference.to_string(), (reference, image));
        Ok(Self(file.references.into_iter().map(named).collect()))
    }

    pub(super) fn write(&self, path: &Path, tmp: &Path) -> Result<(), StateError> {
        let references = self.0.values().cloned().collect();
        durable::write_json(path, &File { version: FORMAT, references }, tmp)
    }

    /// The image that a name leads to: by its digest if it has one, else by its tag or `latest`.
    pub(super) fn get(&self, name: &Reference) -> Option<ImageId> {
        self.0.get(&key(name).to_string()).map(|(_, image)| *image)
    }

    /// The image that the name led to before, if it was another.
    pub(super) fn set(&mut self, name: &Reference, image: ImageId) -> Option<ImageId> {
        let name = key(name);
        let before = self.0.insert(name.to_string(), (name, image));
        before.map(|(_, before)| before).filter(|before| *before != image)
    }

    pub(super) fn remove(&mut self, name: &Reference) {
        self.0.remove(&key(name).to_string());
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ImageId) -> bool) {
        self.0.retain(|_, (_, image)| keep(image));
    }

    /// The names of an image, in order of their full text.
    pub(super) fn of(&self, image: &ImageId) -> Vec<Reference> {
        self.0.values().filter(|(_, other)| other == image).map(|(name, _)| name.clone()).collect()
    }
}

/// The form in which a name is kept: with the default tag, and without a tag beside a digest.
fn key(name: &Reference) -> Reference {
    name.clone().or_latest().favour_digest()
}

/// Whether a name may be given to an image.
pub(crate) fn check_tag(name: &Reference) -> Result<(), TagError> {
    if name.digest().is_some() {
        return Err(TagError::Digest);
    }
    if name.familiar_name() == "sha256" {
        return Err(TagError::Ambiguous);
    }
    Ok(())
}

impl Store {
    /// Gives an image one more name, taking it from the image that had it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Image, TagError> {
        check_tag(target)?;
        let mut change = self.change();
        let id = change.find(source)?;
        change.name(target, id)?;
        change.image(&id).ok_or_else(|| FindError::no_image(&id).into())
    }
}
