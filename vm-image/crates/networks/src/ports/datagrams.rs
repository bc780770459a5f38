//! A published UDP port: datagrams of each client go to the container through a socket of the client's own, and what
//! comes back through it goes to that client.
//!
//! There is no end of a conversation in UDP, so one that is silent for [`IDLE`] is over. A client too many ends the
//! conversation that has been silent longest, so nobody can use up the engine's sockets.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// How long a conversation may be silent; dockerd's proxy waits as long.
const IDLE: Duration = Duration::from_secs(90);

/// Conversations at once, of one port.
const MOST: usize = 1024;

/// The largest datagram there is, in bytes.
const LARGEST: usize = 65_535;

/// One client's conversation.
struct Talk {
    socket: Arc<UdpSocket>,
    /// Tells its task that the client has spoken.
    spoke: tokio::sync::watch::Sender<Instant>,
    task: tokio::task::AbortHandle,
}

/// Serves until it is dropped; its conversations end with it.
pub(super) async fn serve(listener: UdpSocket, target: SocketAddr) {
    let listener = Arc::new(listener);
    let mut talks: HashMap<SocketAddr, Talk> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            received = listener.recv_from(&mut buffer) => {
                // What a datagram sent earlier came back as an error says nothing of the next one.
                let Ok((length, client)) = received else { continue };
                if !talks.contains_key(&client) {
                    make_room(&mut talks);
                    match begin(&listener, client, target, &mut tasks).await {
                        Ok(talk) => drop(talks.insert(client, talk)),
                        Err(error) => {
                            debug!(%target, %error, "could not reach a container over UDP");
                            continue;
                        }
                    }
                }
                if let Some(talk) = talks.get(&client) {
                    talk.spoke.send_replace(Instant::now());
                    // As on any wire, what cannot be delivered is lost.
                    let _ = talk.socket.send(&buffer[..length]).await;
                }
            }
            Some(ended) = tasks.join_next() => if let Ok(client) = ended { drop(talks.remove(&client)) },
        }
    }
}

fn make_room(talks: &mut HashMap<SocketAddr, Talk>) {
    if talks.len() < MOST {
        return;
    }
    let silent = talks.iter().min_by_key(|(_, talk)| *talk.spoke.borrow()).map(|(client, _)| *client);
    if let Some(talk) = silent.and_then(|client| talks.remove(&client)) {
        talk.task.abort();
    }
}

async fn begin(
    listener: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    tasks: &mut JoinSet<SocketAddr>,
) -> io::Result<Talk> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Arc::new(UdpSocket::bind(any).await?);
    socket.connect(target).await?;
    let (spoke, heard) = tokio::sync::watch::channel(Instant::now());
    let (listener, answers) = (Arc::clone(listener), Arc::clone(&socket));
    let task = tasks.spawn(async move {
        carry_back(&listener, &answers, client, &heard).await;
        client
    });
    Ok(Talk { socket, spoke, task })
}

/// Until neither side has said anything for [`IDLE`].
async fn carry_back(
    listener: &UdpSocket,
    answers: &UdpSocket,
    client: SocketAddr,
    heard: &tokio::sync::watch::Receiver<Instant>,
) {
    let mut buffer = vec![0; LARGEST];
    let mut answered = Instant::now();
    loop {
        let last = answered.max(*heard.borrow());
        match timeout_at(last + IDLE, answers.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                answered = Instant::now();
                // As on any wire, what cannot be delivered is lost.
                let _ = listener.send_to(&buffer[..length], client).await;
            }
            // Nobody listens in the container now; the client may try again.
            Ok(Err(_)) => {}
            Err(_) if *heard.borrow() > last => {}
            Err(_) => return,
        }
    }
}
