//! A published UDP port: datagrams of each client go to the container through a socket of the client's own, and what
//! comes back through it goes to that client, from the address that it asked; who asks two is as two clients.
//!
//! There is no end of a conversation in UDP, so one that is silent for [`IDLE`] is over. A client too many ends the
//! conversation that has been silent longest, so nobody can use up the engine's sockets.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caisson_guest_proto::datagrams::{Datagrams, Ends};
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

/// Serves until it is dropped. Its conversations go on among `tasks`, and have the listener, too.
pub(super) async fn serve(tasks: &mut JoinSet<Ends>, listener: Datagrams, target: SocketAddr) {
    let listener = Arc::new(listener);
    let mut talks: HashMap<Ends, Talk> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            received = listener.receive(&mut buffer) => {
                // What a datagram sent earlier came back as an error says nothing of the next one.
                let Ok((length, ends)) = received else { continue };
                if !talks.contains_key(&ends) {
                    make_room(&mut talks);
                    match begin(&listener, ends, target, tasks).await {
                        Ok(talk) => drop(talks.insert(ends, talk)),
                        Err(error) => {
                            debug!(%target, %error, "could not reach a container over UDP");
                            continue;
                        }
                    }
                }
                if let Some(talk) = talks.get(&ends) {
                    talk.spoke.send_replace(Instant::now());
                    // As on any wire, what cannot be delivered is lost.
                    let _ = talk.socket.send(&buffer[..length]).await;
                }
            }
            Some(ended) = tasks.join_next() => if let Ok(ends) = ended { drop(talks.remove(&ends)) },
        }
    }
}

fn make_room(talks: &mut HashMap<Ends, Talk>) {
    if talks.len() < MOST {
        return;
    }
    let silent = talks.iter().min_by_key(|(_, talk)| *talk.spoke.borrow()).map(|(ends, _)| *ends);
    if let Some(talk) = silent.and_then(|ends| talks.remove(&ends)) {
        talk.task.abort();
    }
}

async fn begin(
    listener: &Arc<Datagrams>,
    ends: Ends,
    target: SocketAddr,
    tasks: &mut JoinSet<Ends>,
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
        carry_back(&listener, &answers, ends, &heard).await;
        ends
    });
    Ok(Talk { socket, spoke, task })
}

/// Until neither side has said anything for [`IDLE`].
async fn carry_back(
    listener: &Datagrams,
    answers: &UdpSocket,
    ends: Ends,
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
                let _ = listener.answer(&buffer[..length], ends).await;
            }
            // Nobody listens in the container now; the client may try again.
            Ok(Err(_)) => {}
            Err(_) if *heard.borrow() > last => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, pause, resume, sleep, timeout};

    /// Nothing here waits so long unless it is broken.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A published port, and the container's socket behind it.
    struct Port {
        number: u16,
        container: UdpSocket,
        task: tokio::task::JoinHandle<()>,
    }

    impl Drop for Port {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Port {
        async fn on(ip: &str) -> Self {
            let listener = UdpSocket::bind((ip, 0)).await.unwrap();
            let number = listener.local_addr().unwrap().port();
            let container = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let target = container.local_addr().unwrap();
            let listener = Datagrams::new(listener).unwrap();
            let task = tokio::spawn(async move { serve(&mut JoinSet::new(), listener, target).await });
            Self { number, container, task }
        }

        /// What a client says comes to the container; from which socket of the engine's.
        async fn hears(&self, client: &UdpSocket) -> SocketAddr {
            client.send(b"question").await.unwrap();
            let mut buffer = [0; 16];
            let heard = timeout(LIMIT, self.container.recv_from(&mut buffer)).await.expect("a question");
            let (length, from) = heard.unwrap();
            assert_eq!(&buffer[..length], b"question");
            from
        }

        /// What the container says comes to the client.
        async fn answers(&self, client: &UdpSocket, to: SocketAddr) {
            self.container.send_to(b"answer", to).await.unwrap();
            let mut buffer = [0; 16];
            let length = timeout(LIMIT, client.recv(&mut buffer)).await.expect("an answer").unwrap();
            assert_eq!(&buffer[..length], b"answer");
        }
    }

    /// One socket, so that the client is the same one each time.
    #[tokio::test]
    async fn who_asks_an_address_is_answered_from_that_one() {
        for (all, asked) in [("0.0.0.0", &["127.0.0.2", "127.0.0.1"][..]), ("::", &["::1"])] {
            let port = Port::on(all).await;
            let client = UdpSocket::bind((asked[asked.len() - 1], 0)).await.unwrap();
            let mut froms = Vec::new();
            for ip in asked {
                client.connect((*ip, port.number)).await.unwrap();
                let from = port.hears(&client).await;
                port.answers(&client, from).await;
                assert!(!froms.contains(&from), "who asks two is as two clients");
                froms.push(from);
            }
        }
    }

    /// Lets this much time go by at once. Else the clock goes on: while it stands still nobody waits for a socket, it jumps.
    async fn pass(time: Duration) {
        pause();
        advance(time).await;
        resume();
    }

    #[tokio::test]
    async fn a_silent_conversation_ends_and_gives_its_socket_back_and_one_with_talk_goes_on() {
        const SILENCE: Duration = Duration::from_secs(90);
        const NEARLY: Duration = Duration::from_secs(80);
        let port = Port::on("127.0.0.1").await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port.number)).await.unwrap();
        let from = port.hears(&client).await;
        for _ in 0..2 {
            pass(NEARLY).await;
            assert_eq!(port.hears(&client).await, from, "the client spoke in time");
            pass(NEARLY).await;
            port.answers(&client, from).await;
        }
        pause();
        let silent_since = Instant::now();
        let socket = timeout(SILENCE * 2, async {
            loop {
                sleep(Duration::from_secs(1)).await;
                if let Ok(socket) = std::net::UdpSocket::bind(from) {
                    return socket;
                }
            }
        });
        let socket = socket.await.expect("a silent conversation gives its socket back");
        assert!(silent_since.elapsed() >= NEARLY);
        resume();
        let anew = port.hears(&client).await;
        port.answers(&client, anew).await;
        assert_ne!(anew, socket.local_addr().unwrap());
    }
}
