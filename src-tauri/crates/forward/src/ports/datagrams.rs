//! A published UDP port: each client that sends to an address of it is a flow of its own, until nothing went either way for a while.

use super::{
    places::{self, Share},
    port::{Counted, Counter, seen},
};
use crate::Guest;
use caisson_guest_proto::{
    MAX_MESSAGE, PortForward, RelayProtocol, RelayRequest,
    datagrams::{Datagrams, Ends},
    read_message, write_message,
};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

/// The most flows of a port at once; what others send is lost, as datagrams may be.
const MAX_CLIENTS: usize = 1024;

/// Datagrams of a client that wait for the container; more are lost.
const WAITING: usize = 64;

/// How long nothing may go either way before a client is forgotten: as the system's own tracking has it.
const IDLE_LIMIT: Duration = Duration::from_secs(180);

/// What a socket that failed waits before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// The clients' flows, each by the way to it.
type Clients = Arc<Mutex<HashMap<Ends, mpsc::Sender<Vec<u8>>>>>;

/// Leads every client's datagrams to the container and the answers back. Its flows go on in `flows`, and have the socket, too.
pub(super) async fn serve(
    flows: &mut JoinSet<()>,
    socket: Datagrams,
    forward: PortForward,
    guest: impl Guest,
    counter: Counter,
    places: Share,
) {
    let (socket, clients) = (Arc::new(socket), Clients::default());
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let (length, ends) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            // On Windows an answer that nobody took is an error of the next receive.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
            Err(error) => {
                warn!(target = %forward.target, %error, "cannot receive datagrams");
                sleep(PAUSE).await;
                continue;
            }
        };
        while flows.try_join_next().is_some() {}
        let datagram = buffer[..length].to_vec();
        let known = lock(&clients).get(&ends).cloned();
        if let Some(flow) = known {
            // One too many is lost.
            let _ = flow.try_send(datagram);
            continue;
        }
        if flows.len() >= MAX_CLIENTS {
            continue;
        }
        let Some(taken) = places.try_take() else { continue };
        let (flow, datagrams) = mpsc::channel(WAITING);
        let _ = flow.try_send(datagram);
        lock(&clients).insert(ends, flow);
        let place = Place { clients: clients.clone(), ends, _counted: counter.count(), _taken: taken };
        let (socket, guest, target) = (socket.clone(), guest.clone(), forward.target);
        flows.spawn(async move {
            if let Err(error) = carry(&socket, ends, datagrams, guest, target).await {
                debug!(%target, %error, "datagrams were not relayed");
            }
            drop(place);
        });
    }
}

fn lock(clients: &Clients) -> std::sync::MutexGuard<'_, HashMap<Ends, mpsc::Sender<Vec<u8>>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flow that is known as long as this lives.
struct Place {
    clients: Clients,
    ends: Ends,
    _counted: Counted,
    _taken: places::Place,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.clients).remove(&self.ends);
    }
}

async fn carry(
    socket: &Datagrams,
    ends: Ends,
    datagrams: mpsc::Receiver<Vec<u8>>,
    guest: impl Guest,
    target: SocketAddr,
) -> io::Result<()> {
    let request =
        RelayRequest { address: target, protocol: RelayProtocol::Udp, client: seen(ends.client, target) };
    let stream = guest.relay(request).await.map_err(io::Error::other)?;
    let (from_container, to_container) = split(stream);
    let last = Mutex::new(Instant::now());
    let alive = || *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    let idle = async {
        loop {
            let until = *last.lock().unwrap_or_else(PoisonError::into_inner) + IDLE_LIMIT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        ended = inwards(datagrams, to_container, &alive) => ended,
        ended = outwards(from_container, socket, ends, &alive) => ended,
        () = idle => Ok(()),
    }
}

async fn inwards(
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    mut container: impl AsyncWrite + Unpin,
    alive: &impl Fn(),
) -> io::Result<()> {
    while let Some(datagram) = datagrams.recv().await {
        alive();
        write_message(&mut container, &datagram).await?;
    }
    Ok(())
}

async fn outwards(
    mut container: impl AsyncRead + Unpin,
    socket: &Datagrams,
    ends: Ends,
    alive: &impl Fn(),
) -> io::Result<()> {
    let mut datagram = Vec::new();
    while read_message(&mut container, &mut datagram).await? {
        alive();
        // A client that is gone takes no answer, and that is all.
        let _ = socket.answer(&datagram, ends).await;
    }
    Ok(())
}
