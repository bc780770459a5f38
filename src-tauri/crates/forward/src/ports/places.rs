//! The places for connections, which all ports share.
//!
//! A port may hold as many as are free beside them. So one that takes all it can get takes half, two take a third each, and
//! there are always some left for a port that has none yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// All places.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    free: Mutex<usize>,
    /// Told when there is one more.
    freed: Notify,
}

impl Shared {
    /// A count is right whoever panics.
    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Shared { free: Mutex::new(all), freed: Notify::new() }))
    }

    /// A port's part of them.
    pub(super) fn share(&self) -> Share {
        Share { places: self.0.clone(), held: Arc::new(Mutex::new(0)) }
    }
}

/// What one port may take and holds.
#[derive(Clone)]
pub(super) struct Share {
    places: Arc<Shared>,
    held: Arc<Mutex<usize>>,
}

impl Share {
    /// A place, if there is one for this port now.
    pub(super) fn try_take(&self) -> Option<Place> {
        let (mut free, mut held) = (self.places.free(), self.held());
        if *held >= *free {
            return None;
        }
        *free -= 1;
        *held += 1;
        Some(Place(self.clone()))
    }

    /// A place, once there is one for this port.
    pub(super) async fn take(&self) -> Place {
        loop {
            // Made before it is looked whether there is one, so that none is missed in between.
            let freed = self.places.freed.notified();
            match self.try_take() {
                Some(place) => return place,
                None => freed.await,
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken as long as this lives.
pub(super) struct Place(Share);

impl Drop for Place {
    fn drop(&mut self) {
        let Share { places, .. } = &self.0;
        *places.free() += 1;
        *self.0.held() -= 1;
        places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::pin, task::Poll};

    fn all(share: &Share) -> Vec<Place> {
        std::iter::from_fn(|| share.try_take()).collect()
    }

    #[test]
    fn a_port_that_takes_all_it_can_get_leaves_as_much_for_others() {
        let places = Places::new(120);
        let shares: Vec<Share> = (0..3).map(|_| places.share()).collect();
        let mut taken: Vec<Vec<Place>> = shares.iter().map(all).collect();
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [60, 30, 15]);
        let late = places.share();
        assert!(late.try_take().is_some());
        // What the greedy one gives back is not for itself alone.
        drop(taken.remove(0));
        assert_eq!(all(&shares[2]).len(), 30);
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let share = Places::new(2).share();
        for _ in 0..10 {
            let place = share.try_take();
            assert!(place.is_some() && share.try_take().is_none());
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_place_gets_the_next_one() {
        let places = Places::new(2);
        let (first, second) = (places.share(), places.share());
        let held = first.try_take().unwrap();
        let rest = second.try_take().unwrap();
        let mut waiting = pin!(first.take());
        let polled = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(polled);
        drop((held, rest));
        waiting.await;
    }
}
