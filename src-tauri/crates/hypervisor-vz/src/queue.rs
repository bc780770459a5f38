//! Objects that may be touched on one serial dispatch queue only.
#![expect(
    unsafe_code,
    reason = "the framework's objects are bound to a queue, which the type system cannot know"
)]

use std::mem::ManuallyDrop;
use std::sync::Arc;

use dispatch2::{DispatchQueue, DispatchRetained};
use tokio::sync::oneshot;

/// A value that lives on a serial queue: made there, used there, dropped there.
pub(crate) struct Confined<T: 'static> {
    queue: DispatchRetained<DispatchQueue>,
    value: ManuallyDrop<Arc<OnQueue<T>>>,
}

struct OnQueue<T>(T);

// SAFETY: the value inside is only reached by closures that `Confined` sends to its serial queue, which runs one at a
// time; other threads hold and pass on the `Arc` around it, never the value.
unsafe impl<T> Send for OnQueue<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for OnQueue<T> {}

impl<T: 'static> Confined<T> {
    /// Makes a value on `queue`. `None` if the closure panicked.
    pub(crate) async fn make<E: Send + 'static>(
        queue: DispatchRetained<DispatchQueue>,
        make: impl FnOnce(&DispatchQueue) -> Result<T, E> + Send + 'static,
    ) -> Option<Result<Self, E>> {
        let (answer, answered) = oneshot::channel();
        let own = queue.clone();
        queue.exec_async(move || {
            // Nobody waits any more if the launch was given up; the value then ends here, on its queue.
            let _ = answer.send(make(&own).map(|value| Arc::new(OnQueue(value))));
        });
        let made = answered.await.ok()?;
        Some(made.map(|value| Self { queue, value: ManuallyDrop::new(value) }))
    }

    /// Runs `work` on the queue. The answer is an error only if the closure panicked.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&T) -> R + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (answer, answered) = oneshot::channel();
        let value = Arc::clone(&self.value);
        self.queue.exec_async(move || {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(work(&value.0));
        });
        answered
    }
}

impl<T: 'static> Drop for Confined<T> {
    fn drop(&mut self) {
        // SAFETY: `value` is not used again: this is the only place that takes it, and `self` ends here.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        self.queue.exec_async(move || drop(value));
    }
}
