//! Manifests and indexes as registries have them: Docker's schema 2 and OCI's (image-spec 1.1), which are alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Where BuildKit says that a manifest is no image but says something of one.
pub(crate) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Where it says of which.
pub(crate) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// What is asked for, most wanted first.
pub(crate) const ACCEPTED: [&str; 4] = [DOCKER_MANIFEST, DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST];

/// The most bytes that a manifest, an index or a configuration may have.
pub(crate) const DOCUMENT_MAX: usize = 8 << 20;

/// What points to something by its digest (OCI image specification, "Descriptor").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is; empty where nobody says.
    #[serde(default)]
    pub media_type: String,
    /// The number of its bytes.
    #[serde(default)]
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An image's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageManifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// What a tag can lead to.
#[derive(Debug)]
pub(crate) enum Parsed {
    Image(ImageManifest),
    Index(Vec<Descriptor>),
}

/// Why a document is none of these.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be understood.
    #[error("invalid manifest")]
    Json(#[from] serde_json::Error),
    /// Docker's first format, long deprecated.
    #[error(
        "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support is disabled by default and will be removed in an upcoming release. Suggest the author to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2"
    )]
    SchemaOne,
    /// It is something else that registries keep.
    #[error("unsupported media type {0}")]
    MediaType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What a document is: what it says itself, else what it came with.
pub(crate) fn media_type(bytes: &[u8], announced: Option<&str>) -> String {
    let announced = announced.and_then(|text| text.split(';').next()).map(str::trim).unwrap_or_default();
    match serde_json::from_slice::<Outline>(bytes) {
        Ok(outline) if !outline.media_type.is_empty() => outline.media_type,
        Ok(outline) if !ACCEPTED.contains(&announced) => {
            if outline.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST }.to_owned()
        }
        _ => announced.to_owned(),
    }
}

impl Parsed {
    pub(crate) fn read(bytes: &[u8], media_type: &str) -> Result<Self, ManifestError> {
        let outline: Outline = serde_json::from_slice(bytes)?;
        if outline.schema_version == 1 {
            return Err(ManifestError::SchemaOne);
        }
        match media_type {
            DOCKER_INDEX | OCI_INDEX => Ok(Self::Index(serde_json::from_slice::<Index>(bytes)?.manifests)),
            DOCKER_MANIFEST | OCI_MANIFEST => {
                let manifest: ImageManifest = serde_json::from_slice(bytes)?;
                match manifest.config.media_type.as_str() {
                    DOCKER_CONFIG | OCI_CONFIG | "" | "application/octet-stream" => Ok(Self::Image(manifest)),
                    other => Err(ManifestError::MediaType(other.to_owned())),
                }
            }
            other => Err(ManifestError::MediaType(other.to_owned())),
        }
    }
}

/// How deep indexes may lead to indexes.
pub(crate) const DEPTH_MAX: usize = 4;

/// What of an index runs best on a platform; else an index in it that does not say what it is for.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let ranked = manifests.iter().filter_map(|descriptor| Some((descriptor.rank_for(wanted)?, descriptor)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor);
    let may_fit = |descriptor: &&Descriptor| descriptor.is_index() && descriptor.platform.is_none();
    best.or_else(|| manifests.iter().find(may_fit))
}

impl Descriptor {
    /// Whether it points to an index.
    pub(crate) fn is_index(&self) -> bool {
        [DOCKER_INDEX, OCI_INDEX].contains(&self.media_type.as_str())
    }

    /// How well what it points to runs on a platform, the less the better; nothing if it does not, or does not say.
    pub(crate) fn rank_for(&self, wanted: &Platform) -> Option<usize> {
        wanted.rank(self.platform.as_ref()?)
    }

    /// What an annotation says.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether it may point to an image: attestations have no platform, or one that is unknown.
    pub(crate) fn is_image(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        !unknown && self.annotation(REFERENCE_TYPE).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_what_it_is() {
        let docker = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}"}}"#);
        for (text, announced, expected) in [
            (docker.as_str(), Some("text/plain"), DOCKER_MANIFEST),
            (r#"{"manifests":[]}"#, None, OCI_INDEX),
            (r#"{"layers":[]}"#, Some("application/json; charset=utf-8"), OCI_MANIFEST),
            (r#"{"layers":[]}"#, Some(DOCKER_MANIFEST), DOCKER_MANIFEST),
        ] {
            assert_eq!(media_type(text.as_bytes(), announced), expected, "{text}");
        }
        assert!(matches!(Parsed::read(br#"{"schemaVersion":1}"#, ""), Err(ManifestError::SchemaOne)));
        assert!(matches!(Parsed::read(b"{}", "x"), Err(ManifestError::MediaType(_))));
    }

    #[test]
    fn the_best_of_an_index_is_chosen() {
        let platform = |architecture: &str, variant: &str| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        };
        let descriptor = |architecture: &str, variant: &str| Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            size: 0,
            digest: Digest::of(b""),
            platform: Some(platform(architecture, variant)),
            annotations: None,
        };
        let index = [
            descriptor("386", ""),
            descriptor("arm", "v5"),
            descriptor("arm", "v7"),
            descriptor("amd64", ""),
        ];
        for (wanted, chosen) in [
            (platform("amd64", ""), Some("linux/amd64")),
            (platform("x86_64", ""), Some("linux/amd64")),
            (platform("i386", ""), Some("linux/386")),
            (platform("arm64", ""), Some("linux/arm/v7")),
            (platform("armhf", ""), Some("linux/arm/v7")),
            (platform("arm", "v6"), Some("linux/arm/v5")),
            (platform("s390x", ""), None),
        ] {
            let found = choose(&index, &wanted).and_then(|found| found.platform.as_ref());
            assert_eq!(found.map(ToString::to_string).as_deref(), chosen, "{wanted}");
        }
    }
}
