//! Images that a container has mounted (`--mount type=image`): their layers are held like those of its own image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use caisson_images::{HoldError, ImageId};

use super::Mounting;
use crate::containers::Ground;
use crate::containers::record::Definition;
use crate::error::ApiError;
use crate::images;

/// The layers of images, topmost first, by their ids.
pub(crate) type Layers = BTreeMap<String, Vec<PathBuf>>;

/// What holds an image that a container has mounted: the container's id, and the beginning of the image's, which is enough to tell one
/// from the other.
fn holder(container: &str, image: &str) -> String {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    format!("{container}-{}", digits.get(..32).unwrap_or(digits))
}

/// The container that a holder belongs to.
pub(crate) fn container_of(holder: &str) -> &str {
    holder.split('-').next().unwrap_or(holder)
}

/// All that a container holds: by whom, and which image.
pub(crate) fn holders(definition: &Definition) -> Vec<(String, String)> {
    let own = (!definition.image.is_empty()).then(|| (definition.id.clone(), definition.image.clone()));
    let mounted = definition.mounts.iter().filter_map(Mounting::image);
    own.into_iter().chain(mounted.map(|image| (holder(&definition.id, image), image.to_owned()))).collect()
}

impl Ground {
    /// Holds the images that a new container mounts. Blocks.
    pub(crate) fn hold_mounted_images(&self, definition: &Definition) -> Result<(), ApiError> {
        for image in definition.mounts.iter().filter_map(Mounting::image) {
            let id = image
                .parse()
                .map(ImageId)
                .map_err(|_| ApiError::not_found(format!("No such image: {image}")))?;
            self.images.hold(&holder(&definition.id, image), &id).map_err(|e| images::error(&e))?;
        }
        Ok(())
    }

    /// Lets go of all layers that a container holds. Blocks.
    pub(crate) fn release_layers(&self, container: &str) -> Result<(), HoldError> {
        self.images.release_all_but(&|holder| container_of(holder) != container)
    }

    /// The layers of the images that a container has mounted.
    pub(crate) fn mounted_layers(&self, definition: &Definition) -> Result<Layers, ApiError> {
        let images = definition.mounts.iter().filter_map(Mounting::image);
        let held = images.map(|image| {
            let layers = self.images.held(&holder(&definition.id, image));
            layers.map(|layers| (image.to_owned(), layers)).map_err(|e| images::error(&e))
        });
        held.collect()
    }
}
