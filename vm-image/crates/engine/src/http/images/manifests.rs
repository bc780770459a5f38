//! The manifests of an image, as the Engine API tells of them since 1.47.

use caisson_docker_api::image::{
    AttestationProperties, Descriptor, ImageProperties, ManifestSizes, ManifestSummary, Platform,
    UnpackedSize,
};
use caisson_images::{Described, DescribedManifest, ImageId, ManifestKind};

use crate::engine::Engine;

/// The manifests of an image.
pub(super) fn told(engine: &Engine, image: &Described) -> Vec<ManifestSummary> {
    image.manifests.iter().map(|manifest| summary(engine, manifest)).collect()
}

fn summary(engine: &Engine, manifest: &DescribedManifest) -> ManifestSummary {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let content = size(manifest.content);
    let mut summary = ManifestSummary {
        id: manifest.descriptor.digest.to_string(),
        descriptor: descriptor(&manifest.descriptor),
        available: false,
        size: ManifestSizes { content, total: content },
        kind: "unknown",
        image_data: None,
        attestation_data: None,
    };
    match &manifest.kind {
        ManifestKind::Image { platform, image } => {
            let unpacked =
                image.and_then(|id| engine.images.find(&id.to_string()).ok()).map_or(0, |it| it.size);
            summary.kind = "image";
            summary.available = image.is_some();
            summary.size.total = content.saturating_add(size(unpacked));
            summary.image_data = Some(ImageProperties {
                platform: platform.as_ref().map(platform_of).unwrap_or_default(),
                size: UnpackedSize { unpacked: size(unpacked) },
                containers: image.map(|id| containers(engine, &id)).filter(|ids| !ids.is_empty()),
            });
        }
        ManifestKind::Attestation { of } => {
            summary.kind = "attestation";
            summary.attestation_data = Some(AttestationProperties { of: of.to_string() });
        }
        ManifestKind::Unknown => {}
    }
    summary
}

fn containers(engine: &Engine, image: &ImageId) -> Vec<String> {
    engine.containers.users_of(&image.to_string()).into_iter().map(|user| user.id).collect()
}

/// A descriptor of a registry's.
pub(super) fn descriptor(of: &caisson_images::Descriptor) -> Descriptor {
    Descriptor {
        media_type: of.media_type.clone(),
        digest: of.digest.to_string(),
        size: of.size,
        annotations: of.annotations.clone(),
        platform: of.platform.as_ref().map(platform_of),
    }
}

/// What points to the manifest of one of an image's platforms; to all of it if that is not known.
pub(super) fn descriptor_of(image: &Described, id: &str) -> Descriptor {
    let is_it = |manifest: &&DescribedManifest| match &manifest.kind {
        ManifestKind::Image { image: Some(image), .. } => image.to_string() == id,
        _ => false,
    };
    descriptor(image.manifests.iter().find(is_it).map_or(&image.target, |manifest| &manifest.descriptor))
}

fn platform_of(platform: &caisson_images::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
    }
}
