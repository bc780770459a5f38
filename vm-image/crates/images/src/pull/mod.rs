//! `docker pull`: from a name to an image of the store.
//!
//! The name leads to a manifest, at once or by an index that has one for the platform; the manifest to a configuration,
//! which tells the layers' diff ids, and to the layers' blobs. Layers that the store has are leased, the others fetched
//! ([`transfer`]), and then image, manifest and names are made in one change. A name that leads to an index keeps what was
//! pulled of it for other platforms.
//!
//! A pull ends when its future is dropped: what it fetched alone is given up.

mod error;
mod told;
mod transfer;

pub use error::PullError;

use std::sync::Arc;

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::layer::{Compression, LayerBlob};
use crate::manifest::{self, Descriptor, ImageManifest, Parsed};
use crate::platform::Platform;
use crate::progress::{self, Detail, Listener};
use crate::reference::Reference;
use crate::registry::{
    self, Credentials, Document, Purpose, Registry, RegistryConfig, RegistryError, patiently,
};
use crate::store::{Manifest, OwnedLease, Store, read_config};
use told::Told;
use transfer::{Transfers, Wanted};

/// What brings images from registries to a store. Cloning is cheap; clones share what is under way.
#[derive(Debug, Clone)]
pub struct Puller {
    store: Store,
    config: Arc<RegistryConfig>,
    transfers: Arc<Transfers>,
}

/// An image that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// The name that leads to it.
    pub name: Reference,
    /// What the registry has under that name.
    pub digest: Digest,
    /// Whether the name led to another image, or to none, before.
    pub is_news: bool,
}

/// An image that a pull has found and not fetched yet. Its name is known to be there.
#[derive(Debug)]
pub struct Found {
    registry: Arc<Registry>,
    /// The place of where it was found among the registry's endpoints.
    at: usize,
    credentials: Credentials,
    name: Reference,
    platform: Option<Platform>,
    document: Document,
}

/// What a registry has under a name.
#[derive(Debug)]
pub struct Inspected {
    /// The manifest or index.
    pub document: Document,
    /// What it is for.
    pub platforms: Vec<Platform>,
}

/// The parts of an image, before its layers.
struct Plan {
    manifest: ImageManifest,
    document: Document,
    index: Option<Document>,
    config: ImageConfig,
    bytes: Vec<u8>,
}

impl Puller {
    /// Pulls into `store`.
    pub fn new(store: Store, config: Arc<RegistryConfig>) -> Self {
        let transfers = Arc::new(Transfers::new(config.at_once.downloads));
        Self { store, config, transfers }
    }

    /// How registries are reached.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Asks the registry for a name. What is wrong with the name, or with who asks, comes to light here.
    pub async fn find(
        &self,
        name: &Reference,
        platform: Option<Platform>,
        credentials: &Credentials,
    ) -> Result<Found, PullError> {
        self.find_past(0, name, platform, credentials).await
    }

    async fn find_past(
        &self,
        passed: usize,
        name: &Reference,
        platform: Option<Platform>,
        credentials: &Credentials,
    ) -> Result<Found, PullError> {
        let found = registry::find(&self.config, name, credentials, passed).await;
        let (serving, document) = found.map_err(|error| PullError::of_manifest(name, error))?;
        let (registry, credentials) = (Arc::new(serving.registry), credentials.clone());
        Ok(Found { registry, at: serving.at, credentials, name: name.clone(), platform, document })
    }

    /// What the registry has under a name, and for which platforms.
    pub async fn inspect(
        &self,
        name: &Reference,
        credentials: &Credentials,
    ) -> Result<Inspected, RegistryError> {
        let (serving, document) = registry::find(&self.config, name, credentials, 0).await?;
        let registry = serving.registry;
        let invalid = |error: &dyn std::error::Error| RegistryError::Invalid(error.to_string());
        let platforms = match Parsed::read(&document.bytes, &document.media_type).map_err(|e| invalid(&e))? {
            Parsed::Index(manifests) => {
                manifests.into_iter().filter_map(|manifest| manifest.platform).collect()
            }
            Parsed::Image(manifest) => {
                let bytes = patiently(|| registry.small_blob(&manifest.config.digest)).await?;
                let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
                vec![config.platform()]
            }
        };
        Ok(Inspected { document, platforms })
    }

    /// The names of all tags of a repository.
    pub async fn tags(
        &self,
        name: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<Reference>, PullError> {
        let registry = registry::connect(&self.config, name, credentials, Purpose::Pull, &[]).await?;
        let tags = registry.tags().await.map_err(|error| PullError::of_manifest(name, error))?;
        // A tag that is none cannot be asked for.
        Ok(tags.iter().filter_map(|tag| name.clone().with_tag(tag).ok()).collect())
    }

    /// Fetches what was found. What a mirror does not give after all comes from the next endpoint. Ends when dropped.
    pub async fn fetch(&self, mut found: Found, to: &Listener) -> Result<Pulled, PullError> {
        loop {
            let (name, platform) = (found.name.clone(), found.platform.clone());
            let (next, credentials) = (found.at + 1, found.credentials.clone());
            let mirror = Some(found.registry.base().to_owned()).filter(|_| found.registry.is_mirror());
            match (self.fetch_from(found, to).await, mirror) {
                (Err(error), Some(mirror)) if error.is_of_source() => {
                    tracing::debug!(mirror, %error, "mirror failed in the middle of a pull");
                    found = self.find_past(next, &name, platform, &credentials).await?;
                }
                (done, _) => return done,
            }
        }
    }

    async fn fetch_from(&self, found: Found, to: &Listener) -> Result<Pulled, PullError> {
        let Found { registry, name, platform, document, .. } = found;
        let shown = name.digest().map(|digest| digest.to_string());
        let shown = shown.or(name.tag().map(str::to_owned)).unwrap_or_default();
        progress::message(to, &shown, format!("Pulling from {}", name.path())).await;
        let digest = document.digest;
        let plan = plan(&registry, document, platform.as_ref()).await?;
        let id = ImageId(plan.manifest.config.digest);
        let lease = self.layers(&registry, &name, &plan, to).await?;
        let is_news = self.keep(plan, &name, digest, lease).await?;
        Ok(Pulled { id, name, digest, is_news })
    }

    /// Sees to it that all layers are there, for as long as the lease lives.
    async fn layers(
        &self,
        registry: &Arc<Registry>,
        name: &Reference,
        plan: &Plan,
        to: &Listener,
    ) -> Result<OwnedLease, PullError> {
        let diff_ids = &plan.config.rootfs.diff_ids;
        let (store, wanted) = (self.store.clone(), diff_ids.clone());
        // It waits for whoever changes the store, and so for the disk.
        let leasing = tokio::task::spawn_blocking(move || store.lease_owned(&wanted)).await;
        let (lease, present) = leasing.map_err(|error| PullError::Engine(error.to_string()))?;
        let image = ImageId(plan.manifest.config.digest);
        if self.store.config(&image).is_ok() && present.iter().all(|present| *present) {
            return Ok(lease);
        }
        let mut told = Vec::new();
        for ((layer, diff_id), present) in plan.manifest.layers.iter().zip(diff_ids).zip(present) {
            let id = layer.digest.short();
            if present {
                progress::step(to, &id, "Already exists", Detail::Step).await;
                continue;
            }
            progress::step(to, &id, "Pulling fs layer", Detail::Step).await;
            let (repository, digest) = (name.name(), layer.digest);
            let wanted = Wanted { repository, digest, size: layer.size, diff_id: *diff_id };
            told.push(Told::new(id, self.transfers.get(&self.store, registry, wanted)));
        }
        told::until_done(told, to).await?;
        Ok(lease)
    }

    /// Makes the image and its names. Says whether the name is news.
    async fn keep(
        &self,
        plan: Plan,
        name: &Reference,
        digest: Digest,
        lease: OwnedLease,
    ) -> Result<bool, PullError> {
        let (store, name) = (self.store.clone(), name.clone());
        let work = tokio::task::spawn_blocking(move || {
            let kept = keep(&store, &plan, &name, digest);
            drop(lease);
            kept
        });
        work.await.map_err(|error| PullError::Engine(error.to_string()))?
    }
}

fn keep(store: &Store, plan: &Plan, name: &Reference, digest: Digest) -> Result<bool, PullError> {
    let mut change = store.change();
    let id = change.add_image(&plan.bytes)?;
    let mut documents = vec![plan.document.bytes.as_slice()];
    documents.extend(plan.index.as_ref().map(|index| index.bytes.as_slice()));
    let manifest = Manifest {
        digest: plan.document.digest,
        media_type: plan.document.media_type.clone(),
        size: plan.document.bytes.len() as u64,
        index: plan.index.as_ref().map(|index| index.digest),
    };
    change.add_manifest(&id, manifest, &documents)?;
    for (layer, diff_id) in plan.manifest.layers.iter().zip(&plan.config.rootfs.diff_ids) {
        let blob = LayerBlob { digest: layer.digest, size: layer.size, compression: compression(layer) };
        change.remember_blob(diff_id, blob, &name.name())?;
    }
    let by_digest = name.clone().with_digest(digest);
    let is_news = !change.all_led_to(name).contains(&id);
    if !change.all_led_to(&by_digest).contains(&id) {
        match plan.index {
            Some(_) => change.name_platform(&by_digest, id)?,
            None => drop(change.name_all(&by_digest, vec![id])?),
        }
    }
    if name.digest().is_none() && is_news {
        // What the same index has for other platforms stays beside it; what another had goes.
        let of_index = change.all_led_to(&by_digest);
        match plan.index.is_some() && change.all_led_to(name).iter().all(|other| of_index.contains(other)) {
            true => change.name_platform(name, id)?,
            false => drop(change.name_all(name, vec![id])?),
        }
    }
    Ok(is_news)
}

fn compression(layer: &Descriptor) -> Compression {
    match layer.media_type.as_str() {
        kind if kind.ends_with("gzip") => Compression::Gzip,
        kind if kind.ends_with("zstd") => Compression::Zstd,
        _ => Compression::None,
    }
}

/// From what a name leads to, to the manifest and configuration of one image.
async fn plan(
    registry: &Registry,
    document: Document,
    platform: Option<&Platform>,
) -> Result<Plan, PullError> {
    let here = Platform::here();
    let wanted = platform.unwrap_or(&here);
    let (mut document, mut index) = (document, None);
    let mut depth = 0;
    let manifest = loop {
        match Parsed::read(&document.bytes, &document.media_type)? {
            Parsed::Image(manifest) => break manifest,
            Parsed::Index(_) if depth == manifest::DEPTH_MAX => return Err(PullError::TooDeep),
            Parsed::Index(manifests) => {
                let chosen = manifest::choose(&manifests, wanted)
                    .ok_or_else(|| PullError::NoPlatform(wanted.clone()))?;
                let chosen = chosen.digest.to_string();
                let next = patiently(|| registry.get_manifest(&chosen)).await?;
                // The outermost is what the name leads to.
                index.get_or_insert(std::mem::replace(&mut document, next));
                depth += 1;
            }
        }
    };
    let bytes = patiently(|| registry.small_blob(&manifest.config.digest)).await?;
    let config = read_config(&bytes)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(PullError::LayerCount);
    }
    Ok(Plan { manifest, document, index, config, bytes })
}

#[cfg(test)]
mod tests;
