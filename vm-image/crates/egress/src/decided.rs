//! Connections that are decided, or about to be, and not carried yet.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the guest's side may take to finish a connection that the host has; it may have given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// Who connects to whom.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// How far it is with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The host tries.
    Asked,
    /// The host is connected; the guest's side may finish.
    Open,
}

enum Entry<W> {
    Asked,
    /// The sender is held, not used.
    Open {
        way: W,
        _here: oneshot::Sender<Infallible>,
    },
}

/// Tells when a way is no longer here. Its sender goes with the entry: while it is there, the entry is this one and not that
/// of a later connection with the same ends.
pub(crate) struct Gone(oneshot::Receiver<Infallible>);

/// All of them, with the way (`W`) of each that is open.
pub(crate) struct Decided<W>(RefCell<HashMap<Ends, Entry<W>>>);

impl<W> Default for Decided<W> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<W> Decided<W> {
    pub(crate) fn stage(&self, ends: &Ends) -> Option<Stage> {
        self.0.borrow().get(ends).map(|entry| match entry {
            Entry::Asked => Stage::Asked,
            Entry::Open { .. } => Stage::Open,
        })
    }

    /// The host is asked. The caller sees to it that it is open or forgotten then.
    pub(crate) fn ask(&self, ends: Ends) {
        self.0.borrow_mut().insert(ends, Entry::Asked);
    }

    /// The host has refused.
    pub(crate) fn forget(&self, ends: &Ends) {
        self.0.borrow_mut().remove(ends);
    }

    /// The host is connected. What is returned is for [`expire`](Self::expire).
    pub(crate) fn open(&self, ends: Ends, way: W) -> Gone {
        let (here, gone) = oneshot::channel();
        self.0.borrow_mut().insert(ends, Entry::Open { way, _here: here });
        Gone(gone)
    }

    /// The way of a connection that the guest's side has finished.
    pub(crate) fn take(&self, ends: &Ends) -> Option<W> {
        let mut entries = self.0.borrow_mut();
        match entries.remove(ends)? {
            Entry::Open { way, .. } => Some(way),
            // It is a later connection with the same ends that is asked for.
            Entry::Asked => {
                entries.insert(*ends, Entry::Asked);
                None
            }
        }
    }

    /// Forgets an open connection that nobody takes in time; returns as soon as it is taken.
    pub(crate) async fn expire(&self, ends: Ends, Gone(gone): Gone) {
        if timeout(HANDSHAKE_LIMIT, gone).await.is_err() {
            self.0.borrow_mut().remove(&ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    fn ends() -> Ends {
        ("172.17.0.2:40000".parse().unwrap(), "203.0.113.5:80".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_connection_is_not_that_of_the_next_one_with_its_ends() {
        let decided = Decided::default();
        decided.ask(ends());
        let first = decided.open(ends(), "first");
        let both = async {
            advance(HANDSHAKE_LIMIT / 2).await;
            assert_eq!(decided.take(&ends()), Some("first"));
            decided.ask(ends());
            let second = decided.open(ends(), "second");
            advance(HANDSHAKE_LIMIT * 3 / 4).await;
            assert_eq!(
                decided.stage(&ends()),
                Some(Stage::Open),
                "the first one's time is over, not its own"
            );
            decided.expire(ends(), second).await;
            assert_eq!(decided.stage(&ends()), None);
        };
        tokio::join!(decided.expire(ends(), first), both);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_the_time_of_what_is_taken() {
        let decided = Decided::default();
        let gone = decided.open(ends(), ());
        let before = Instant::now();
        let expired = decided.expire(ends(), gone);
        tokio::join!(expired, async { decided.take(&ends()).unwrap() });
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[test]
    fn what_the_host_is_still_asked_for_is_not_taken() {
        let decided = Decided::<()>::default();
        decided.ask(ends());
        assert_eq!(decided.take(&ends()), None);
        assert_eq!(decided.stage(&ends()), Some(Stage::Asked));
    }
}
