//! An image as the store shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::config::ImageConfig;
use crate::digest::ImageId;
use crate::reference::Reference;

/// An image as it was when it was asked for; it does not follow later changes.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration's bytes.
    pub id: ImageId,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// Every name it has, in order of their full text.
    pub references: Vec<Reference>,
    /// The bytes in the files of all its layers.
    pub size: u64,
    /// The image that it was made from here, if that is known.
    pub parent: Option<ImageId>,
    /// The number of images that name this one as their parent.
    pub children: usize,
    /// When it was last given a name here.
    pub last_tagged: Option<OffsetDateTime>,
    /// The same for other platforms: where its names lead when those are asked for.
    pub others: Vec<ImageId>,
    /// Whether it is one of another image's [`others`](Self::others), and no name leads to it before all.
    pub is_behind_another: bool,
}

impl Image {
    /// Its tags in the familiar form, `busybox:latest`.
    pub fn repo_tags(&self) -> Vec<String> {
        self.familiar(|reference| reference.digest().is_none())
    }

    /// Its digests in the familiar form, `busybox@sha256:…`.
    pub fn repo_digests(&self) -> Vec<String> {
        self.familiar(|reference| reference.digest().is_some())
    }

    fn familiar(&self, wanted: impl Fn(&Reference) -> bool) -> Vec<String> {
        self.references.iter().filter(|reference| wanted(reference)).map(Reference::familiar).collect()
    }

    /// Whether nothing leads to it but its id.
    pub fn is_dangling(&self) -> bool {
        self.references.is_empty() && self.children == 0
    }

    /// When it was made, if its configuration says.
    pub fn created(&self) -> Option<OffsetDateTime> {
        self.config.created_at()
    }

    /// Its labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.config.config.as_ref().map(|run| run.labels.clone()).unwrap_or_default()
    }
}

/// A container that uses an image, as [`Store::remove`](crate::Store::remove) needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's whole id.
    pub id: String,
    /// Whether it runs (or is paused, or restarts).
    pub running: bool,
}

/// One thing that [`Store::remove`](crate::Store::remove) did, in the order in which it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name no longer leads to the image. An `untag` event of the image.
    Untagged {
        /// The name.
        reference: Reference,
        /// The image it led to.
        image: ImageId,
    },
    /// The image is gone. A `delete` event of the image.
    Image(ImageId),
    /// A layer that only this image had is gone. No event.
    Layer(crate::digest::ChainId),
}

impl Removed {
    /// What `docker rmi` prints before the colon: `Untagged` or `Deleted`.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Untagged { .. } => "Untagged",
            Self::Image(_) | Self::Layer(_) => "Deleted",
        }
    }

    /// What `docker rmi` prints after it.
    pub fn subject(&self) -> String {
        match self {
            Self::Untagged { reference, .. } => reference.familiar(),
            Self::Image(id) => id.to_string(),
            Self::Layer(id) => id.to_string(),
        }
    }
}
