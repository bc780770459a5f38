//! One published port: a listener and the connections through it.

use super::PortStatus;
use crate::{Guest, copy};
use caisson_guest_proto::PortForward;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};
use tracing::{debug, warn};

/// What a failed listener waits before it tries again: it is out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A published port. Dropping it closes it, though not before the runtime gets to it; [`Port::close`] waits.
#[derive(Debug)]
pub(super) struct Port {
    forward: PortForward,
    connections: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Port {
    pub(super) fn serve(
        forward: PortForward,
        listener: TcpListener,
        guest: impl Guest,
        places: Arc<Semaphore>,
        changed: mpsc::Sender<()>,
    ) -> Self {
        let connections = Arc::new(AtomicU32::new(0));
        let counter = Counter { connections: connections.clone(), changed };
        let task = tokio::spawn(accept(listener, forward.clone(), guest, places, counter));
        Self { forward, connections, task }
    }

    pub(super) fn key(&self) -> &str {
        &self.forward.key
    }

    pub(super) fn host_port(&self) -> u16 {
        self.forward.host_port
    }

    pub(super) fn status(&self) -> PortStatus {
        PortStatus { forward: self.forward.clone(), connections: self.connections.load(Ordering::Relaxed) }
    }

    /// Whether this is what `wanted` asks for; any port will do for one that asks for any.
    pub(super) fn is(&self, wanted: &PortForward) -> bool {
        let host_port = if wanted.host_port == 0 { self.forward.host_port } else { wanted.host_port };
        self.forward == PortForward { host_port, ..wanted.clone() }
    }

    /// Closes the listener and cuts its connections. Returns when the port is free.
    pub(super) async fn close(mut self) {
        self.task.abort();
        // It ends with "cancelled", which is what was asked.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts connections, and says when their number has changed.
#[derive(Clone)]
struct Counter {
    connections: Arc<AtomicU32>,
    changed: mpsc::Sender<()>,
}

impl Counter {
    fn count(&self) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.tell();
        Counted(self.clone())
    }

    /// If the channel is full the owner has yet to look, and will see this change too.
    fn tell(&self) {
        let _ = self.changed.try_send(());
    }
}

/// A connection that counts as long as this lives.
struct Counted(Counter);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.tell();
    }
}

async fn accept(
    listener: TcpListener,
    forward: PortForward,
    guest: impl Guest,
    places: Arc<Semaphore>,
    counter: Counter,
) {
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((client, _)) => {
                let (guest, counted, target) = (guest.clone(), counter.count(), forward.target);
                connections.spawn(async move {
                    relay(client, guest, target).await;
                    drop((counted, place));
                });
            }
            Err(error) => {
                warn!(key = %forward.key, %error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Leads one client to the container. A container that refuses is a connection that closes at once, as through dockerd.
async fn relay(mut client: TcpStream, guest: impl Guest, target: std::net::SocketAddr) {
    // Small messages of either side must not wait for each other; that it is refused would be a wonder, and harmless.
    let _ = client.set_nodelay(true);
    let mut container = match guest.relay(target).await {
        Ok(container) => container,
        Err(error) => return debug!(%target, %error, "connection not relayed"),
    };
    if let Err(error) = copy::both_ways(&mut client, &mut container).await {
        debug!(%target, %error, "connection broke");
    }
}
