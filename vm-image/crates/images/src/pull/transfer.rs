//! One layer on its way: downloaded and unpacked at the same time, once for all who want it.
//!
//! ```text
//! Waiting -> Downloading -> Verifying -> Downloaded -> Extracting -> Done
//! ```
//!
//! A connection that breaks is made again from the byte that came last, with a pause that grows, until no byte has come
//! for some attempts ([`Patience`]). A layer that is refused is not downloaded any further. The digest is taken while the
//! bytes come; the layer gets its name only if it is right. Whoever wants the layer holds the [`Transfer`]; when the last
//! lets go, it ends and leaves nothing.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::PullError;
use crate::digest::{DiffId, Digest, Hasher};
use crate::error::{Classified, ErrorKind};
use crate::growing::{Growing, Reader};
use crate::layer::{LayerError, Space, Staged};
use crate::registry::{Patience, Pause, Registry, RegistryError};
use crate::store::Store;

/// How many layers are unpacked at once: what bounds the memory, also when they come faster than they are unpacked.
const UNPACKED_AT_ONCE: usize = 3;
/// How much more of a layer that was refused is downloaded, to know whether its bytes are those that were asked for.
const VERIFIED_AT_MOST: u64 = 16 << 20;

/// All layers on their way.
#[derive(Debug)]
pub(super) struct Transfers {
    under_way: Mutex<HashMap<(Digest, DiffId), Weak<Transfer>>>,
    slots: Arc<Semaphore>,
    unpackers: Arc<Semaphore>,
}

/// A layer on its way, for one who wants it.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) state: Arc<TransferState>,
    outcome: watch::Receiver<Option<Result<(), Arc<PullError>>>>,
    cancel: CancellationToken,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct TransferState {
    step: AtomicU8,
    pub(super) total: u64,
    downloaded: AtomicU64,
    unpacked: Arc<AtomicU64>,
    /// The seconds until the next attempt.
    pause: AtomicU64,
}

/// What is being done; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Waiting,
    Downloading { current: u64 },
    Retrying { seconds: u64 },
    Verifying,
    Downloaded,
    Extracting { current: u64 },
    Done,
}

impl TransferState {
    fn set(&self, step: u8) {
        self.step.store(step, Ordering::Release);
    }

    pub(super) fn step(&self) -> Step {
        let seconds = self.pause.load(Ordering::Relaxed);
        match self.step.load(Ordering::Acquire) {
            0 => Step::Waiting,
            1 if seconds > 0 => Step::Retrying { seconds },
            1 => Step::Downloading { current: self.downloaded.load(Ordering::Relaxed) },
            2 => Step::Verifying,
            3 => Step::Extracting { current: self.unpacked.load(Ordering::Relaxed) },
            _ => Step::Done,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Transfer {
    /// Returns when the layer is kept, or cannot be.
    pub(super) async fn done(&self) -> Result<(), PullError> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        let ended = ended.map_err(|_| PullError::Engine("a download ended without a result".to_owned()))?;
        match &*ended {
            Some(Err(error)) => Err(PullError::Shared(Arc::clone(error))),
            _ => Ok(()),
        }
    }
}

/// A layer to be fetched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Whose blob it is, with the registry.
    pub(super) repository: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: DiffId,
}

impl Transfers {
    /// None yet; so many will be downloaded at once.
    pub(super) fn new(downloads: NonZeroU16) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (slots, unpackers) = (semaphore(downloads.get().into()), semaphore(UNPACKED_AT_ONCE));
        Self { under_way: Mutex::default(), slots, unpackers }
    }

    /// The transfer of a layer: the one under way, or a new one. Its layer must be leased.
    pub(super) fn get(&self, store: &Store, registry: &Arc<Registry>, wanted: Wanted) -> Arc<Transfer> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, transfer| transfer.strong_count() > 0);
        let key = (wanted.digest, wanted.diff_id);
        if let Some(transfer) = under_way.get(&key).and_then(Weak::upgrade)
            && !matches!(*transfer.outcome.borrow(), Some(Err(_)))
        {
            return transfer;
        }
        let state = Arc::new(TransferState { total: wanted.size, ..TransferState::default() });
        let (result, outcome) = watch::channel(None);
        let cancel = CancellationToken::new();
        let work = Work {
            store: store.clone(),
            registry: Arc::clone(registry),
            wanted,
            state: Arc::clone(&state),
            cancel: cancel.clone(),
            slots: Arc::clone(&self.slots),
            unpackers: Arc::clone(&self.unpackers),
        };
        tokio::spawn(async move {
            let done = work.run().await.map_err(Arc::new);
            // Nobody waits any more: the layer is kept or gone all the same.
            let _ = result.send(Some(done));
        });
        let transfer = Arc::new(Transfer { state, outcome, cancel });
        under_way.insert(key, Arc::downgrade(&transfer));
        transfer
    }
}

struct Work {
    store: Store,
    registry: Arc<Registry>,
    wanted: Wanted,
    state: Arc<TransferState>,
    cancel: CancellationToken,
    slots: Arc<Semaphore>,
    unpackers: Arc<Semaphore>,
}

impl Work {
    async fn run(self) -> Result<(), PullError> {
        let work = Arc::new(self);
        let staged = work.stage().await?;
        if staged.diff_id != work.wanted.diff_id {
            return Err(PullError::DiffId { expected: work.wanted.diff_id, found: staged.diff_id });
        }
        if work.cancel.is_cancelled() {
            return Err(PullError::Cancelled);
        }
        let publishing = Arc::clone(&work);
        let published = spawn_blocking(move || publishing.store.publish_layer(staged));
        published.await.map_err(|error| PullError::Engine(error.to_string()))??;
        work.state.set(4);
        Ok(())
    }

    /// Downloads and unpacks, both at the same time; ends with the first that fails.
    async fn stage(self: &Arc<Self>) -> Result<Staged, PullError> {
        let slot = tokio::select! {
            () = self.cancel.cancelled() => return Err(PullError::Cancelled),
            slot = Arc::clone(&self.slots).acquire_owned() => slot,
        };
        self.state.set(1);
        let (growing, path) = Growing::new(&self.store.tmp())?;
        let mut unpacking = self.unpack(growing.reader(Arc::clone(&self.state.unpacked)), path);
        let stop = self.cancel.child_token();
        // On a thread of its own, since it hashes and writes.
        let (work, into, stopped) = (Arc::clone(self), Arc::clone(&growing), stop.clone());
        let handle = tokio::runtime::Handle::current();
        let mut downloading = spawn_blocking(move || handle.block_on(work.download(&into, &stopped)));
        tokio::select! {
            // What has come whole may be unpacked as well when this is looked at.
            biased;
            downloaded = &mut downloading => match joined(downloaded) {
                Ok(()) => {
                    drop(slot);
                    self.state.set(3);
                    joined(unpacking.await)
                }
                Err(error) => {
                    growing.break_off();
                    // It says no more than that nothing more came.
                    drop(unpacking.await);
                    Err(error)
                }
            },
            unpacked = &mut unpacking => match joined(unpacked) {
                Ok(staged) => joined(downloading.await).map(|()| staged),
                Err(error) => Err(self.refused(error, &growing, downloading, &stop).await),
            },
        }
    }

    /// Unpacks what comes, when it is its turn.
    fn unpack(&self, from: Reader, path: tempfile::TempPath) -> JoinHandle<Result<Staged, PullError>> {
        let (store, wanted, unpackers) =
            (self.store.clone(), self.wanted.clone(), Arc::clone(&self.unpackers));
        tokio::spawn(async move {
            // Nobody closes it.
            let _turn = unpackers.acquire_owned().await;
            let unpack = move || {
                let blob = (wanted.digest, wanted.repository.as_str());
                store.layer_store().stage_file(from, path, blob, store.limits())
            };
            joined(spawn_blocking(move || unpack().map_err(PullError::from)).await)
        })
    }

    /// Ends the download of a layer that could not be unpacked; why not. Bytes that are not those that were asked for
    /// explain whatever is wrong with them, so a little that is left is downloaded to know.
    async fn refused(
        &self,
        error: PullError,
        into: &Growing,
        download: JoinHandle<Result<(), PullError>>,
        stop: &CancellationToken,
    ) -> PullError {
        let is_of_bytes = matches!(&error, PullError::Layer(refused) if refused.kind() == ErrorKind::Invalid);
        let left = self.wanted.size.checked_sub(into.length()).filter(|_| self.wanted.size > 0);
        if is_of_bytes && left.is_some_and(|left| left <= VERIFIED_AT_MOST) {
            return joined(download.await).err().unwrap_or(error);
        }
        stop.cancel();
        // It says no more than that it was stopped.
        drop(download.await);
        error
    }

    async fn download(&self, into: &Growing, stop: &CancellationToken) -> Result<(), PullError> {
        tokio::select! {
            () = stop.cancelled() => Err(PullError::Cancelled),
            done = self.fetch(into) => done,
        }
    }

    /// Fetches all bytes, with as many attempts as it takes, and verifies them.
    async fn fetch(&self, into: &Growing) -> Result<(), PullError> {
        let keep_free = self.store.limits().keep_free;
        let tmp = self.store.tmp();
        let mut space = Space::of(&tmp, keep_free).map_err(|error| self.cannot_write(error))?;
        let mut hasher = Hasher::new();
        let mut patience = Patience::default();
        loop {
            let before = into.length();
            match self.attempt(into, &mut hasher, &mut space).await {
                Ok(()) => break,
                // It is asked for the rest at once.
                Err(PullError::Registry(error)) if error.is_passing() && into.length() > before => {
                    tracing::debug!(digest = %self.wanted.digest, %error, "download broke off");
                    patience = Patience::default();
                }
                Err(PullError::Registry(error)) => match patience.after(&error) {
                    Some(pause) => self.pause(pause).await,
                    None => return Err(error.into()),
                },
                Err(error) => return Err(error),
            }
        }
        self.state.set(2);
        match hasher.finish() == self.wanted.digest {
            true => {
                into.finish();
                Ok(())
            }
            false => Err(PullError::Verification(self.wanted.digest)),
        }
    }

    async fn attempt(&self, into: &Growing, hasher: &mut Hasher, space: &mut Space) -> Result<(), PullError> {
        let from = into.length();
        if from > 0 && from == self.wanted.size {
            return Ok(());
        }
        let mut stream = self.registry.blob(&self.wanted.digest, from).await?;
        while let Some(chunk) = stream.next().await? {
            let skip = usize::try_from(stream.skip).unwrap_or(usize::MAX).min(chunk.len());
            stream.skip -= skip as u64;
            let chunk = &chunk[skip..];
            if self.wanted.size > 0 && into.length() + chunk.len() as u64 > self.wanted.size {
                return Err(PullError::Verification(self.wanted.digest));
            }
            if !space.take(chunk.len() as u64).map_err(|error| self.cannot_write(error))? {
                return Err(LayerError::NoSpace.into());
            }
            hasher.update(chunk);
            into.append(chunk).map_err(|error| self.cannot_write(error))?;
            self.state.downloaded.store(into.length(), Ordering::Relaxed);
        }
        match into.length() {
            // A stream that ends too early without saying so.
            length if length < self.wanted.size => Err(PullError::Registry(RegistryError::Unreachable {
                method: "GET".to_owned(),
                url: self.registry.base().to_owned(),
                why: "unexpected EOF".to_owned(),
            })),
            _ => Ok(()),
        }
    }

    fn cannot_write(&self, error: std::io::Error) -> PullError {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => LayerError::NoSpace.into(),
            _ => crate::durable::StateError::new("write a layer in", &self.store.tmp(), error).into(),
        }
    }

    /// Waits before the next attempt, and tells so.
    async fn pause(&self, pause: Pause) {
        self.state.pause.store(pause.seconds, Ordering::Relaxed);
        pause.wait().await;
        self.state.pause.store(0, Ordering::Relaxed);
    }
}

/// What a task ended in.
fn joined<T>(ended: Result<Result<T, PullError>, JoinError>) -> Result<T, PullError> {
    ended.unwrap_or_else(|error| Err(PullError::Engine(error.to_string())))
}
