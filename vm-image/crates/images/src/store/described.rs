//! What is known of an image as registries have it: what its names point to there, and the manifests below that.

use super::Store;
use super::state::{Manifest, State};
use crate::digest::{Digest, ImageId};
use crate::manifest::{self, Descriptor, Parsed};
use crate::platform::Platform;

/// An image as registries have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its index, or its manifest if it came without one.
    pub target: Descriptor,
    /// The manifests in the index, in its order; else the one manifest.
    pub manifests: Vec<DescribedManifest>,
}

/// A manifest of an image. What it points to need not be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedManifest {
    /// What points to it.
    pub descriptor: Descriptor,
    /// What it is.
    pub kind: ManifestKind,
    /// The bytes that are kept of it and of what it points to, as registries have these.
    pub content: u64,
}

/// What a manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// An image.
    Image {
        /// What it is for, if that is known.
        platform: Option<Platform>,
        /// The image, if it is here.
        image: Option<ImageId>,
    },
    /// Something that is said of an image.
    Attestation {
        /// The digest of the image's manifest.
        of: Digest,
    },
    /// Something else.
    Unknown,
}

impl Store {
    /// What is known of an image as registries have it; nothing of one that was made here and not pushed.
    pub fn described(&self, id: &ImageId) -> Option<Described> {
        let state = self.state();
        let manifests = &state.images.get(id)?.record.manifests;
        manifests.iter().find_map(|manifest| self.described_by(&state, manifest))
    }

    fn described_by(&self, state: &State, manifest: &Manifest) -> Option<Described> {
        let Some(index) = manifest.index else {
            let target = Descriptor {
                media_type: manifest.media_type.clone(),
                size: manifest.size,
                digest: manifest.digest,
                platform: None,
                annotations: None,
            };
            let manifests = vec![self.described_manifest(state, target.clone())];
            return Some(Described { target, manifests });
        };
        let bytes = self.document(&index)?;
        let media_type = manifest::media_type(&bytes, None);
        let Ok(Parsed::Index(descriptors)) = Parsed::read(&bytes, &media_type) else { return None };
        let size = bytes.len() as u64;
        let target = Descriptor { media_type, size, digest: index, platform: None, annotations: None };
        let manifests = descriptors.into_iter().map(|of| self.described_manifest(state, of)).collect();
        Some(Described { target, manifests })
    }

    fn described_manifest(&self, state: &State, descriptor: Descriptor) -> DescribedManifest {
        let of = descriptor.annotation(manifest::REFERENCE_DIGEST).and_then(|text| text.parse().ok());
        if let Some(of) = of {
            return DescribedManifest { descriptor, kind: ManifestKind::Attestation { of }, content: 0 };
        }
        if !descriptor.is_image() || descriptor.is_index() {
            return DescribedManifest { descriptor, kind: ManifestKind::Unknown, content: 0 };
        }
        let of_image = state.images.iter().find_map(|(id, known)| {
            let of = known.record.manifests.iter().find(|manifest| manifest.digest == descriptor.digest)?;
            Some((*id, known.config.platform(), of))
        });
        let platform =
            descriptor.platform.clone().or(of_image.as_ref().map(|(_, platform, _)| platform.clone()));
        let content = of_image.as_ref().map_or(0, |(_, _, manifest)| self.content(manifest));
        let image = of_image.map(|(id, ..)| id);
        DescribedManifest { descriptor, kind: ManifestKind::Image { platform, image }, content }
    }

    /// The bytes of a manifest and of all that it points to.
    fn content(&self, known: &Manifest) -> u64 {
        let bytes = self.document(&known.digest);
        let parsed = bytes.and_then(|bytes| Parsed::read(&bytes, &known.media_type).ok());
        let Some(Parsed::Image(manifest)) = parsed else { return 0 };
        let below =
            manifest.layers.iter().fold(manifest.config.size, |sum, layer| sum.saturating_add(layer.size));
        known.size.saturating_add(below)
    }
}
