//! Removing what is left of a sandbox, in the background.
//!
//! Deleting a device or unbinding a namespace waits for grace periods of the kernel, milliseconds each. Nobody needs to
//! wait for that: by then the sandbox is cut off and off the record, and names are never used twice. If the
//! engine is killed before its turn comes, the next one sweeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use caisson_sys::netns;
use tokio::sync::oneshot;
use tracing::warn;

use crate::book::{EndpointRecord, NetworkRecord};
use crate::drivers::Drivers;

/// So many sandboxes may wait for their removal; whoever brings one more waits, too.
const WAITING: usize = 256;

/// What is left of one sandbox.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) endpoints: Vec<(NetworkRecord, EndpointRecord)>,
    pub(crate) netns: Option<PathBuf>,
}

enum Job {
    Remove(Leftovers),
    Report(oneshot::Sender<()>),
}

/// The thread that removes.
#[derive(Debug)]
pub(crate) struct Remover(SyncSender<Job>);

impl Remover {
    /// Starts it; it ends, with its work done, after the remover is dropped.
    pub(crate) fn start(drivers: Arc<Drivers>) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING);
        thread::Builder::new().name("net-leftovers".into()).spawn(move || work(&queue, &drivers))?;
        Ok(Self(jobs))
    }

    /// Removes these when their turn comes. Blocks when too many wait.
    pub(crate) fn remove(&self, leftovers: Leftovers) {
        if self.0.send(Job::Remove(leftovers)).is_err() {
            warn!("the thread that removes sandboxes is gone; this one is left until the next start");
        }
    }

    /// Waits until all that was given before is removed.
    pub(crate) async fn finish(self: Arc<Self>) {
        let (done, finished) = oneshot::channel();
        let asked = tokio::task::spawn_blocking(move || self.0.send(Job::Report(done)));
        // Both fail only if the thread has panicked; then there is nothing to wait for.
        let _ = asked.await;
        let _ = finished.await;
    }
}

fn work(queue: &Receiver<Job>, drivers: &Drivers) {
    for job in queue {
        match job {
            Job::Remove(leftovers) => leftovers.remove(drivers),
            // Whoever asked may have gone.
            Job::Report(done) => drop(done.send(())),
        }
    }
}

impl Leftovers {
    fn remove(self, drivers: &Drivers) {
        for (network, record) in &self.endpoints {
            if let Err(error) = drivers.of(network).leave(record) {
                warn!(endpoint = %record.endpoint.endpoint_id, %error, "an endpoint is left until the next start");
            }
        }
        if let Some(path) = self.netns
            && let Err(error) = netns::remove(&path)
        {
            warn!(path = %path.display(), %error, "a network namespace is left until the next start");
        }
    }
}
