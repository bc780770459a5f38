//! What a client is told of layers on their way. Steps that went by too fast to be seen are told all the same, in order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::PullError;
use super::transfer::{Step, Transfer};
use crate::progress::{self, Detail, Listener};

/// How often a client is told how far a layer is, as in dockerd.
const EVERY: Duration = Duration::from_millis(100);

/// A layer, and what its client has been told of it.
pub(super) struct Told {
    id: String,
    transfer: Arc<Transfer>,
    last: Option<Step>,
}

impl Told {
    pub(super) fn new(id: String, transfer: Arc<Transfer>) -> Self {
        Self { id, transfer, last: None }
    }

    /// Tells what is new.
    async fn tell(&mut self, to: &Listener) {
        let now = self.transfer.state.step();
        let passed = |last: Option<Step>, step: Step| last < Some(step) && step < now;
        let total = self.transfer.state.total;
        let whole = Step::Downloading { current: total };
        if now > (Step::Retrying { seconds: u64::MAX }) && self.last < Some(whole) {
            self.say(to, whole).await;
        }
        if now > (Step::Downloading { current: 0 }) {
            for step in [Step::Verifying, Step::Downloaded, Step::Extracting { current: total }] {
                if passed(self.last, step) {
                    self.say(to, step).await;
                }
            }
        }
        if self.last != Some(now) {
            self.say(to, now).await;
        }
    }

    async fn say(&mut self, to: &Listener, step: Step) {
        let total = self.transfer.state.total;
        let (status, detail) = match step {
            Step::Waiting => ("Waiting".to_owned(), Detail::Step),
            Step::Downloading { current: 0 } => return,
            Step::Downloading { current } => ("Downloading".to_owned(), Detail::Bytes { current, total }),
            Step::Retrying { seconds: 1 } => ("Retrying in 1 second".to_owned(), Detail::Step),
            Step::Retrying { seconds } => (format!("Retrying in {seconds} seconds"), Detail::Step),
            Step::Verifying => ("Verifying Checksum".to_owned(), Detail::Step),
            Step::Downloaded => ("Download complete".to_owned(), Detail::Step),
            Step::Extracting { current } => ("Extracting".to_owned(), Detail::Bytes { current, total }),
            Step::Done => ("Pull complete".to_owned(), Detail::Step),
        };
        self.last = Some(step);
        progress::step(to, &self.id, &status, detail).await;
    }
}

/// Returns when all layers are kept, or one cannot be; tells meanwhile how far they are.
pub(super) async fn until_done(mut told: Vec<Told>, to: &Listener) -> Result<(), PullError> {
    let transfers: Vec<_> = told.iter().map(|told| Arc::clone(&told.transfer)).collect();
    let done = try_join_all(transfers.iter().map(|transfer| transfer.done()));
    tokio::pin!(done);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            ended = &mut done => {
                for layer in &mut told {
                    layer.tell(to).await;
                }
                return ended.map(drop);
            }
            _ = ticks.tick() => {
                for layer in &mut told {
                    layer.tell(to).await;
                }
            }
        }
    }
}
