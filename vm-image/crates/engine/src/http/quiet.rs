//! Memory is given back when nobody has asked for anything for a while: an engine that waits in a machine of little memory is as small
//! as what it waits with.

use std::time::Duration;

use caisson_sys::memory;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Longer than the pauses of somebody at work, and than the threads of the last call live on.
const QUIET: Duration = Duration::from_secs(15);
/// How long those who call and call can keep it from that.
const AT_LATEST: Duration = Duration::from_secs(300);

/// What clients have done, for [`give_back`]: calls that were answered, and connections that have ended, as those do by which
/// something was pulled or followed.
#[derive(Debug, Default)]
pub(crate) struct Calls(Notify);

impl Calls {
    /// Another one.
    pub(crate) fn count(&self) {
        self.0.notify_one();
    }

    /// Does this in each pause after calls. An engine that nobody calls is not woken for it.
    async fn in_pauses(&self, mut work: impl AsyncFnMut()) {
        loop {
            self.0.notified().await;
            let latest = Instant::now() + AT_LATEST;
            while timeout(QUIET, self.0.notified()).await.is_ok() && Instant::now() < latest {}
            work().await;
        }
    }
}

/// Shrinks this process whenever it is quiet, for the first time after its start; ends only by being dropped.
pub(crate) async fn give_back(calls: &Calls) {
    calls.count();
    calls
        .in_pauses(async || {
            // A thread that panics or cannot be had has kept some memory, which is all.
            let _ = tokio::task::spawn_blocking(memory::shrink).await;
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn once_a_pause_and_never_among_calls() {
        let (calls, done) = (Calls::default(), Cell::new(0));
        let given_back = calls.in_pauses(async || done.set(done.get() + 1));
        let script = async {
            let settle = async |by: Duration| {
                advance(by).await;
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            };
            settle(QUIET * 3).await;
            assert_eq!(done.get(), 0, "nobody has called");
            for _ in 0..5 {
                calls.count();
                settle(QUIET / 2).await;
            }
            assert_eq!(done.get(), 0, "among calls");
            settle(QUIET).await;
            assert_eq!(done.get(), 1);
            settle(QUIET * 3).await;
            assert_eq!(done.get(), 1, "the same pause");
            calls.count();
            settle(Duration::ZERO).await;
            settle(QUIET * 2).await;
            assert_eq!(done.get(), 2);
            let begun = Instant::now();
            while done.get() == 2 {
                calls.count();
                settle(QUIET / 2).await;
                assert!(begun.elapsed() <= AT_LATEST + QUIET, "those who call and call keep it from that");
            }
        };
        tokio::select! {
            () = given_back => unreachable!("it goes on"),
            () = script => {}
        }
    }
}
