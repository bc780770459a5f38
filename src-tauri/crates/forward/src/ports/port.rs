//! One published port: a listener and the connections through it.

use super::{
    PortStatus,
    bind::Bound,
    datagrams,
    places::{Place, Share},
};
use crate::{Accept, Guest, serve_each_in};
use caisson_guest_proto::{
    PortForward, PortProtocol, RelayProtocol, RelayRequest, copy, datagrams::Datagrams,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tracing::debug;

/// The most connections through a port at once; more wait in the system's queue, and other ports do not notice.
const MAX_CONNECTIONS: usize = 4096;

/// A published port. Dropping it closes it, though not before the runtime gets to it; [`Port::close`] waits.
#[derive(Debug)]
pub(super) struct Port {
    forward: PortForward,
    connections: Arc<AtomicU32>,
    /// Tells that nobody is to be let in any more; what it brings is dropped with the listener.
    shut: Option<oneshot::Sender<oneshot::Sender<()>>>,
    task: JoinHandle<()>,
}

impl Port {
    pub(super) fn serve(
        forward: PortForward,
        listener: Bound,
        guest: impl Guest,
        changed: mpsc::Sender<()>,
        places: Share,
    ) -> Self {
        let connections = Arc::new(AtomicU32::new(0));
        let counter = Counter { connections: connections.clone(), changed };
        let (shut, told) = oneshot::channel();
        let task = match listener {
            Bound::Tcp(listener) => {
                tokio::spawn(accept(Limited { listener, places }, told, forward.target, guest, counter))
            }
            Bound::Udp(socket) => {
                tokio::spawn(receive(socket, told, forward.clone(), guest, counter, places))
            }
        };
        Self { forward, connections, shut: Some(shut), task }
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
        match self.forward.protocol {
            PortProtocol::Tcp => self.task.abort(),
            PortProtocol::Udp => drop(self.shut()),
        }
        // It ends, or with "cancelled", which is what was asked.
        let _ = (&mut self.task).await;
    }

    /// Tells that nobody is to be let in any more. The end of what this gives is that of the listener.
    fn shut(&mut self) -> Option<oneshot::Receiver<()>> {
        let (open, closed) = oneshot::channel();
        self.shut.take()?.send(open).ok()?;
        Some(closed)
    }

    /// Closes the listener, and returns when the port is free. What is left are its connections: they end by themselves,
    /// or when what is left is dropped. Datagrams have no connections.
    pub(super) async fn retire(mut self) -> impl Future<Output = ()> + Send + 'static {
        match self.shut() {
            // It is never sent anything: its end is what is waited for.
            Some(closed) => drop(closed.await),
            None => self.task.abort(),
        }
        async move {
            // It ends by itself, or with "cancelled".
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts connections, and says when their number has changed.
#[derive(Clone)]
pub(super) struct Counter {
    connections: Arc<AtomicU32>,
    changed: mpsc::Sender<()>,
}

impl Counter {
    pub(super) fn count(&self) -> Counted {
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
pub(super) struct Counted(Counter);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.tell();
    }
}

/// A listener that shares the places for connections with the other ports. Whoever finds none waits, and with it all who
/// come to this port after it.
struct Limited {
    listener: TcpListener,
    places: Share,
}

impl Accept for Limited {
    type Client = (TcpStream, Place);

    async fn accept(&mut self) -> io::Result<Self::Client> {
        let (client, _) = self.listener.accept().await?;
        Ok((client, self.places.take().await))
    }
}

/// Takes clients until it is told to let nobody in any more, and then waits for those that it has.
async fn accept(
    listener: Limited,
    told: oneshot::Receiver<oneshot::Sender<()>>,
    target: SocketAddr,
    guest: impl Guest,
    counter: Counter,
) {
    let serve = |(client, place)| {
        let (guest, counted) = (guest.clone(), counter.count());
        async move {
            relay(client, guest, target).await;
            drop((counted, place));
        }
    };
    let mut served = JoinSet::new();
    let serving = serve_each_in(&mut served, listener, MAX_CONNECTIONS, "a published port's clients", serve);
    // The listener is closed at the end of this.
    let open = tokio::select! {
        () = serving => None,
        Ok(open) = told => Some(open),
    };
    drop(open);
    while served.join_next().await.is_some() {}
}

/// Takes datagrams until it is told to take no more. Each flow has the socket, so the port is free only when all have ended.
async fn receive(
    socket: Datagrams,
    told: oneshot::Receiver<oneshot::Sender<()>>,
    forward: PortForward,
    guest: impl Guest,
    counter: Counter,
    places: Share,
) {
    let mut flows = JoinSet::new();
    let open = tokio::select! {
        () = datagrams::serve(&mut flows, socket, forward, guest, counter, places) => None,
        Ok(open) = told => Some(open),
    };
    flows.shutdown().await;
    drop(open);
}

/// Leads one client to the container. A container that refuses is a connection that closes at once, as through dockerd.
async fn relay(mut client: TcpStream, guest: impl Guest, target: SocketAddr) {
    // Small messages of either side must not wait for each other; that it is refused would be a wonder, and harmless.
    let _ = client.set_nodelay(true);
    let who = client.peer_addr().ok().and_then(|client| seen(client, target));
    let request = RelayRequest { address: target, protocol: RelayProtocol::Tcp, client: who };
    let mut container = match guest.relay(request).await {
        Ok(container) => container,
        Err(error) => return debug!(%target, %error, "connection not relayed"),
    };
    if let Err(error) = copy::both_ways(&mut client, &mut container).await {
        debug!(%target, %error, "connection broke");
    }
}

/// How a container may see a client: as it is, unless its address is this computer's loopback, which is the container's own
/// to the container, or of a kind that the container has none of.
pub(super) fn seen(client: SocketAddr, target: SocketAddr) -> Option<SocketAddr> {
    let ip = client.ip().to_canonical();
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_fit = !ip.is_loopback() && !is_link_local && ip.is_ipv4() == target.is_ipv4();
    is_fit.then(|| SocketAddr::new(ip, client.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_seen_where_its_address_means_the_same() {
        let v4 = "172.17.0.2:80";
        for (client, target, expected) in [
            ("192.168.1.7:5", v4, Some("192.168.1.7:5")),
            ("[::ffff:192.168.1.7]:5", v4, Some("192.168.1.7:5")),
            ("[2001:db8::1]:5", "[fd00::2]:80", Some("[2001:db8::1]:5")),
            ("127.0.0.1:5", v4, None),
            ("169.254.1.1:5", v4, None),
            ("[::1]:5", "[fd00::2]:80", None),
            ("[fe80::1]:5", "[fd00::2]:80", None),
            ("[2001:db8::1]:5", v4, None),
        ] {
            let found = seen(client.parse().unwrap(), target.parse().unwrap());
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{client}");
        }
    }
}
