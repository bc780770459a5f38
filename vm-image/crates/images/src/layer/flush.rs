//! Layers on their way to the disk. One flush serves all who ask for it while another is under way, and nobody who does
//! not ask waits for it.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use super::Staged;
use crate::durable::{At, StateError};

/// Staged layers of which everything is on disk.
#[derive(Debug)]
pub(crate) struct OnDisk(pub(super) Vec<Staged>);

impl OnDisk {
    /// The layers.
    pub(crate) fn layers(&self) -> &[Staged] {
        &self.0
    }
}

/// Flushes of one file system.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    /// How many have begun.
    begun: u64,
    /// The last that ended well.
    done: u64,
}

impl Flushes {
    /// Returns when a flush of the file system of `dir` has ended that began after this was called.
    pub(super) fn flush(&self, dir: &Path) -> Result<(), StateError> {
        self.share(|| {
            let open = std::fs::File::open(dir);
            open.and_then(|dir| Ok(rustix::fs::syncfs(&dir)?)).at("sync", dir)
        })
    }

    fn share<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = state.begun + 1;
        while state.is_running && state.done < wanted {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.done >= wanted {
            return Ok(());
        }
        state.is_running = true;
        state.begun += 1;
        let this = state.begun;
        drop(state);
        let flushed = flush();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_running = false;
        if flushed.is_ok() {
            state.done = this;
        }
        self.ended.notify_all();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn those_who_come_meanwhile_share_the_next() {
        let (flushes, count) = (Flushes::default(), AtomicUsize::new(0));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let counted = || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            let (flushes, counted) = (&flushes, &counted);
            scope.spawn(move || {
                flushes.share(|| {
                    begun.send(()).unwrap();
                    wait.recv().map(|()| counted())
                })
            });
            has_begun.recv().unwrap();
            let flush = || {
                counted();
                Ok::<_, ()>(())
            };
            let other = || scope.spawn(move || flushes.share(flush));
            let others: Vec<_> = std::iter::repeat_with(other).take(4).collect();
            go_on.send(()).unwrap();
            others.into_iter().for_each(|other| other.join().unwrap().unwrap());
        });
        // None of the four is served by the one that had begun before it asked.
        let count = count.into_inner();
        assert!((2..=5).contains(&count), "{count}");
    }

    #[test]
    fn one_that_fails_serves_nobody() {
        let flushes = Flushes::default();
        assert_eq!(flushes.share(|| Err("no")), Err("no"));
        assert_eq!(flushes.share(|| Err("no")), Err("no"));
        assert_eq!(flushes.share(|| Ok::<_, ()>(())), Ok(()));
    }
}
