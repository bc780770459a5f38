//! One change of the store: first on disk, then in memory.

use std::fs;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::holds::{self, Hold};
use super::names::Names;
use super::state::{self, CreateError, Known, Manifest, Record, State};
use super::{FindError, Inner};
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::{self, At, StateError};
use crate::image::Image;
use crate::layer::{Discarded, LayerBlob, LayerRecord, OnDisk};
use crate::platform::Platform;
use crate::reference::Reference;

/// How many manifests are kept for an image.
const MANIFESTS_MAX: usize = 8;

/// A change under way. Others wait for it to be dropped, and readers then see what was done, all at once; also if
/// the last step of it failed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    inner: &'a Inner,
    pub(super) state: State,
    _writer: MutexGuard<'a, ()>,
}

impl<'a> Change<'a> {
    pub(super) fn begin(inner: &'a Inner) -> Self {
        let writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let state = State::clone(&inner.state.read().unwrap_or_else(PoisonError::into_inner));
        Self { inner, state, _writer: writer }
    }

    /// The images that a name leads to, for each platform one.
    pub(crate) fn all_led_to(&self, name: &Reference) -> &[ImageId] {
        self.state.names.all(name)
    }

    pub(super) fn find_all(&self, name: &str) -> Result<Vec<ImageId>, FindError> {
        self.state.find_all(name)
    }

    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        self.state.image(id)
    }

    /// Keeps unpacked layers.
    pub(crate) fn add_layers(&mut self, staged: OnDisk) -> Result<(), StateError> {
        let records: Vec<_> =
            staged.layers().iter().map(|layer| (layer.diff_id, layer.record.clone())).collect();
        self.inner.layers.publish(staged)?;
        for (layer, record) in records {
            let known = self.state.layers.entry(layer);
            let known = known.or_insert_with(|| Arc::new(record.clone()));
            if !known.is_complete() {
                *known = Arc::new(record);
            }
        }
        Ok(())
    }

    /// Remembers that a repository has a blob of a layer.
    pub(crate) fn remember_blob(
        &mut self,
        layer: &DiffId,
        blob: LayerBlob,
        repository: &str,
    ) -> Result<(), StateError> {
        let Some(known) = self.state.layers.get(layer) else { return Ok(()) };
        let mut record = LayerRecord::clone(known);
        if record.remember(blob, repository) {
            self.inner.layers.write_record(layer, &record)?;
            self.state.layers.insert(*layer, Arc::new(record));
        }
        Ok(())
    }

    /// Forgets what is kept of a layer but for its files. It is kept anew when the layer comes again.
    pub(super) fn forget_blob(&mut self, layer: &DiffId) -> Result<(), StateError> {
        let Some(known) = self.state.layers.get(layer) else { return Ok(()) };
        let mut record = LayerRecord::clone(known);
        record.blob = None;
        self.inner.layers.write_record(layer, &record)?;
        self.state.layers.insert(*layer, Arc::new(record));
        Ok(())
    }

    /// Keeps a manifest, and the index that led to it, with the image that they are of.
    pub(crate) fn add_manifest(
        &mut self,
        id: &ImageId,
        manifest: Manifest,
        documents: &[&[u8]],
    ) -> Result<(), CreateError> {
        for bytes in documents {
            self.inner.blobs.store(&Digest::of(bytes), *bytes, self.inner.limits.document_bytes)?;
        }
        self.rewrite_record(id, |record| {
            record.manifests.retain(|other| other.digest != manifest.digest);
            record.manifests.insert(0, manifest);
            record.manifests.truncate(MANIFESTS_MAX);
        })?;
        Ok(())
    }

    /// Makes an image of a configuration whose layers are kept. An image that is there already stays as it is.
    pub(crate) fn add_image(&mut self, bytes: &[u8]) -> Result<ImageId, CreateError> {
        let config = state::read_config(bytes)?;
        let id = ImageId(Digest::of(bytes));
        if !self.state.images.contains_key(&id) {
            self.inner.blobs.store(&id.0, bytes, self.inner.limits.document_bytes)?;
            self.write_record(id, Arc::new(config), Record::new())?;
        }
        Ok(id)
    }

    fn write_record(
        &mut self,
        id: ImageId,
        config: Arc<crate::config::ImageConfig>,
        record: Record,
    ) -> Result<(), StateError> {
        durable::write_json(&state::record_path(&self.inner.root, &id), &record, &self.tmp())?;
        self.state.images.insert(id, Known { config, record });
        Ok(())
    }

    fn rewrite_record(&mut self, id: &ImageId, change: impl FnOnce(&mut Record)) -> Result<(), StateError> {
        let Some(known) = self.state.images.get(id) else { return Ok(()) };
        let mut record = known.record.clone();
        change(&mut record);
        self.write_record(*id, Arc::clone(&known.config), record)
    }

    pub(crate) fn set_parent(&mut self, id: &ImageId, parent: ImageId) -> Result<(), StateError> {
        self.rewrite_record(id, |record| record.parent = Some(parent))
    }

    /// Lets a name lead to an image; returns the image that it led to before, if it was another. A name that leads to it
    /// among others goes on leading to them all.
    pub(crate) fn name(&mut self, name: &Reference, id: ImageId) -> Result<Option<ImageId>, StateError> {
        match self.all_led_to(name) {
            images if images.contains(&id) => self.name_all(name, images.to_vec()),
            _ => self.name_all(name, vec![id]),
        }
    }

    /// Lets a name lead to an image, and to the same for other platforms that it led to before. The one that runs best here
    /// comes first, else the one that came last.
    pub(crate) fn name_platform(&mut self, name: &Reference, id: ImageId) -> Result<(), StateError> {
        let platform = |id: &ImageId| self.state.images.get(id).map(|known| known.config.platform());
        let own = platform(&id);
        let others = self.all_led_to(name).iter().copied();
        let same =
            |other: &ImageId| platform(other).zip(own.as_ref()).is_some_and(|(other, own)| own.is(&other));
        let mut images: Vec<_> = others.filter(|other| *other != id && !same(other)).collect();
        let rank = |id: &ImageId| platform(id).and_then(|platform| Platform::here().rank(&platform));
        let rank_of = |id: &ImageId| rank(id).unwrap_or(usize::MAX);
        let is_better = |first: &ImageId| rank(first).is_some() && rank_of(first) <= rank_of(&id);
        let at = usize::from(images.first().is_some_and(is_better));
        images.insert(at, id);
        self.name_all(name, images).map(drop)
    }

    /// Lets a name lead to these images, the first of them if nobody says for which platform; returns the image that it
    /// led to before, if it is none of them.
    pub(crate) fn name_all(
        &mut self,
        name: &Reference,
        images: Vec<ImageId>,
    ) -> Result<Option<ImageId>, StateError> {
        let mut names = self.state.names.clone();
        let first = images.first().copied();
        let before = names.set(name, images);
        self.write_names(names)?;
        if let Some(first) = first {
            self.rewrite_record(&first, |record| record.last_tagged = Some(OffsetDateTime::now_utc()))?;
        }
        Ok(before)
    }

    fn write_names(&mut self, names: Names) -> Result<(), StateError> {
        names.write(&state::names_path(&self.inner.root), &self.tmp())?;
        self.state.names = names;
        Ok(())
    }

    /// Lets no name lead to an image any more; says which names led to no other.
    pub(super) fn leave_names(&mut self, id: &ImageId) -> Result<Vec<Reference>, StateError> {
        let mut names = self.state.names.clone();
        let gone = names.retain(|image| image != id);
        self.write_names(names)?;
        Ok(gone)
    }

    pub(super) fn remove_names(&mut self, gone: &[Reference]) -> Result<(), StateError> {
        let mut names = self.state.names.clone();
        for name in gone {
            names.remove(name);
        }
        self.write_names(names)
    }

    /// Forgets an image that has no names any more. Its layers go with the next [`sweep`](Self::sweep).
    pub(super) fn remove_image(&mut self, id: &ImageId) -> Result<(), StateError> {
        if let Some((container, _)) = self.state.holds.iter().find(|(_, held)| held.image == *id) {
            durable::sync_parent(&holds::path(&self.inner.root, container))?;
        }
        durable::remove(&state::record_path(&self.inner.root, id))?;
        let mut gone = vec![id.0];
        gone.extend(self.state.images.remove(id).iter().flat_map(|known| known.record.documents()));
        let orphans: Vec<_> =
            self.state.images.iter().filter(|(_, known)| known.record.parent == Some(*id)).collect();
        let orphans: Vec<ImageId> = orphans.into_iter().map(|(id, _)| *id).collect();
        for orphan in orphans {
            self.rewrite_record(&orphan, |record| record.parent = None)?;
        }
        let needed = self.state.needed_documents();
        for document in gone.into_iter().filter(|document| !needed.contains(document)) {
            self.inner.blobs.remove(&document)?;
        }
        Ok(())
    }

    pub(super) fn add_hold(
        &mut self,
        container: &str,
        id: &ImageId,
        layers: Vec<DiffId>,
    ) -> Result<(), StateError> {
        let path = holds::path(&self.inner.root, container);
        self.remove_hold(container)?;
        fs::hard_link(self.inner.blobs.path(&id.0), &path).at("make", &path)?;
        self.state.holds.insert(container.to_owned(), Hold { image: *id, layers });
        Ok(())
    }

    pub(super) fn remove_hold(&mut self, container: &str) -> Result<(), StateError> {
        let path = holds::path(&self.inner.root, container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::new("remove", &path, error));
            }
            _ => {
                self.state.holds.remove(container);
                self.state.unknown_holds.remove(container);
            }
        }
        Ok(())
    }

    /// Removes documents that no image has, which a crash leaves, or a manifest that newer ones have replaced.
    pub(super) fn sweep_blobs(&mut self) -> Result<(), StateError> {
        let needed = self.state.needed_documents();
        for blob in self.inner.blobs.list()? {
            if !needed.contains(&blob) {
                self.inner.blobs.remove(&blob)?;
            }
        }
        Ok(())
    }

    /// Removes the layers that nothing needs. Their files go when what is returned is dropped, best after the change.
    pub(crate) fn sweep(mut self) -> Result<Vec<Discarded>, StateError> {
        let mut gone = Vec::new();
        let needed = self.state.needed_layers();
        let unneeded = |layer: &&_| !needed.contains(layer) && !self.inner.leases.has(layer);
        let layers: Vec<_> = self.state.layers.keys().filter(unneeded).copied().collect();
        for layer in layers {
            gone.push(self.inner.layers.discard(&layer)?);
            self.state.layers.remove(&layer);
        }
        Ok(gone)
    }

    fn tmp(&self) -> std::path::PathBuf {
        self.inner.root.join("tmp")
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let state = Arc::new(std::mem::take(&mut self.state));
        *self.inner.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
