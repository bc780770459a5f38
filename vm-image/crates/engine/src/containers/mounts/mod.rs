//! What users mount into a container: `-v`, `--mount`, `--volumes-from`, and the volumes of its image.
//!
//! [`parse`] reads what is asked for, [`claim`] decides what is mounted where when the container is made (volumes are made
//! and held there, and [`making`] remembers which until the container is made), [`fill`] puts what the image has into volumes that are empty, [`supply`] makes the volumes ready for a
//! run and lets go of them, [`found`] holds them for containers that run without a record, [`images`] keeps the layers of images that
//! are mounted. What a container has is in its definition, as [`Mounting`]s.
//!
//! `--tmpfs` stays where it is asked for, in the host configuration: it is told nowhere else.

pub(crate) mod claim;
pub(crate) mod fill;
pub(crate) mod found;
pub(crate) mod images;
pub(crate) mod making;
pub(crate) mod parse;
pub(crate) mod supply;

use caisson_docker_api::container::{MountPoint, TmpfsOptions};
use serde::{Deserialize, Serialize};

/// Something mounted in a container: what is told of it, and what else must be known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mounting {
    /// What is told. Its source is a directory or file of this system, also of a volume.
    #[serde(flatten)]
    pub(crate) point: MountPoint,
    /// A volume that was given no name: it can go with its container.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// A new volume is filled with what the image has there.
    #[serde(default)]
    pub(crate) copy: bool,
    /// The id of what is mounted, if that is an image.
    #[serde(default)]
    pub(crate) image: String,
    /// What of a volume or an image is mounted: a path in it; empty for all.
    #[serde(default)]
    pub(crate) subpath: String,
    /// A bind's source that is missing is made, a directory.
    #[serde(default)]
    pub(crate) make_source: bool,
    /// Without what is mounted below a bind's source.
    #[serde(default)]
    pub(crate) non_recursive: bool,
    /// Read-only at the top, not below.
    #[serde(default)]
    pub(crate) read_only_non_recursive: bool,
    /// More of a tmpfs.
    #[serde(default)]
    pub(crate) tmpfs: Option<TmpfsOptions>,
}

impl Mounting {
    /// The name of the volume, if it is one.
    pub(crate) fn volume(&self) -> Option<&str> {
        (self.point.kind == "volume").then_some(self.point.name.as_str())
    }

    /// The id of the image, if it is one.
    pub(crate) fn image(&self) -> Option<&str> {
        (self.point.kind == "image").then_some(self.image.as_str())
    }

    /// Whether it is what is at a path of the container, or above it.
    pub(crate) fn has(&self, path: &str) -> bool {
        match path.strip_prefix(self.point.destination.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}
