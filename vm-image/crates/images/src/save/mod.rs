//! `docker save`: images as a tar that is both what `docker load` reads and an OCI image layout, as dockerd writes it since
//! version 25. Layers are in it as plain tars, so that an archive says the same wherever an image came from.
//!
//! A name that leads to the same image for several platforms is saved with all of them: an index of their manifests is what
//! the layout has under the name, and Docker's own manifest has the one that runs here, for those who read no index.

mod archive;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::digest::{DiffId, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::layer::decompressed;
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::reference::{AnyReference, Reference, ReferenceError};
use crate::store::{FindError, OwnedLease, Store};
use archive::{Archive, blob};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Why nothing (more) was saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// What was asked for is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It is for another platform than was asked for.
    #[error("no suitable export target found for platform {0}")]
    Platform(Box<Platform>),
    /// It is not there for the platform that was asked for.
    #[error("no suitable export target found: {0}")]
    NoPlatform(FindError),
    /// There is none of this name.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A layer was kept by a version that did not keep what saving needs.
    #[error(
        "layer {0} was stored by an older version that kept no copy to save: load or pull the image again"
    )]
    Incomplete(DiffId),
    /// What is kept of a layer is not what it was.
    #[error("layer {0} is damaged: pull or load the image again")]
    Damaged(DiffId),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A document could not be written.
    #[error("could not write the archive's JSON")]
    Json(#[from] serde_json::Error),
    /// Whoever takes the archive takes no more, or a layer could not be read.
    #[error("could not write the archive")]
    Write(#[from] io::Error),
}

impl Classified for SaveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Find(error) | Self::NoPlatform(error) => error.kind(),
            Self::Reference(_) => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            // dockerd has not classified the first.
            Self::Platform(_)
            | Self::Incomplete(_)
            | Self::Damaged(_)
            | Self::State(_)
            | Self::Json(_)
            | Self::Write(_) => ErrorKind::Internal,
        }
    }
}

/// Images that are going to be saved. Their layers stay until this is dropped.
#[derive(Debug)]
pub struct Saving {
    store: Store,
    images: Vec<Saved>,
    _lease: OwnedLease,
}

/// What of an archive has the same names: an image, for one platform or for several.
#[derive(Debug)]
struct Saved {
    tags: Vec<Reference>,
    /// The first is the one that is meant when nobody says for which platform.
    platforms: Vec<SavedImage>,
}

/// One image of an archive.
#[derive(Debug)]
struct SavedImage {
    id: ImageId,
    platform: Platform,
    config: Vec<u8>,
    layers: Vec<(DiffId, u64)>,
}

/// What is to be saved for each platform, and the tag that leads to it.
type Wanted = (Vec<ImageId>, Option<Reference>);

impl Store {
    /// Finds what is to be saved: a name without a tag means all tags of the repository. Of what a name leads to for
    /// several platforms all are saved, or the one for `platform`.
    pub fn saving(&self, names: &[String], platform: Option<&Platform>) -> Result<Saving, SaveError> {
        let mut wanted: Vec<(Vec<ImageId>, Vec<Reference>)> = Vec::new();
        for name in names {
            for (mut ids, tag) in self.wanted(name)? {
                if let Some(platform) = platform {
                    let of_tag = tag.as_ref().map_or_else(|| name.clone(), Reference::familiar);
                    let found = self.find_only_for(&of_tag, platform).map_err(|error| match error {
                        FindError::Platform { wanted, .. } => SaveError::Platform(wanted),
                        FindError::NoPlatform { .. } => SaveError::NoPlatform(error),
                        error => error.into(),
                    });
                    ids = vec![found?];
                }
                match wanted.iter_mut().find(|(other, _)| *other == ids) {
                    Some((_, tags)) => tags.extend(tag.filter(|tag| !tags.contains(tag))),
                    None => wanted.push((ids, tag.into_iter().collect())),
                }
            }
        }
        let mut layers = Vec::new();
        for id in wanted.iter().flat_map(|(ids, _)| ids) {
            layers.extend(self.config(id)?.rootfs.diff_ids.iter().copied());
        }
        let (lease, _) = self.lease_owned(&layers);
        let saved = |(ids, tags): (Vec<ImageId>, Vec<Reference>)| {
            let platforms = ids.into_iter().map(|id| self.saved(id)).collect::<Result<_, SaveError>>()?;
            Ok::<_, SaveError>(Saved { tags, platforms })
        };
        let images = wanted.into_iter().map(saved).collect::<Result<_, _>>()?;
        Ok(Saving { store: self.clone(), images, _lease: lease })
    }

    fn wanted(&self, name: &str) -> Result<Vec<Wanted>, SaveError> {
        let AnyReference::Named(reference) = AnyReference::parse(name)? else {
            return Ok(vec![(vec![self.find(name)?.id], None)]);
        };
        if reference.tag().is_none() && reference.digest().is_none() {
            let all = self.tags_of(&reference);
            if !all.is_empty() {
                return Ok(all.into_iter().map(|(tag, ids)| (ids, Some(tag))).collect());
            }
        }
        let found = self.find(name).map_err(|error| match error {
            FindError::NotFound(_) => SaveError::NotFound(reference.familiar()),
            error => error.into(),
        })?;
        let name = reference.or_latest();
        let led_to = self.all_led_to(&name);
        // What is named by the beginning of its id, or by a digest, has no name in the archive.
        match led_to.first() == Some(&found.id) {
            true => Ok(vec![(led_to, Some(name).filter(|name| name.digest().is_none()))]),
            false => Ok(vec![(vec![found.id], None)]),
        }
    }

    fn saved(&self, id: ImageId) -> Result<SavedImage, SaveError> {
        let config = self.raw_config(&id)?;
        let mut layers = Vec::new();
        let known = self.config(&id)?;
        for layer in &known.rootfs.diff_ids {
            let record = self.layer_record(layer).filter(|record| record.is_complete());
            let bytes = record.and_then(|record| record.tar_bytes).ok_or(SaveError::Incomplete(*layer))?;
            layers.push((*layer, bytes));
        }
        Ok(SavedImage { id, platform: known.platform(), config, layers })
    }
}

impl Saving {
    /// The images, each for the platform that is meant when nobody says for which.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        self.images.iter().filter_map(|image| Some(image.platforms.first()?.id))
    }

    /// Writes the archive to its end. Layers are read as they go, in memory that does not depend on their size.
    pub fn write(&self, out: impl Write) -> Result<(), SaveError> {
        let mut archive = Archive::begin(out)?;
        let mut index = Vec::new();
        for image in &self.images {
            let mut manifests = Vec::new();
            for of_platform in &image.platforms {
                manifests.push(self.image(&mut archive, of_platform)?);
            }
            let target = match &manifests[..] {
                [one] => json!({"mediaType": OCI_MANIFEST, "digest": one["digest"], "size": one["size"]}),
                _ => {
                    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
                    let (digest, size) = archive.blob(&serde_json::to_vec(&index)?)?;
                    json!({"mediaType": OCI_INDEX, "digest": digest, "size": size})
                }
            };
            index.extend(entries(image, &target));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index});
        archive.file("index.json", &serde_json::to_vec(&index)?)?;
        let manifest: Vec<_> = self.images.iter().filter_map(docker_manifest).collect();
        archive.file("manifest.json", &serde_json::to_vec(&manifest)?)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)?;
        let repositories = self.repositories();
        if !repositories.is_empty() {
            archive.file("repositories", &serde_json::to_vec(&repositories)?)?;
        }
        Ok(archive.end()?)
    }

    /// All of an image; what points to it then.
    fn image(
        &self,
        archive: &mut Archive<impl Write>,
        image: &SavedImage,
    ) -> Result<serde_json::Value, SaveError> {
        for (layer, bytes) in &image.layers {
            if !archive.has(&layer.0) {
                let kept = decompressed(self.store.layer_store().open_blob(layer)?)?;
                if !archive.layer(layer, *bytes, kept)? {
                    self.store.layer_is_damaged(layer);
                    return Err(SaveError::Damaged(*layer));
                }
            }
        }
        archive.blob(&image.config)?;
        let (digest, size) = archive.blob(&serde_json::to_vec(&oci_manifest(image))?)?;
        Ok(json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": image.platform}))
    }

    /// Docker's oldest list of names: the topmost layer of each.
    fn repositories(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in &self.images {
            let top = image.platforms.first().and_then(|first| first.layers.last());
            let Some((top, _)) = top else { continue };
            for tag in &image.tags {
                let tags = repositories.entry(tag.familiar_name()).or_default();
                tags.insert(tag.tag().unwrap_or_default().to_owned(), top.0.hex());
            }
        }
        repositories
    }
}

fn layer_descriptor((layer, bytes): &(DiffId, u64)) -> serde_json::Value {
    json!({"mediaType": LAYER, "digest": layer, "size": bytes})
}

fn oci_manifest(image: &SavedImage) -> serde_json::Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": image.id, "size": image.config.len()},
        "layers": image.layers.iter().map(layer_descriptor).collect::<Vec<_>>(),
    })
}

/// The entries of `index.json` for an image: one for each of its tags.
fn entries(image: &Saved, target: &serde_json::Value) -> Vec<serde_json::Value> {
    if image.tags.is_empty() {
        return vec![target.clone()];
    }
    let named = |tag: &Reference| {
        let mut entry = target.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": tag.to_string(),
            "org.opencontainers.image.ref.name": tag.tag(),
        });
        entry
    };
    image.tags.iter().map(named).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    layer_sources: BTreeMap<String, serde_json::Value>,
}

fn docker_manifest(image: &Saved) -> Option<DockerManifest> {
    let first = image.platforms.first()?;
    let tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
    let source = |layer: &(DiffId, u64)| (layer.0.to_string(), layer_descriptor(layer));
    Some(DockerManifest {
        config: blob(&first.id.0),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: first.layers.iter().map(|(layer, _)| blob(&layer.0)).collect(),
        layer_sources: first.layers.iter().map(source).collect(),
    })
}

#[cfg(test)]
mod tests;
