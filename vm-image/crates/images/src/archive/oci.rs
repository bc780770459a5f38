//! An OCI image layout in a tar: `index.json` leads to manifests, or to indexes that have a manifest for each platform
//! (OCI image specification, "Image Layout"). Everything is named by its digest, and checked.
//!
//! Under a name all platforms are loaded whose content is in the archive, unless one is asked for: whoever saves part of an
//! index leaves the index as it was. An index without a name is loaded for one platform, since nothing would hold the
//! others together.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::spool::Spool;
use super::{Kept, Layer, LoadError, Planned};
use crate::digest::Digest;
use crate::manifest::{self, DEPTH_MAX, Descriptor, ImageManifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Limits, Manifest, read_config};

pub(super) const INDEX: &str = "index.json";

/// What containerd and BuildKit write a whole name to.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// What the specification has for a name, which may be a mere tag.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Index {
    fn read(bytes: &[u8], name: &str) -> Result<Vec<Descriptor>, LoadError> {
        let index: Self =
            serde_json::from_slice(bytes).map_err(|error| LoadError::Json(name.to_owned(), error))?;
        Ok(index.manifests.unwrap_or_default())
    }
}

/// A manifest of an image that may be loaded, and the index that led to it.
#[derive(Debug, Clone)]
struct Found {
    descriptor: Descriptor,
    index: Option<Arc<Document>>,
}

/// An index, byte for byte.
#[derive(Debug)]
struct Document {
    digest: Digest,
    bytes: Vec<u8>,
}

fn name(of: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let name = of.annotation(CONTAINERD_NAME).or_else(|| {
        // A mere tag names nothing.
        of.annotation(OCI_NAME).filter(|name| name.contains(['/', ':']))
    });
    let name = name.map(Reference::parse).transpose()?;
    Ok(name.map(Reference::or_latest).filter(|name| name.digest().is_none()))
}

fn member(of: &Descriptor) -> String {
    format!("blobs/sha256/{}", of.digest.hex())
}

/// Whether an index leads to indexes, which Docker's own manifest beside it cannot tell of.
pub(super) fn has_indexes(index: &[u8]) -> bool {
    Index::read(index, INDEX).is_ok_and(|manifests| manifests.iter().any(Descriptor::is_index))
}

/// The images that the index leads to.
pub(super) fn plan(
    spool: &Spool,
    index: &[u8],
    platform: Option<&Platform>,
    limits: &Limits,
) -> Result<Vec<Planned>, LoadError> {
    let plan = Planner { spool, platform, limits };
    let mut named: Vec<(Option<Reference>, Vec<Descriptor>)> = Vec::new();
    for descriptor in Index::read(index, INDEX)?.into_iter().filter(Descriptor::is_image) {
        let name = name(&descriptor)?;
        match named.iter_mut().find(|(other, _)| *other == name) {
            Some((_, same)) => same.push(descriptor),
            None => named.push((name, vec![descriptor])),
        }
    }
    let mut planned: Vec<Planned> = Vec::new();
    for (name, descriptors) in named {
        match name {
            Some(name) => plan.all(&mut planned, descriptors, &name)?,
            None => plan.each(&mut planned, descriptors)?,
        }
    }
    Ok(planned)
}

/// The manifests in `index.json` of images that another list in the archive tells of, by their configurations.
pub(super) fn manifests(spool: &Spool, index: &[u8], limits: &Limits) -> Vec<(Digest, Kept)> {
    let plan = Planner { spool, platform: None, limits };
    let images = Index::read(index, INDEX).unwrap_or_default().into_iter().filter(Descriptor::is_image);
    let kept = images.filter_map(|descriptor| {
        let found = Found { descriptor, index: None };
        let (manifest, bytes) = plan.manifest(&found.descriptor).ok()?;
        Some((manifest.config.digest, kept(&found, bytes)))
    });
    kept.collect()
}

struct Planner<'a> {
    spool: &'a Spool,
    platform: Option<&'a Platform>,
    limits: &'a Limits,
}

impl Planner<'_> {
    /// Plans what has no name: different images, each for one platform.
    fn each(&self, planned: &mut Vec<Planned>, descriptors: Vec<Descriptor>) -> Result<(), LoadError> {
        let (with, without): (Vec<_>, Vec<_>) = descriptors
            .into_iter()
            .map(|descriptor| Found { descriptor, index: None })
            .partition(|found| found.descriptor.platform.is_some() && !found.descriptor.is_index());
        for found in without {
            let found = self.choose(self.descend(found, 0)?)?;
            self.add(planned, &found, None)?;
        }
        match with.is_empty() {
            true => Ok(()),
            false => self.add(planned, &self.choose(with)?, None),
        }
    }

    /// Plans what has a name: the same image, for each platform that is there or for the one that is asked for.
    fn all(
        &self,
        planned: &mut Vec<Planned>,
        descriptors: Vec<Descriptor>,
        name: &Reference,
    ) -> Result<(), LoadError> {
        let mut all = Vec::new();
        for descriptor in descriptors {
            all.extend(self.descend(Found { descriptor, index: None }, 0)?);
        }
        if self.platform.is_some() || all.len() == 1 {
            return self.add(planned, &self.choose(all)?, Some((name, false)));
        }
        let here = Platform::here();
        all.sort_by_key(|found| found.descriptor.rank_for(&here).unwrap_or(usize::MAX));
        let mut whole = all.iter().filter(|found| self.is_whole(&found.descriptor)).peekable();
        if whole.peek().is_none() {
            // It says what is missing.
            return self.add(planned, &self.choose(all)?, Some((name, false)));
        }
        whole.enumerate().try_for_each(|(at, found)| self.add(planned, found, Some((name, at > 0))))
    }

    /// Whether all of an image is in the archive.
    fn is_whole(&self, descriptor: &Descriptor) -> bool {
        let has = |descriptor: &Descriptor| self.spool.open(&member(descriptor)).is_some();
        has(descriptor)
            && self
                .manifest(descriptor)
                .is_ok_and(|(manifest, _)| has(&manifest.config) && manifest.layers.iter().all(has))
    }

    /// The images that a descriptor leads to: itself, or those of the index that it points to.
    fn descend(&self, from: Found, depth: usize) -> Result<Vec<Found>, LoadError> {
        if !from.descriptor.is_index() {
            return Ok(vec![from]);
        }
        if depth == DEPTH_MAX {
            return Err(LoadError::TooDeep);
        }
        let bytes = self.checked(&from.descriptor)?;
        let below = Index::read(&bytes, &member(&from.descriptor))?;
        let index = from.index.unwrap_or_else(|| {
            // The outermost is what the name leads to.
            Arc::new(Document { digest: from.descriptor.digest, bytes })
        });
        let mut found = Vec::new();
        for descriptor in below.into_iter().filter(Descriptor::is_image) {
            found.extend(self.descend(Found { descriptor, index: Some(Arc::clone(&index)) }, depth + 1)?);
        }
        Ok(found)
    }

    /// The one for exactly the platform that is asked for; else the best for this one; else the only one.
    fn choose(&self, all: Vec<Found>) -> Result<Found, LoadError> {
        let here = Platform::here();
        let only = match all.as_slice() {
            [only] if self.platform.is_none() || only.descriptor.platform.is_none() => Some(only),
            _ => None,
        };
        let rank = |found: &Found| match self.platform {
            Some(wanted) => {
                found.descriptor.platform.as_ref().is_some_and(|found| wanted.is(found)).then_some(0)
            }
            None => found.descriptor.rank_for(&here),
        };
        let ranked = all.iter().filter_map(|found| Some((rank(found)?, found)));
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| found);
        let wanted = self.platform.unwrap_or(&here);
        best.or(only).cloned().ok_or_else(|| LoadError::NoPlatform(wanted.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<(ImageManifest, Vec<u8>), LoadError> {
        let bytes = self.checked(descriptor)?;
        let manifest = self.parsed(descriptor, &bytes)?;
        Ok((manifest, bytes))
    }

    fn parsed<T: DeserializeOwned>(&self, of: &Descriptor, bytes: &[u8]) -> Result<T, LoadError> {
        serde_json::from_slice(bytes).map_err(|error| LoadError::Json(member(of), error))
    }

    fn checked(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LoadError> {
        let name = member(descriptor);
        let bytes = self.spool.read(&name, self.limits)?.ok_or_else(|| LoadError::Missing(name.clone()))?;
        match Digest::of(&bytes) {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(LoadError::Digest { name, found }),
        }
    }

    /// Plans an image under a name, which an image before it may have got for another platform; if it is planned
    /// already, only its name is new.
    fn add(
        &self,
        planned: &mut Vec<Planned>,
        found: &Found,
        name: Option<(&Reference, bool)>,
    ) -> Result<(), LoadError> {
        let (manifest, bytes_of_manifest) = self.manifest(&found.descriptor)?;
        let bytes = self.checked(&manifest.config)?;
        let tags: Vec<_> = name.map(|(name, _)| name.clone()).into_iter().collect();
        let is_another_platform = name.is_some_and(|(_, is_another)| is_another);
        let same =
            |other: &&mut Planned| other.bytes == bytes && other.is_another_platform == is_another_platform;
        if let Some(other) = planned.iter_mut().find(same) {
            other.tags.extend(tags);
            return Ok(());
        }
        let config = read_config(&bytes)?;
        if let Some(wanted) = self.platform.filter(|wanted| !config.is_only_for(wanted)) {
            return Err(LoadError::NoPlatform(wanted.clone()));
        }
        let layers = manifest.layers.iter().map(|layer| self.layer(layer)).collect::<Result<_, _>>()?;
        let kept = vec![kept(found, bytes_of_manifest)];
        planned.push(Planned { bytes, config, layers, tags, parent: None, kept, is_another_platform });
        Ok(())
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Layer, LoadError> {
        let name = member(descriptor);
        let section = self.spool.open(&name).ok_or(LoadError::Missing(name))?;
        Ok(Layer { section, digest: Some(descriptor.digest) })
    }
}

/// A manifest that is to be kept with the image that it is of, and the index that led to it.
fn kept(found: &Found, bytes: Vec<u8>) -> Kept {
    let manifest = Manifest {
        digest: found.descriptor.digest,
        media_type: manifest::media_type(&bytes, Some(&found.descriptor.media_type)),
        size: bytes.len() as u64,
        index: found.index.as_ref().map(|index| index.digest),
    };
    let index = found.index.as_ref().map(|index| index.bytes.clone());
    Kept { manifest, documents: std::iter::once(bytes).chain(index).collect() }
}
