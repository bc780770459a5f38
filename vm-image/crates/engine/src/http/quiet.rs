//! Memory is given back when nobody has asked for anything for a while: an engine that waits in a machine of little memory is as small
//! as what it waits with.

use std::time::Duration;

use caisson_sys::memory;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longer than the pauses of somebody at work, and than the threads of the last call live on.
const QUIET: Duration = Duration::from_secs(15);

/// The calls that were answered, for [`give_back`].
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
            while timeout(QUIET, self.0.notified()).await.is_ok() {}
            work().await;
        }
    }
}

/// Shrinks this process whenever it is quiet; ends only by being dropped.
pub(crate) async fn give_back(calls: &Calls) {
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
        };
        tokio::select! {
            () = given_back => unreachable!("it goes on"),
            () = script => {}
        }
    }
}
