//! The devices of sandboxes that are gone.
//!
//! Deleting a device holds the kernel's network lock through several grace periods, tens of milliseconds in which no
//! other container is attached. When a namespace ends, the kernel deletes its devices (of a veth pair: both ends) by
//! itself, those of many namespaces in one go. So nothing is deleted here that may go by itself: a device has until
//! [`LINGERING`] more have come. What is there even then, because some process still holds the namespace, is deleted.
//!
//! Until then it is cut off (see [`Driver::isolate`](crate::drivers::Driver::isolate)), off the record, and has a name
//! that is never used twice. If the engine is killed, the next one sweeps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use tokio::sync::oneshot;
use tracing::warn;

use crate::book::{EndpointRecord, NetworkRecord};
use crate::drivers::Drivers;

/// So many endpoints are given time to go by themselves.
const LINGERING: usize = 64;

/// So many more may wait to be looked at; whoever brings another one waits, too.
const WAITING: usize = 256;

/// An endpoint that was isolated.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) network: NetworkRecord,
    pub(crate) record: EndpointRecord,
}

enum Job {
    Remove(Box<Leftover>),
    Finish(oneshot::Sender<()>),
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

    /// Sees to it that an endpoint goes. Blocks when too many wait.
    pub(crate) fn remove(&self, leftover: Leftover) {
        if self.0.send(Job::Remove(Box::new(leftover))).is_err() {
            warn!("the thread that removes endpoints is gone; this one is left until the next start");
        }
    }

    /// Waits until all that was given before is gone.
    pub(crate) async fn finish(self: Arc<Self>) {
        let (done, finished) = oneshot::channel();
        let asked = tokio::task::spawn_blocking(move || self.0.send(Job::Finish(done)));
        // Both fail only if the thread has panicked; then there is nothing to wait for.
        let _ = asked.await;
        let _ = finished.await;
    }
}

fn work(queue: &Receiver<Job>, drivers: &Drivers) {
    let mut lingering = VecDeque::new();
    for job in queue {
        let (spared, asked) = match job {
            Job::Remove(leftover) => {
                lingering.push_back(leftover);
                (LINGERING, None)
            }
            Job::Finish(done) => (0, Some(done)),
        };
        while lingering.len() > spared
            && let Some(leftover) = lingering.pop_front()
        {
            leftover.leave(drivers);
        }
        if let Some(done) = asked {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
    lingering.into_iter().for_each(|leftover| leftover.leave(drivers));
}

impl Leftover {
    fn leave(&self, drivers: &Drivers) {
        if let Err(error) = drivers.of(&self.network).leave(&self.record) {
            let endpoint = &self.record.endpoint.endpoint_id;
            warn!(endpoint, %error, "an endpoint is left until the next start");
        }
    }
}
