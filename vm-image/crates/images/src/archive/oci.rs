//! An OCI image layout in a tar: `index.json` leads to manifests, or to indexes that have a manifest for each platform
//! (OCI image specification, "Image Layout"). Everything is named by its digest, and checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::spool::Spool;
use super::{Layer, LoadError, Planned};
use crate::config::Platform;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::{Limits, read_config};

pub(super) const INDEX: &str = "index.json";

/// What containerd and BuildKit write a whole name to.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// What the specification has for a name, which may be a mere tag.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
/// Where BuildKit says that a manifest is no image but says something of one.
const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// How deep indexes may lead to indexes.
const DEPTH_MAX: usize = 4;

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: Option<String>,
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        self.media_type.as_deref().is_some_and(|media_type| INDEX_TYPES.contains(&media_type))
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Attestations have no platform, or one that is unknown.
    fn is_image(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        !unknown && self.annotation(DOCKER_REFERENCE_TYPE).is_none()
    }

    fn name(&self) -> Result<Option<Reference>, LoadError> {
        let name = self.annotation(CONTAINERD_NAME).or_else(|| {
            // A mere tag names nothing.
            self.annotation(OCI_NAME).filter(|name| name.contains(['/', ':']))
        });
        let name = name.map(Reference::parse).transpose()?;
        Ok(name.map(Reference::or_latest).filter(|name| name.digest().is_none()))
    }

    fn member(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }
}

/// The images that the index leads to: of each name one, for this platform if there are several.
pub(super) fn plan(
    spool: &Spool,
    index: &[u8],
    platform: Option<&Platform>,
    limits: &Limits,
) -> Result<Vec<Planned>, LoadError> {
    let index: Index =
        serde_json::from_slice(index).map_err(|error| LoadError::Json(INDEX.to_owned(), error))?;
    let plan = Planner { spool, platform, limits };
    let mut chosen: Vec<(Option<Reference>, Vec<Descriptor>)> = Vec::new();
    for descriptor in index.manifests.unwrap_or_default().into_iter().filter(Descriptor::is_image) {
        let name = descriptor.name()?;
        match chosen.iter_mut().find(|(other, _)| *other == name) {
            Some((_, same)) => same.push(descriptor),
            None => chosen.push((name, vec![descriptor])),
        }
    }
    let mut planned: Vec<Planned> = Vec::new();
    for (name, descriptors) in chosen {
        for manifest in plan.manifests(&descriptors)? {
            plan.add(&mut planned, &manifest, name.clone())?;
        }
    }
    Ok(planned)
}

struct Planner<'a> {
    spool: &'a Spool,
    platform: Option<&'a Platform>,
    limits: &'a Limits,
}

impl Planner<'_> {
    /// What of several descriptors of the same name is to be loaded. Different images without a name are all loaded;
    /// the same for different platforms is loaded for one.
    fn manifests(&self, same_name: &[Descriptor]) -> Result<Vec<Descriptor>, LoadError> {
        let (with, without): (Vec<_>, Vec<_>) = same_name
            .iter()
            .cloned()
            .partition(|descriptor| descriptor.platform.is_some() && !descriptor.is_index());
        let mut manifests = Vec::new();
        for descriptor in without {
            manifests.push(self.descend(descriptor, 0)?);
        }
        if !with.is_empty() {
            manifests.push(self.choose(with)?);
        }
        Ok(manifests)
    }

    fn descend(&self, descriptor: Descriptor, depth: usize) -> Result<Descriptor, LoadError> {
        if !descriptor.is_index() {
            return Ok(descriptor);
        }
        if depth == DEPTH_MAX {
            return Err(LoadError::TooDeep);
        }
        let index: Index = self.document(&descriptor)?;
        let images = index.manifests.unwrap_or_default().into_iter().filter(Descriptor::is_image).collect();
        self.descend(self.choose(images)?, depth + 1)
    }

    /// The one for the platform that is asked for; else for this one; else the only one.
    fn choose(&self, descriptors: Vec<Descriptor>) -> Result<Descriptor, LoadError> {
        let here = Platform::here();
        let wanted = self.platform.unwrap_or(&here);
        let is_wanted = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => wanted.runs(platform),
            None => false,
        };
        let only = match descriptors.as_slice() {
            [only] if self.platform.is_none() || only.platform.is_none() => Some(only),
            _ => None,
        };
        descriptors
            .iter()
            .find(is_wanted)
            .or(only)
            .cloned()
            .ok_or_else(|| LoadError::NoPlatform(wanted.clone()))
    }

    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, LoadError> {
        let bytes = self.checked(descriptor)?;
        serde_json::from_slice(&bytes).map_err(|error| LoadError::Json(descriptor.member(), error))
    }

    fn checked(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LoadError> {
        let name = descriptor.member();
        let bytes = self.spool.read(&name, self.limits)?.ok_or_else(|| LoadError::Missing(name.clone()))?;
        match Digest::of(&bytes) {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(LoadError::Digest { name, found }),
        }
    }

    /// Plans an image; if it is planned already, only its name is new.
    fn add(
        &self,
        planned: &mut Vec<Planned>,
        image: &Descriptor,
        name: Option<Reference>,
    ) -> Result<(), LoadError> {
        let manifest: Manifest = self.document(image)?;
        let bytes = self.checked(&manifest.config)?;
        match planned.iter_mut().find(|other| other.bytes == bytes) {
            Some(other) => other.tags.extend(name),
            None => {
                let config = read_config(&bytes)?;
                let layers = manifest.layers.unwrap_or_default();
                let layers = layers.iter().map(|layer| self.layer(layer)).collect::<Result<_, _>>()?;
                planned.push(Planned {
                    bytes,
                    config,
                    layers,
                    tags: name.into_iter().collect(),
                    parent: None,
                });
            }
        }
        Ok(())
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Layer, LoadError> {
        let name = descriptor.member();
        let section = self.spool.open(&name).ok_or(LoadError::Missing(name))?;
        Ok(Layer { section, digest: Some(descriptor.digest) })
    }
}
