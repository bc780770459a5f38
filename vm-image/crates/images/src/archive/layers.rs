//! The layers of one image of an archive, unpacked side by side: none needs another to be there.

use std::io::{self, Read};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::spool::Section;
use super::{Layer, LoadError, LoadEvent};
use crate::digest::{DiffId, Digest, Hasher};
use crate::layer::{LayerError, Staged};
use crate::store::Store;
use crate::tar::TarError;

/// How many layers are unpacked at once, each by two threads.
const AT_ONCE: usize = 3;

/// A layer that is not there yet.
pub(super) struct Wanted {
    /// Its place in the stack, from zero.
    pub(super) index: usize,
    pub(super) layer: Layer,
    pub(super) diff_id: DiffId,
}

/// Unpacks layers. If one is refused none is kept, and the error is that of the lowest.
pub(super) fn stage(
    store: &Store,
    wanted: Vec<Wanted>,
    on_event: &mut dyn FnMut(LoadEvent),
) -> Result<Vec<Staged>, LoadError> {
    let workers = wanted.len().min(AT_ONCE);
    let queue = Mutex::new(wanted.into_iter());
    let (told, events) = mpsc::channel();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = |told: Sender<LoadEvent>| {
        let mut done = Vec::new();
        while let Some(wanted) = next() {
            let index = wanted.index;
            let staged = one(store, wanted, &told);
            if staged.is_err() {
                // Nobody need begin another.
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
            }
            done.push((index, staged));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let told = told.clone();
                scope.spawn(|| work(told))
            })
            .collect();
        drop(told);
        events.into_iter().for_each(on_event);
        let ended = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(ended).collect::<Vec<(usize, Result<Staged, LoadError>)>>()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, staged)| staged).collect()
}

fn one(store: &Store, wanted: Wanted, told: &Sender<LoadEvent>) -> Result<Staged, LoadError> {
    let Wanted { index, layer, diff_id: expected } = wanted;
    let refused = |error| match error {
        LayerError::NoSpace => LoadError::NoSpace,
        error => LoadError::Layer(expected, error),
    };
    let digest = layer.digest;
    let mut source = Watched::new(layer, expected, told);
    let staged = store.layer_store().stage(&mut source, store.limits()).map_err(refused)?;
    let found = source.finish().map_err(|error| refused(LayerError::Tar(TarError::from_read(error))))?;
    if let (Some(digest), Some(found)) = (digest, found)
        && digest != found
    {
        return Err(LoadError::Digest { name: format!("blobs/sha256/{}", digest.hex()), found });
    }
    match staged.diff_id == expected {
        true => Ok(staged),
        false => Err(LoadError::DiffId { index, expected, found: staged.diff_id }),
    }
}

/// Tells how far a layer has been read, and takes the digest of its bytes.
struct Watched<'a> {
    section: Section,
    /// Only a blob that has a digest to compare needs one.
    hasher: Option<Hasher>,
    id: String,
    total: u64,
    step: u64,
    said: u64,
    told: &'a Sender<LoadEvent>,
}

impl<'a> Watched<'a> {
    fn new(layer: Layer, id: DiffId, told: &'a Sender<LoadEvent>) -> Self {
        let total = layer.section.len();
        let hasher = layer.digest.map(|_| Hasher::new());
        let step = (total / 100).max(512 * 1024);
        Self { section: layer.section, hasher, id: id.0.short(), total, step, said: 0, told }
    }

    fn tell(&mut self) {
        self.said = self.total - self.section.len();
        let event = LoadEvent::Layer { id: self.id.clone(), current: self.said, total: self.total };
        // Whoever loads listens to the end.
        let _ = self.told.send(event);
    }

    /// Reads what the decompressor left, and gives the digest of all.
    fn finish(mut self) -> io::Result<Option<Digest>> {
        io::copy(&mut self, &mut io::sink())?;
        self.tell();
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.section.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        if self.total - self.section.len() >= self.said + self.step {
            self.tell();
        }
        Ok(read)
    }
}
