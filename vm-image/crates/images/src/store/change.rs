//! One change of the store: first on disk, then in memory.

use std::fs;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::holds::{self, Hold};
use super::state::{self, CreateError, Known, Record, State};
use super::{FindError, Inner};
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable::{self, At, StateError};
use crate::image::Image;
use crate::layer::{Discarded, Staged};
use crate::reference::Reference;

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

    pub(super) fn find(&self, name: &str) -> Result<ImageId, FindError> {
        self.state.find(name)
    }

    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        self.state.image(id)
    }

    /// Keeps unpacked layers.
    pub(crate) fn add_layers(&mut self, staged: Vec<Staged>) -> Result<(), StateError> {
        let sizes: Vec<_> = staged.iter().map(|layer| (layer.diff_id, layer.size)).collect();
        self.inner.layers.publish(staged)?;
        for (layer, size) in sizes {
            self.state.layers.entry(layer).or_insert(size);
        }
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

    /// Lets a name lead to an image; returns the image that it led to before, if it was another.
    pub(crate) fn name(&mut self, name: &Reference, id: ImageId) -> Result<Option<ImageId>, StateError> {
        let mut names = self.state.names.clone();
        let before = names.set(name, id);
        names.write(&state::names_path(&self.inner.root), &self.tmp())?;
        self.state.names = names;
        self.rewrite_record(&id, |record| record.last_tagged = Some(OffsetDateTime::now_utc()))?;
        Ok(before)
    }

    pub(super) fn remove_names(&mut self, gone: &[Reference]) -> Result<(), StateError> {
        let mut names = self.state.names.clone();
        for name in gone {
            names.remove(name);
        }
        names.write(&state::names_path(&self.inner.root), &self.tmp())?;
        self.state.names = names;
        Ok(())
    }

    /// Forgets an image that has no names any more. Its layers go with the next [`sweep`](Self::sweep).
    pub(super) fn remove_image(&mut self, id: &ImageId) -> Result<(), StateError> {
        if let Some((container, _)) = self.state.holds.iter().find(|(_, held)| held.image == *id) {
            durable::sync_parent(&holds::path(&self.inner.root, container))?;
        }
        durable::remove(&state::record_path(&self.inner.root, id))?;
        self.state.images.remove(id);
        let orphans: Vec<_> =
            self.state.images.iter().filter(|(_, known)| known.record.parent == Some(*id)).collect();
        let orphans: Vec<ImageId> = orphans.into_iter().map(|(id, _)| *id).collect();
        for orphan in orphans {
            self.rewrite_record(&orphan, |record| record.parent = None)?;
        }
        self.inner.blobs.remove(&id.0)
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
            _ => drop(self.state.holds.remove(container)),
        }
        Ok(())
    }

    /// Removes configurations that no image has, which only a crash leaves.
    pub(super) fn sweep_blobs(&mut self) -> Result<(), StateError> {
        for blob in self.inner.blobs.list()? {
            if !self.state.images.contains_key(&ImageId(blob)) {
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
