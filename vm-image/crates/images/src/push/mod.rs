//! `docker push`: from an image of the store to a name in a registry.
//!
//! An image that was pulled goes as it came, with the same manifest and so the same digest, as long as the store has the
//! blobs of that manifest. Any other gets a manifest of Docker's schema 2 with gzip layers. Layers go several at once
//! ([`layer`]): those that the repository has are passed over, those that another repository of the registry has are taken
//! from there. Then the configuration goes, and at last the manifest: what it speaks of is there.
//!
//! What a name leads to for several platforms goes whole: each image, and then an index of their manifests under the name,
//! the one that they came with if all that it speaks of is there.

mod error;
mod gzip;
mod layer;

pub use error::PushError;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;

use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::layer::LayerBlob;
use crate::manifest::{self, Descriptor, ImageManifest, Parsed};
use crate::platform::Platform;
use crate::progress::{self, Detail, Listener};
use crate::reference::Reference;
use crate::registry::{self, Credentials, Purpose, Registry, RegistryConfig, RegistryError, patiently};
use crate::store::{Manifest, Store};
use layer::LayerPush;

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The image.
    pub id: ImageId,
    /// Its name in the registry.
    pub name: Reference,
}

/// An image about to be pushed.
struct Plan {
    id: ImageId,
    config: Arc<ImageConfig>,
    config_bytes: Vec<u8>,
    /// The manifest that it came with, if all its blobs are there.
    as_it_came: Option<(Manifest, Vec<u8>)>,
}

/// What is to be pushed.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The name; without a tag all tags of its repository are meant.
    pub name: Reference,
    /// Only what it leads to for this platform.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credentials: Credentials,
}

/// Pushes what a name leads to. Ends when dropped.
pub async fn push(
    store: &Store,
    config: &RegistryConfig,
    options: &PushOptions,
    to: &Listener,
) -> Result<Vec<Pushed>, PushError> {
    let PushOptions { name, platform, credentials } = options;
    progress::message(to, "", format!("The push refers to repository [{}]", name.name())).await;
    let names = names(store, name, platform.as_ref())?;
    let mount_from = mountable(store, &names);
    let registry = registry::connect(config, name, credentials, Purpose::Push, &mount_from).await?;
    let registry = Arc::new(registry);
    let uploads = config.at_once.uploads.get().into();
    let mut pushed = Vec::new();
    for (name, images) in names {
        let Some(id) = images.first().copied() else { continue };
        Push { store, registry: &registry, name: &name, uploads, to }.all(&images).await?;
        pushed.push(Pushed { id, name });
    }
    Ok(pushed)
}

/// The tags to be pushed, and the images that each leads to.
fn names(
    store: &Store,
    name: &Reference,
    platform: Option<&Platform>,
) -> Result<Vec<(Reference, Vec<ImageId>)>, PushError> {
    let mut all = store.tags_of(name);
    if all.is_empty() {
        return Err(PushError::NoImage(name.familiar_name()));
    }
    if name.tag().is_some() {
        all.retain(|(other, _)| other == name);
        if all.is_empty() {
            return Err(PushError::NoTag(name.familiar()));
        }
    }
    if platform.is_some() {
        for (name, images) in &mut all {
            *images = vec![store.find_for(&name.familiar(), platform)?.id];
        }
    }
    Ok(all)
}

/// Other repositories of the same registry that have some of the layers.
fn mountable(store: &Store, names: &[(Reference, Vec<ImageId>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, id) in names.iter().flat_map(|(name, images)| images.iter().map(move |id| (name, id))) {
        let Ok(config) = store.config(id) else { continue };
        for layer in &config.rootfs.diff_ids {
            for remote in store.layer_record(layer).map(|record| record.remote.clone()).unwrap_or_default() {
                let path = remote.repository.strip_prefix(&format!("{}/", name.domain())).map(str::to_owned);
                found.extend(path.filter(|path| path != name.path() && !found.contains(path)));
            }
        }
    }
    found
}

async fn plan(store: &Store, id: ImageId) -> Result<Plan, PushError> {
    let store = store.clone();
    let work = tokio::task::spawn_blocking(move || {
        let (config, config_bytes) = (store.config(&id)?, store.raw_config(&id)?);
        let as_it_came = as_it_came(&store, &id, &config);
        Ok(Plan { id, config, config_bytes, as_it_came })
    });
    work.await.map_err(|error| PushError::Engine(error.to_string()))?
}

/// The manifest that an image came with, if each of its blobs is the one that is kept.
fn as_it_came(store: &Store, id: &ImageId, config: &ImageConfig) -> Option<(Manifest, Vec<u8>)> {
    store.manifests(id).into_iter().find_map(|known| {
        let bytes = store.document(&known.digest)?;
        let Ok(Parsed::Image(manifest)) = Parsed::read(&bytes, &known.media_type) else { return None };
        let diff_ids = &config.rootfs.diff_ids;
        let kept = |(layer, diff_id): (&Descriptor, &DiffId)| {
            store
                .layer_record(diff_id)
                .and_then(|record| record.blob)
                .is_some_and(|blob| blob.digest == layer.digest)
        };
        let all = manifest.layers.len() == diff_ids.len() && manifest.layers.iter().zip(diff_ids).all(kept);
        (all && manifest.config.digest == id.0).then_some((known, bytes))
    })
}

/// One name on its way.
struct Push<'a> {
    store: &'a Store,
    registry: &'a Arc<Registry>,
    name: &'a Reference,
    /// How many layers go at once.
    uploads: usize,
    to: &'a Listener,
}

/// A manifest or index that is to be put under a name.
struct Target {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Push<'_> {
    async fn all(&self, images: &[ImageId]) -> Result<(), PushError> {
        let mut done: Vec<(ImageId, Manifest, Target)> = Vec::new();
        for id in images {
            let plan = plan(self.store, *id).await?;
            let (manifest, target) = self.blobs(&plan).await?;
            done.push((*id, manifest, target));
        }
        if let [(id, manifest, target)] = &done[..] {
            self.put(target).await?;
            return self.remember(vec![(*id, manifest.clone(), vec![target.bytes.clone()])], target).await;
        }
        for (.., target) in &done {
            let descriptor = &target.descriptor;
            let digest = descriptor.digest.to_string();
            patiently(|| self.registry.put_manifest(&digest, &descriptor.media_type, &target.bytes)).await?;
        }
        let (index, is_part) = index(self.store, &done)?;
        self.put(&index).await?;
        if is_part {
            let of = |(.., target): &(ImageId, Manifest, Target)| {
                target.descriptor.platform.as_ref().map(ToString::to_string)
            };
            let pushed: Vec<String> = done.iter().filter_map(of).collect();
            let text = format!("Not all of the image is here, only this was pushed: {}", pushed.join(", "));
            progress::message(self.to, "", text).await;
        }
        let with_index = |(id, manifest, target): (ImageId, Manifest, Target)| {
            let manifest = Manifest { index: Some(index.descriptor.digest), ..manifest };
            (id, manifest, vec![target.bytes, index.bytes.clone()])
        };
        self.remember(done.into_iter().map(with_index).collect(), &index).await
    }

    /// Sees to it that the repository has all blobs of an image; says by which manifest.
    async fn blobs(&self, plan: &Plan) -> Result<(Manifest, Target), PushError> {
        let blobs = self.layers(plan).await?;
        config(self.registry, plan).await?;
        let (media_type, bytes) = match &plan.as_it_came {
            Some((known, bytes)) => (known.media_type.clone(), bytes.clone()),
            None => (manifest::DOCKER_MANIFEST.to_owned(), made_manifest(plan, &blobs)?),
        };
        self.remember_blobs(plan, &blobs).await?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let manifest = Manifest { digest, media_type: media_type.clone(), size, index: None };
        let platform = Some(plan.config.platform());
        let descriptor = Descriptor { media_type, size, digest, platform, annotations: None };
        Ok((manifest, Target { descriptor, bytes }))
    }

    /// Puts something under the name, and tells of it.
    async fn put(&self, target: &Target) -> Result<(), PushError> {
        let (tag, descriptor) = (self.name.tag().unwrap_or("latest"), &target.descriptor);
        patiently(|| self.registry.put_manifest(tag, &descriptor.media_type, &target.bytes)).await?;
        let (digest, size) = (descriptor.digest, descriptor.size);
        progress::message(self.to, "", format!("{tag}: digest: {digest} size: {size}")).await;
        progress::step(self.to, tag, "", Detail::Pushed { digest, size }).await;
        Ok(())
    }

    /// Remembers which blobs the repository has now.
    async fn remember_blobs(&self, plan: &Plan, blobs: &[LayerBlob]) -> Result<(), PushError> {
        let repository = self.name.name();
        let known: Vec<_> = plan.config.rootfs.diff_ids.iter().copied().zip(blobs.iter().copied()).collect();
        let store = self.store.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut change = store.change();
            known.iter().try_for_each(|(diff_id, blob)| change.remember_blob(diff_id, *blob, &repository))
        });
        Ok(work.await.map_err(|error| PushError::Engine(error.to_string()))??)
    }

    /// Remembers what the name leads to there.
    async fn remember(
        &self,
        images: Vec<(ImageId, Manifest, Vec<Vec<u8>>)>,
        target: &Target,
    ) -> Result<(), PushError> {
        let (store, by_digest) =
            (self.store.clone(), self.name.clone().with_digest(target.descriptor.digest));
        let work = tokio::task::spawn_blocking(move || {
            let mut change = store.change();
            let mut named = Vec::new();
            for (id, manifest, documents) in images {
                // One that was removed meanwhile has nothing to remember.
                if change.image(&id).is_some() {
                    let documents: Vec<_> = documents.iter().map(Vec::as_slice).collect();
                    change.add_manifest(&id, manifest, &documents)?;
                    named.push(id);
                }
            }
            if !named.is_empty() && change.all_led_to(&by_digest) != named {
                change.name_all(&by_digest, named)?;
            }
            Ok(())
        });
        work.await.map_err(|error| PushError::Engine(error.to_string()))?
    }
}

/// The index of what was pushed: the one that all of it came with if that speaks of nothing else, or a new one. Whether it
/// came with one that speaks of more.
fn index(store: &Store, pushed: &[(ImageId, Manifest, Target)]) -> Result<(Target, bool), PushError> {
    let target = |media_type: String, bytes: Vec<u8>| {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let descriptor = Descriptor { media_type, size, digest, platform: None, annotations: None };
        Target { descriptor, bytes }
    };
    let digests: BTreeSet<Digest> = pushed.iter().map(|(_, manifest, _)| manifest.digest).collect();
    let known = pushed.iter().flat_map(|(id, ..)| store.manifests(id)).filter_map(|manifest| manifest.index);
    let mut is_part = false;
    for bytes in known.filter_map(|index| store.document(&index)) {
        let media_type = manifest::media_type(&bytes, None);
        if let Ok(Parsed::Index(manifests)) = Parsed::read(&bytes, &media_type) {
            let speaks_of: BTreeSet<Digest> = manifests.iter().map(|descriptor| descriptor.digest).collect();
            if speaks_of == digests {
                return Ok((target(media_type, bytes), false));
            }
            is_part |= speaks_of.is_superset(&digests);
        }
    }
    let is_oci = pushed.iter().all(|(_, manifest, _)| manifest.media_type == manifest::OCI_MANIFEST);
    let media_type = if is_oci { manifest::OCI_INDEX } else { manifest::DOCKER_INDEX };
    let manifests: Vec<_> = pushed.iter().map(|(.., target)| &target.descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    let bytes = serde_json::to_vec(&index).map_err(|error| PushError::Engine(error.to_string()))?;
    Ok((target(media_type.to_owned(), bytes), is_part))
}

/// A layer on its way: which it is, and what blob of it the repository has then.
type Upload<'a> = BoxFuture<'a, Result<(DiffId, LayerBlob), PushError>>;

impl Push<'_> {
    /// Sees to it that the repository has all layers, and says which blobs these are.
    async fn layers(&self, plan: &Plan) -> Result<Vec<LayerBlob>, PushError> {
        let Self { store, registry, name, uploads: at_once, to } = *self;
        let diff_ids = &plan.config.rootfs.diff_ids;
        // The topmost is told first, and a layer that is there twice goes once.
        let mut once: Vec<DiffId> = Vec::new();
        for diff_id in diff_ids.iter().rev() {
            if !once.contains(diff_id) {
                once.push(*diff_id);
                progress::step(to, &diff_id.0.short(), "Preparing", Detail::Step).await;
            }
        }
        for waiting in once.iter().skip(at_once) {
            progress::step(to, &waiting.0.short(), "Waiting", Detail::Step).await;
        }
        let mut uploads: Vec<Upload<'_>> = Vec::new();
        for diff_id in once {
            let push = LayerPush::new(store, registry, name, diff_id, plan.as_it_came.is_some(), to)?;
            uploads.push(Box::pin(async move { Ok((diff_id, push.run().await?)) }));
        }
        let done: Vec<(DiffId, LayerBlob)> =
            stream::iter(uploads).buffer_unordered(at_once).try_collect().await?;
        let blob = |diff_id: &DiffId| done.iter().find(|(id, _)| id == diff_id).map(|(_, blob)| *blob);
        Ok(diff_ids.iter().filter_map(blob).collect())
    }
}

/// Sees to it that the repository has the configuration.
async fn config(registry: &Registry, plan: &Plan) -> Result<(), PushError> {
    if patiently(|| registry.blob_size(&plan.id.0)).await?.is_some() {
        return Ok(());
    }
    Ok(patiently(|| upload_config(registry, plan)).await?)
}

async fn upload_config(registry: &Registry, plan: &Plan) -> Result<(), RegistryError> {
    let upload = registry.begin_upload().await?;
    let upload = registry.send_bytes(&upload, || plan.config_bytes.clone().into()).await?;
    registry.end_upload(&upload, &plan.id.0).await
}

/// A manifest of Docker's schema 2, written as dockerd writes it.
fn made_manifest(plan: &Plan, blobs: &[LayerBlob]) -> Result<Vec<u8>, PushError> {
    let of = |media_type: &str, digest: Digest, size: u64| Descriptor {
        media_type: media_type.to_owned(),
        size,
        digest,
        platform: None,
        annotations: None,
    };
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: manifest::DOCKER_MANIFEST.to_owned(),
        config: of(manifest::DOCKER_CONFIG, plan.id.0, plan.config_bytes.len() as u64),
        layers: blobs.iter().map(|blob| of(manifest::DOCKER_LAYER, blob.digest, blob.size)).collect(),
    };
    let mut bytes = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    manifest
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indented))
        .map_err(|error| PushError::Engine(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
