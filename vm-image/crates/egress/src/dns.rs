//! DNS servers that lead to the host's resolver over one stream: for this system and for its containers.
//!
//! Queries get numbers of ours on the way, because those of different clients may be the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use caisson_guest_proto::{EgressRequest, MAX_MESSAGE, read_message, write_message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::host::{Flow, Host, ask};
use crate::link::ADDRESS_V4;

/// For this system's programs, and for containers, which have a loopback of their own.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, ADDRESS_V4];
const PORT: u16 = 53;
/// How long an answer may take; clients have asked again by then.
const LIMIT: Duration = Duration::from_secs(20);
/// A TCP client that asks nothing more is left.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);
/// Queries that wait for the stream.
const WAITING: usize = 64;
/// Clients by TCP at once.
const MAX_CLIENTS: usize = 256;
/// Before a host that could not be asked is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// What a client takes by UDP if it does not say (RFC 1035, section 4.2.1).
const SHORT: usize = 512;
const HEADER: usize = 12;

/// The sockets.
pub(crate) struct Listeners(Vec<(UdpSocket, TcpListener)>);

impl Listeners {
    pub(crate) fn bind() -> io::Result<Self> {
        ADDRESSES.into_iter().map(bind).collect::<io::Result<_>>().map(Self)
    }
}

fn bind(address: Ipv4Addr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = std::net::UdpSocket::bind((address, PORT))?;
    let tcp = std::net::TcpListener::bind((address, PORT))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

/// A query with where its answer goes.
struct Asked {
    query: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

/// Answers all clients.
pub(crate) async fn serve<H: Host>(listeners: Listeners, host: H) {
    let (ask, asked) = mpsc::channel(WAITING);
    for (udp, tcp) in listeners.0 {
        tokio::task::spawn_local(by_udp(Rc::new(udp), ask.clone()));
        tokio::task::spawn_local(by_tcp(tcp, ask.clone()));
    }
    relay(host, asked).await;
}

async fn by_udp(socket: Rc<UdpSocket>, ask: mpsc::Sender<Asked>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (query, socket, ask) = (buffer[..length].to_vec(), socket.clone(), ask.clone());
        // More than wait already are lost; clients ask again.
        if ask.capacity() > 0 {
            tokio::task::spawn_local(async move { answer_udp(query, &socket, from, &ask).await });
        }
    }
}

async fn answer_udp(query: Vec<u8>, socket: &UdpSocket, from: SocketAddr, ask: &mpsc::Sender<Asked>) {
    let room = room(&query);
    if let Some(mut answer) = answer(query, ask).await {
        if answer.len() > room {
            cut(&mut answer);
        }
        // A client that is gone needs no answer.
        let _ = socket.send_to(&answer, from).await;
    }
}

async fn by_tcp(listener: TcpListener, ask: mpsc::Sender<Asked>) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        if clients.len() >= MAX_CLIENTS {
            clients.join_next().await;
        }
        match listener.accept().await {
            Ok((client, _)) => {
                let ask = ask.clone();
                clients.spawn_local(async move { drop(answer_tcp(client, &ask).await) });
            }
            Err(_) => sleep(PAUSE).await,
        }
        while clients.try_join_next().is_some() {}
    }
}

async fn answer_tcp(mut client: TcpStream, ask: &mpsc::Sender<Asked>) -> io::Result<()> {
    loop {
        let read = async {
            let mut query = vec![0; client.read_u16().await?.into()];
            client.read_exact(&mut query).await?;
            Ok::<_, io::Error>(query)
        };
        let query = timeout(CLIENT_LIMIT, read).await??;
        let Some(answer) = answer(query, ask).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        client.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

async fn answer(query: Vec<u8>, ask: &mpsc::Sender<Asked>) -> Option<Vec<u8>> {
    let id = *query.first_chunk::<2>()?;
    let (sender, answered) = oneshot::channel();
    ask.send(Asked { query, answer: sender }).await.ok()?;
    let mut answer = timeout(LIMIT, answered).await.ok()?.ok()?;
    answer.first_chunk_mut::<2>()?.copy_from_slice(&id);
    Some(answer)
}

/// Keeps a stream to the host, opened when there is something to ask.
async fn relay<H: Host>(host: H, mut asked: mpsc::Receiver<Asked>) {
    while let Some(first) = asked.recv().await {
        match ask(&host, EgressRequest::Dns).await {
            Ok(flow) => {
                if let Err(error) = converse::<H>(flow, first, &mut asked).await {
                    tracing::debug!(%error, "the stream to the host's resolver broke");
                }
            }
            // Who asked gets no answer and asks again.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Sends queries and gives answers to whom they belong until the stream breaks; those who wait then ask again.
async fn converse<H: Host>(flow: Flow<H>, first: Asked, asked: &mut mpsc::Receiver<Asked>) -> io::Result<()> {
    let (mut from_host, mut to_host) = split(flow);
    let waiting = RefCell::new(Waiting::default());
    let questions = async {
        let mut next = Some(first);
        while let Some(Asked { mut query, answer }) = next {
            let Some(id) = query.first_chunk_mut::<2>() else { break };
            *id = waiting.borrow_mut().add(answer).to_be_bytes();
            write_message(&mut to_host, &query).await?;
            next = asked.recv().await;
        }
        Ok(())
    };
    let answers = async {
        let mut answer = Vec::new();
        while read_message(&mut from_host, &mut answer).await? {
            if let Some(id) = answer.first_chunk::<2>() {
                let sender = waiting.borrow_mut().by_id.remove(&u16::from_be_bytes(*id));
                // Who waited too long is gone.
                sender.map(|sender| sender.send(std::mem::take(&mut answer)).is_ok());
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = questions => ended,
        ended = answers => ended,
    }
}

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    by_id: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    last: u16,
}

impl Waiting {
    /// Numbers a query. Those that nobody waits for any more are forgotten when their number comes again.
    fn add(&mut self, answer: oneshot::Sender<Vec<u8>>) -> u16 {
        self.last = self.last.wrapping_add(1);
        self.by_id.retain(|_, waiting| !waiting.is_closed());
        self.by_id.insert(self.last, answer);
        self.last
    }
}

/// How long an answer by UDP may be: what an OPT record at the query's end says (RFC 6891, section 6.1.2).
fn room(query: &[u8]) -> usize {
    let counts = query.get(4..HEADER);
    // One question, nothing else but one additional record: what every resolver sends. Without a name, an OPT record
    // has 11 bytes and its options.
    let plain = counts == Some(&[0, 1, 0, 0, 0, 0, 0, 1]);
    let opt = question_end(query).filter(|_| plain).and_then(|end| query.get(end..end + 5));
    match opt {
        Some([0, 0, 41, high, low]) => usize::from(u16::from_be_bytes([*high, *low])).max(SHORT),
        _ => SHORT,
    }
}

fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 5),
            length @ 1..64 => at += 1 + length,
            _ => return None,
        }
    }
}

/// Leaves the question, and says that there is more (TC): the client asks again by TCP.
fn cut(answer: &mut Vec<u8>) {
    match question_end(answer) {
        Some(end) if end <= answer.len() => answer.truncate(end),
        _ => answer.truncate(HEADER),
    }
    let questions = u8::from(answer.len() > HEADER);
    if let Some(header) = answer.first_chunk_mut::<HEADER>() {
        header[2] |= 0x02;
        header[4..].copy_from_slice(&[0, questions, 0, 0, 0, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";

    #[test]
    fn the_room_is_what_the_client_says() {
        assert_eq!(room(QUERY), SHORT);
        let mut with_opt = QUERY.to_vec();
        with_opt[11] = 1;
        with_opt.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(room(&with_opt), 4096);
        with_opt[QUERY.len() + 3] = 0;
        assert_eq!(room(&with_opt), SHORT);
    }

    #[test]
    fn a_cut_answer_has_its_question_and_says_so() {
        let mut answer = QUERY.to_vec();
        answer[7] = 9;
        answer.resize(4000, 0xaa);
        cut(&mut answer);
        assert_eq!(answer.len(), QUERY.len());
        assert_eq!((answer[2] & 2, &answer[4..12]), (2, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
    }

    proptest! {
        #[test]
        fn no_message_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            assert!(room(&bytes) >= SHORT);
            let mut answer = bytes.clone();
            cut(&mut answer);
            assert!(answer.len() <= bytes.len());
        }
    }
}
