//! Which name leads to which image: `repositories.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FindError, OpenError, Store};
use crate::digest::ImageId;
use crate::durable::{self, At, StateError};
use crate::error::{Classified, ErrorKind, chain};
use crate::image::Image;
use crate::reference::Reference;

/// 1 had one image a name.
const FORMAT: u32 = 2;

/// Which name leads to which image. A name can lead to the same image for several platforms: the first of them is the
/// one that is meant when nobody says for which. No name leads to nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<String, (Reference, Vec<ImageId>)>);

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    references: BTreeMap<Reference, Images>,
}

/// One image is written without brackets, as format 1 has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Images {
    One(ImageId),
    Several(Vec<ImageId>),
}

impl Images {
    fn list(self) -> Vec<ImageId> {
        match self {
            Self::One(image) => vec![image],
            Self::Several(images) => images,
        }
    }

    fn of(images: &[ImageId]) -> Self {
        match images {
            [one] => Self::One(*one),
            images => Self::Several(images.to_vec()),
        }
    }
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
    fn read(path: &Path) -> Result<Self, OpenError> {
        let file: Option<File> = durable::read_versioned(path, FORMAT)?;
        let Some(file) = file else { return Ok(Self::default()) };
        let named = |(reference, images): (Reference, Images)| {
            let images = images.list();
            (!images.is_empty()).then(|| (reference.to_string(), (reference, images)))
        };
        Ok(Self(file.references.into_iter().filter_map(named).collect()))
    }

    /// [`read`](Self::read); a file that says nothing that can be understood is put aside, and the images have no names.
    pub(super) fn recover(path: &Path) -> Result<Self, OpenError> {
        match Self::read(path) {
            Err(OpenError::State(error)) if error.is_damage() => {
                let aside = path.with_extension("damaged");
                tracing::error!(
                    error = %chain(&error), aside = %aside.display(),
                    "the names of all images are lost, and the images are without: tag them by their ids, or pull them again"
                );
                std::fs::rename(path, &aside).at("put aside", path)?;
                Ok(Self::default())
            }
            read => read,
        }
    }

    pub(super) fn write(&self, path: &Path, tmp: &Path) -> Result<(), StateError> {
        let of = |(reference, images): &(Reference, Vec<ImageId>)| (reference.clone(), Images::of(images));
        let references = self.0.values().map(of).collect();
        durable::write_json(path, &File { version: FORMAT, references }, tmp)
    }

    /// The image that a name leads to: by its digest if it has one, else by its tag or `latest`.
    pub(super) fn get(&self, name: &Reference) -> Option<ImageId> {
        self.all(name).first().copied()
    }

    /// The image that a name leads to, and then the same for other platforms.
    pub(super) fn all(&self, name: &Reference) -> &[ImageId] {
        self.0.get(&key(name).to_string()).map_or(&[], |(_, images)| images)
    }

    /// Lets a name lead to these images and no others. The image that it led to before, if that is none of them.
    pub(super) fn set(&mut self, name: &Reference, images: Vec<ImageId>) -> Option<ImageId> {
        let name = key(name);
        let before = self.0.insert(name.to_string(), (name, images.clone()));
        before.and_then(|(_, before)| before.first().copied()).filter(|before| !images.contains(before))
    }

    pub(super) fn remove(&mut self, name: &Reference) {
        self.0.remove(&key(name).to_string());
    }

    /// Lets no name lead to an image that is not to be kept. Says which names are gone with that.
    pub(super) fn retain(&mut self, keep: impl Fn(&ImageId) -> bool) -> Vec<Reference> {
        let mut gone = Vec::new();
        self.0.retain(|_, (name, images)| {
            images.retain(&keep);
            if images.is_empty() {
                gone.push(name.clone());
            }
            !images.is_empty()
        });
        gone
    }

    /// The tags of a repository, with their images.
    pub(super) fn tags_of(&self, repository: &Reference) -> Vec<(Reference, Vec<ImageId>)> {
        let of =
            self.0.values().filter(|(name, _)| name.digest().is_none() && name.name() == repository.name());
        of.cloned().collect()
    }

    /// The same image for other platforms, to which the names that lead to this one lead, too.
    pub(super) fn others(&self, image: &ImageId) -> Vec<ImageId> {
        let beside = self.0.values().filter(|(_, images)| images.first() == Some(image));
        let others: BTreeSet<ImageId> = beside.flat_map(|(_, images)| images[1..].iter().copied()).collect();
        others.into_iter().collect()
    }

    /// Whether a name leads to it when nobody says for which platform.
    pub(super) fn is_first(&self, image: &ImageId) -> bool {
        self.0.values().any(|(_, images)| images.first() == Some(image))
    }

    /// The names of an image, in order of their full text.
    pub(super) fn of(&self, image: &ImageId) -> Vec<Reference> {
        self.0.values().filter(|(_, images)| images.contains(image)).map(|(name, _)| name.clone()).collect()
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
    /// Gives an image one more name, taking it from the image that had it. What a name leads to for other platforms goes
    /// with it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Image, TagError> {
        check_tag(target)?;
        let mut change = self.change();
        let images = change.find_all(source)?;
        let id = images.first().copied();
        change.name_all(target, images)?;
        id.and_then(|id| change.image(&id)).ok_or_else(|| FindError::NotFound(source.to_owned()).into())
    }
}
