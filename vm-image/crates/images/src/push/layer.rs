//! One layer on its way to a registry: not at all if the repository has it, from another repository of the registry if
//! one has it, else uploaded.
//!
//! A blob that is kept as gzip goes as it is. Another is compressed while it goes, into a file that the upload reads, so
//! that an upload that breaks off goes on where the registry says that it is.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream;

use super::{PushError, gzip};
use crate::digest::{DiffId, Hasher};
use crate::growing::{Growing, Writer};
use crate::layer::{Compression, HashedWriter, LayerBlob, LayerRecord, decompressed};
use crate::progress::{self, Detail, Listener};
use crate::reference::Reference;
use crate::registry::{Mounted, Patience, Registry, Upload, patiently};
use crate::store::Store;

/// How often a client is told how far an upload is.
const EVERY: Duration = Duration::from_millis(100);
/// How many other repositories are asked for a layer.
const MOUNTS_MAX: usize = 3;

/// A layer to be pushed.
pub(super) struct LayerPush<'a> {
    store: &'a Store,
    registry: &'a Registry,
    name: &'a Reference,
    diff_id: DiffId,
    record: Arc<LayerRecord>,
    /// The blob that goes as it is kept.
    kept: Option<LayerBlob>,
    to: &'a Listener,
}

/// What the bytes of an upload are in the end.
type Outcome = tokio::task::JoinHandle<io::Result<LayerBlob>>;

/// What is being uploaded.
struct Source {
    bytes: Arc<Growing>,
    /// How far it is, and of how much.
    current: Arc<AtomicU64>,
    total: u64,
    /// What is compressed for the upload goes with it.
    _file: Option<tempfile::TempPath>,
}

impl<'a> LayerPush<'a> {
    pub(super) fn new(
        store: &'a Store,
        registry: &'a Registry,
        name: &'a Reference,
        diff_id: DiffId,
        as_it_came: bool,
        to: &'a Listener,
    ) -> Result<Self, PushError> {
        let record = store.layer_record(&diff_id).ok_or(PushError::Incomplete(diff_id))?;
        let blob = record.blob.ok_or(PushError::Incomplete(diff_id))?;
        let kept = (as_it_came || blob.compression == Compression::Gzip).then_some(blob);
        Ok(Self { store, registry, name, diff_id, record, kept, to })
    }

    async fn tell(&self, status: &str, detail: Detail) {
        progress::step(self.to, &self.diff_id.0.short(), status, detail).await;
    }

    /// Returns when the repository has the layer.
    pub(super) async fn run(self) -> Result<LayerBlob, PushError> {
        if let Some(blob) = self.there_already().await? {
            self.tell("Layer already exists", Detail::Step).await;
            return Ok(blob);
        }
        let upload = match self.taken_from_elsewhere().await? {
            Ok((blob, from)) => {
                self.tell(&format!("Mounted from {from}"), Detail::Step).await;
                return Ok(blob);
            }
            Err(Some(upload)) => upload,
            Err(None) => self.begin().await?,
        };
        let blob = match self.upload(upload).await {
            // Lost, as by a registry that was started anew: all of it goes again, once.
            Err(PushError::Registry(error)) if error.is_not_found() => {
                self.upload(self.begin().await?).await?
            }
            done => done?,
        };
        self.tell("Pushed", Detail::Step).await;
        Ok(blob)
    }

    async fn begin(&self) -> Result<Upload, PushError> {
        Ok(patiently(|| self.registry.begin_upload()).await?)
    }

    /// The blobs that may stand for this layer: the kept one, or what was made of it before.
    fn candidates(&self) -> Vec<LayerBlob> {
        if let Some(kept) = self.kept {
            return vec![kept];
        }
        let mut blobs: Vec<LayerBlob> = Vec::new();
        for remote in self.record.remote.iter().filter(|remote| remote.blob.compression == Compression::Gzip)
        {
            if !blobs.contains(&remote.blob) {
                blobs.push(remote.blob);
            }
        }
        blobs.truncate(MOUNTS_MAX);
        blobs
    }

    async fn there_already(&self) -> Result<Option<LayerBlob>, PushError> {
        for blob in self.candidates() {
            if patiently(|| self.registry.blob_size(&blob.digest)).await?.is_some() {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// The blob with the repository that it was taken from; or an upload that the registry began instead.
    async fn taken_from_elsewhere(&self) -> Result<Result<(LayerBlob, String), Option<Upload>>, PushError> {
        let candidates = self.candidates();
        let registry = format!("{}/", self.name.domain());
        let known = self.record.remote.iter().filter(|remote| candidates.contains(&remote.blob));
        let paths =
            known.filter_map(|remote| Some((remote.blob, remote.repository.strip_prefix(&registry)?)));
        let mut begun = None;
        for (blob, path) in paths.filter(|(_, path)| *path != self.name.path()).take(MOUNTS_MAX) {
            match patiently(|| self.registry.mount(&blob.digest, path)).await {
                Ok(Mounted::Yes) => return Ok(Ok((blob, path.to_owned()))),
                Ok(Mounted::No(upload)) => begun = Some(upload),
                // Where one may not read, nothing can be taken from.
                Err(error) if !error.is_passing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Err(begun))
    }

    async fn upload(&self, upload: Upload) -> Result<LayerBlob, PushError> {
        let (source, outcome) = self.source()?;
        let sending = self.send(&source, upload);
        tokio::pin!(sending);
        let mut ticks = tokio::time::interval(EVERY);
        let mut told = 0;
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                _ = ticks.tick() => {
                    let current = source.current.load(Ordering::Relaxed);
                    if current > told {
                        told = current;
                        self.tell("Pushing", Detail::Bytes { current, total: source.total }).await;
                    }
                }
            }
        };
        let upload = match sent {
            Err(error) if !source.bytes.is_broken() => return Err(error),
            sent => sent,
        };
        let blob = outcome.await.map_err(|error| PushError::Engine(error.to_string()))?;
        let blob = match blob {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(self.damaged().await),
            blob => blob.map_err(|error| PushError::Read(self.diff_id, error))?,
        };
        let upload = upload?;
        self.tell("Pushing", Detail::Bytes { current: source.total, total: source.total }).await;
        self.end(&upload, &blob).await?;
        Ok(blob)
    }

    /// Ends an upload. One that is not known any more may have ended before: then the answer to that was lost.
    async fn end(&self, upload: &Upload, blob: &LayerBlob) -> Result<(), PushError> {
        match patiently(|| self.registry.end_upload(upload, &blob.digest)).await {
            Err(error) if error.is_not_found() => {
                let there = patiently(|| self.registry.blob_size(&blob.digest)).await?;
                there.map(drop).ok_or(PushError::Registry(error))
            }
            ended => Ok(ended?),
        }
    }

    /// Tells, and forgets the blob, so that the next pull or load brings it anew instead of finding the layer there.
    async fn damaged(&self) -> PushError {
        let (store, diff_id) = (self.store.clone(), self.diff_id);
        let told = tokio::task::spawn_blocking(move || store.layer_is_damaged(&diff_id));
        match told.await {
            Ok(()) => PushError::Damaged(diff_id),
            Err(error) => PushError::Engine(error.to_string()),
        }
    }

    fn source(&self) -> Result<(Source, Outcome), PushError> {
        let file = self.store.layer_store().open_blob(&self.diff_id)?;
        let unreadable = |error| PushError::Read(self.diff_id, error);
        if let Some(blob) = self.kept {
            let read = file.try_clone().map_err(unreadable)?;
            let bytes = Growing::whole(file).map_err(unreadable)?;
            let blob_of = tokio::task::spawn_blocking(move || verified(&read, blob));
            let source = Source { bytes, current: Arc::default(), total: blob.size, _file: None };
            return Ok((source, blob_of));
        }
        let (bytes, path) = Growing::new(&self.store.tmp())?;
        let (current, into, diff_id) = (Arc::<AtomicU64>::default(), Arc::clone(&bytes), self.diff_id);
        let counted = Arc::clone(&current);
        let blob = tokio::task::spawn_blocking(move || {
            let packed = pack(file, &into, &counted, diff_id);
            match packed {
                Ok(_) => into.finish(),
                Err(_) => into.break_off(),
            }
            packed
        });
        let total = self.record.tar_bytes.unwrap_or_default();
        Ok((Source { bytes, current, total, _file: Some(path) }, blob))
    }

    /// Sends all bytes, with as many attempts as it takes.
    async fn send(&self, source: &Source, mut upload: Upload) -> Result<Upload, PushError> {
        let (mut arrived, mut patience) = (0, Patience::default());
        loop {
            let body = || body(source, arrived, self.kept.is_some());
            let error = match self.registry.send_bytes(&upload, body).await {
                Ok(next) => return Ok(next),
                Err(error) => error,
            };
            let pause = patience.after(&error).filter(|_| !source.bytes.is_broken());
            let Some(pause) = pause else { return Err(error.into()) };
            tracing::debug!(layer = %self.diff_id, %error, "upload broke off");
            pause.wait().await;
            let before = arrived;
            (arrived, upload) = self.state(&upload).await?;
            if arrived > before {
                patience = Patience::default();
            }
        }
    }

    /// Where an upload that broke off is; a new one if the registry has lost it.
    async fn state(&self, upload: &Upload) -> Result<(u64, Upload), PushError> {
        match patiently(|| self.registry.upload_state(upload)).await {
            Ok(state) => Ok(state),
            Err(error) if error.is_not_found() || error.is_passing() => Ok((0, self.begin().await?)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes of an upload from `from` on. What is sent as it is kept counts here, what is compressed where that is done.
fn body(source: &Source, from: u64, counts: bool) -> reqwest::Body {
    let state = (Arc::clone(&source.bytes), Arc::clone(&source.current), from);
    reqwest::Body::wrap_stream(stream::try_unfold(state, move |(bytes, current, at)| async move {
        let Some(piece) = bytes.piece(at).await? else { return Ok::<_, io::Error>(None) };
        let at = at + piece.len() as u64;
        if counts {
            current.store(at, Ordering::Relaxed);
        }
        Ok(Some((piece, (bytes, current, at))))
    }))
}

/// Sees that a kept blob is what it was, beside its upload, which has a place of its own in the file: a disk may rot.
fn verified(mut kept: &File, blob: LayerBlob) -> io::Result<LayerBlob> {
    let mut hashed = HashedWriter { to: io::sink(), hasher: Hasher::new(), size: 0 };
    io::copy(&mut kept, &mut hashed)?;
    match hashed.hasher.finish() == blob.digest {
        true => Ok(blob),
        false => Err(damage()),
    }
}

fn damage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what it was")
}

/// Makes a gzip blob of a kept one, and sees that the tar in it is what it was.
fn pack(kept: File, into: &Arc<Growing>, counted: &AtomicU64, diff_id: DiffId) -> io::Result<LayerBlob> {
    let mut tar = Counted { source: decompressed(kept)?, hasher: Hasher::new(), bytes: 0, counted };
    let mut out = HashedWriter { to: Writer(Arc::clone(into)), hasher: Hasher::new(), size: 0 };
    gzip::compress(&mut tar, &mut out, gzip::threads())?;
    if tar.hasher.finish() != diff_id.0 {
        return Err(damage());
    }
    Ok(LayerBlob { digest: out.hasher.finish(), size: out.size, compression: Compression::Gzip })
}

/// Takes the digest of what is read through it, and tells how much that was.
struct Counted<'a, R> {
    source: R,
    hasher: Hasher,
    bytes: u64,
    counted: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        self.counted.store(self.bytes, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_kept_blob_that_rots_is_noticed() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"blob").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let blob = |of: &[u8]| LayerBlob { digest: Digest::of(of), size: 4, compression: Compression::Gzip };
        assert_eq!(verified(&file.try_clone().unwrap(), blob(b"blob")).unwrap(), blob(b"blob"));
        io::Seek::rewind(&mut file).unwrap();
        let noticed = verified(&file, blob(b"bleb"));
        assert_eq!(noticed.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
    }
}
