//! A file that one writes while another reads it from its beginning: what is downloaded is unpacked meanwhile, what is
//! compressed is uploaded meanwhile. Whoever reads can do so again, from any place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::durable::{At, StateError};

/// How much is read at once for an upload.
const PIECE: usize = 128 * 1024;

/// The file.
#[derive(Debug)]
pub(crate) struct Growing {
    file: File,
    state: Mutex<State>,
    grown: Condvar,
    grown_async: tokio::sync::Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    length: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

impl Growing {
    /// An empty file in `tmp`, with its name there.
    pub(crate) fn new(tmp: &Path) -> Result<(Arc<Self>, tempfile::TempPath), StateError> {
        let file = tempfile::Builder::new().prefix("blob-").tempfile_in(tmp).at("make a file in", tmp)?;
        let (file, path) = file.into_parts();
        Ok((Arc::new(Self::of(file, State::default())), path))
    }

    /// A file that is whole already.
    pub(crate) fn whole(file: File) -> io::Result<Arc<Self>> {
        let state = State { length: file.metadata()?.len(), end: Some(End::Whole) };
        Ok(Arc::new(Self::of(file, state)))
    }

    fn of(file: File, state: State) -> Self {
        Self {
            file,
            state: Mutex::new(state),
            grown: Condvar::new(),
            grown_async: tokio::sync::Notify::new(),
        }
    }

    /// Adds bytes at the end. Only one may.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let at = self.length();
        self.file.write_all_at(bytes, at)?;
        self.change(|state| state.length = at + bytes.len() as u64);
        Ok(())
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) {
        self.change(|state| state.end = Some(End::Whole));
    }

    /// Says that what would be left never comes; readers fail.
    pub(crate) fn break_off(&self) {
        self.change(|state| state.end = state.end.or(Some(End::Broken)));
    }

    /// Whether what would be left never comes.
    pub(crate) fn is_broken(&self) -> bool {
        self.locked().end == Some(End::Broken)
    }

    /// The bytes that are there.
    pub(crate) fn length(&self) -> u64 {
        self.locked().length
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.locked());
        self.grown.notify_all();
        self.grown_async.notify_waiters();
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the beginning, waiting for what is not there yet, and counts.
    pub(crate) fn reader(self: &Arc<Self>, counted: Arc<AtomicU64>) -> Reader {
        Reader { from: Arc::clone(self), at: 0, counted }
    }

    /// The bytes from `at` on, as soon as there are some; nothing at the end.
    pub(crate) async fn piece(&self, at: u64) -> io::Result<Option<Bytes>> {
        loop {
            let notified = self.grown_async.notified();
            let state = *self.locked();
            if state.length > at {
                let most = usize::try_from(state.length - at).unwrap_or(PIECE).min(PIECE);
                let mut piece = vec![0; most];
                self.file.read_exact_at(&mut piece, at)?;
                return Ok(Some(piece.into()));
            }
            match state.end {
                Some(End::Whole) => return Ok(None),
                Some(End::Broken) => return Err(broken()),
                None => notified.await,
            }
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the transfer was broken off")
}

/// Reads a growing file.
pub(crate) struct Reader {
    from: Arc<Growing>,
    at: u64,
    counted: Arc<AtomicU64>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.from.locked();
        while state.length <= self.at {
            match state.end {
                Some(End::Whole) => return Ok(0),
                Some(End::Broken) => return Err(broken()),
                None => state = self.from.grown.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let there = usize::try_from(state.length - self.at).unwrap_or(usize::MAX);
        drop(state);
        let most = buffer.len().min(there);
        let read = self.from.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.counted.store(self.at, Ordering::Relaxed);
        Ok(read)
    }
}

/// Writes a growing file.
pub(crate) struct Writer(pub(crate) Arc<Growing>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_waits_for_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let (growing, _path) = Growing::new(dir.path()).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let mut reader = growing.reader(Arc::clone(&count));
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for _ in 0..100 {
            growing.append(b"some bytes ").unwrap();
        }
        growing.finish();
        assert_eq!(reading.join().unwrap().unwrap(), b"some bytes ".repeat(100));
        assert_eq!(count.load(Ordering::Relaxed), 1100);
    }

    #[tokio::test]
    async fn what_breaks_off_is_an_error_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let (growing, _path) = Growing::new(dir.path()).unwrap();
        growing.append(b"beginning").unwrap();
        growing.break_off();
        let mut all = Vec::new();
        assert!(growing.reader(Arc::default()).read_to_end(&mut all).is_err());
        assert_eq!(all, b"beginning");
        assert_eq!(growing.piece(3).await.unwrap().as_deref(), Some(&b"inning"[..]));
        assert!(growing.piece(9).await.is_err());
    }
}
