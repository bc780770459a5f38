//! Asking others.
//!
//! A question is passed on as it came, under a number and from a port of its own, to one server after the other until
//! one answers; one that failed, or that refuses, has not. Answers are passed back as they came, too: what we do not understand of them is not ours to lose.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caisson_sys::netns::{self, Netns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::Outside;
use super::cache::Cache;
use super::message::{self, Answer, Question};

/// How long one server may take; as dockerd's.
const PATIENCE: Duration = Duration::from_secs(4);

/// Questions that wait for others at once, of all containers; as dockerd's. More are told that it failed.
const MOST: usize = 1024;

/// The largest answer over UDP, in bytes.
const LARGEST: usize = 65_535;

const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How a question came, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The name servers of this system, and what they said.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<IpAddr>,
    cache: Cache,
    waiting: Arc<Semaphore>,
}

impl Upstreams {
    pub(super) fn new(servers: Vec<IpAddr>) -> Self {
        Self { servers, cache: Cache::default(), waiting: Arc::new(Semaphore::new(MOST)) }
    }

    /// The answer of others; `None` if nobody has one.
    pub(super) async fn ask(
        &self,
        question: &Question,
        bytes: &[u8],
        transport: Transport,
        outside: &Outside,
    ) -> Option<Vec<u8>> {
        let id = message::id(bytes)?;
        let (servers, netns) = match outside {
            Outside::Nobody => return None,
            Outside::Ours => (self.servers(), None),
            Outside::Chosen(servers, netns) => (servers.clone(), Some(netns.as_path())),
        };
        // What servers of a container's own say is said to that container only.
        let key = question.key();
        let shared = netns.is_none();
        if let Some(known) = Some(&key).filter(|_| shared).and_then(|k| self.cache.get(k, id, Instant::now()))
        {
            return Some(known);
        }
        let _permit = self.waiting.try_acquire().ok()?;
        let servers = servers.into_iter().map(|server| SocketAddr::new(server, PORT));
        let (mut answer, read) = ask_each(servers, netns, bytes, transport, question).await?;
        if shared {
            self.cache.put(key, answer.clone(), read.lasts, Instant::now());
        }
        message::set_id(&mut answer, id);
        Some(answer)
    }

    /// Read each time: a laptop that changes its network changes them.
    fn servers(&self) -> Vec<IpAddr> {
        if !self.servers.is_empty() {
            return self.servers.clone();
        }
        of_text(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
    }
}

/// The answer of the first server that knows one way or the other; else the last word of those that could not say.
async fn ask_each(
    servers: impl Iterator<Item = SocketAddr>,
    netns: Option<&Path>,
    bytes: &[u8],
    transport: Transport,
    question: &Question,
) -> Option<(Vec<u8>, Answer)> {
    let mut last = None;
    for server in servers {
        match timeout(PATIENCE, exchange(server, netns, bytes, transport, question)).await {
            Ok(Ok((answer, read))) if read.failed => {
                debug!(%server, "a name server failed or refused to answer");
                last = Some((answer, read));
            }
            Ok(Ok(answered)) => return Some(answered),
            Ok(Err(error)) => debug!(%server, %error, "a name server could not be asked"),
            Err(_) => debug!(%server, "a name server does not answer"),
        }
    }
    last
}

/// The servers of a resolv.conf(5).
fn of_text(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

async fn exchange(
    server: SocketAddr,
    netns: Option<&Path>,
    question: &[u8],
    transport: Transport,
    asked: &Question,
) -> io::Result<(Vec<u8>, Answer)> {
    let id = rand::random::<u16>();
    let mut bytes = question.to_vec();
    message::set_id(&mut bytes, id);
    match transport {
        Transport::Udp => over_udp(server, netns, &bytes, id, asked).await,
        Transport::Tcp => over_tcp(server, netns, &bytes, id, asked).await,
    }
}

async fn over_udp(
    server: SocketAddr,
    netns: Option<&Path>,
    bytes: &[u8],
    id: u16,
    asked: &Question,
) -> io::Result<(Vec<u8>, Answer)> {
    let any = any_like(server);
    let socket = inside(netns, move || std::net::UdpSocket::bind(any)).await?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        // Whoever guesses the port has to guess the number and the question, too.
        if message::id(answer) == Some(id)
            && let Some(read) = Answer::read(answer, asked)
        {
            return Ok((answer.to_vec(), read));
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    netns: Option<&Path>,
    bytes: &[u8],
    id: u16,
    asked: &Question,
) -> io::Result<(Vec<u8>, Answer)> {
    let socket = inside(netns, move || {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        Ok(socket)
    });
    let mut stream = socket.await?.connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    let read = Answer::read(&answer, asked).filter(|_| message::id(&answer) == Some(id));
    Ok((answer, read.ok_or_else(|| io::Error::other("an answer to another question"))?))
}

fn any_like(server: SocketAddr) -> SocketAddr {
    if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Makes a socket in this namespace.
async fn inside<T: Send + 'static>(
    netns: Option<&Path>,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(path) = netns.map(Path::to_owned) else { return make() };
    let runtime = tokio::runtime::Handle::current();
    crate::networks::blocking(move || {
        netns::enter(&Netns::open(&path)?, || {
            let _context = runtime.enter();
            make()
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, Query, ResponseCode};
    use hickory_proto::rr::Name;

    use super::*;

    /// A server that says the same to everybody.
    async fn server(code: ResponseCode) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Question::read(&buffer[..length]).unwrap();
                let mut answer = question.failure();
                answer.metadata.response_code = code;
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        at
    }

    #[tokio::test]
    async fn a_server_that_fails_is_not_the_last_word_while_there_are_others() {
        let mut message = Message::query();
        let mut query = Query::new();
        query.name = Name::from_utf8("example.org.").unwrap();
        message.add_query(query);
        let bytes = message.to_vec().unwrap();
        let question = Question::read(&bytes).unwrap();
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        for (codes, expected) in [
            (vec![ServFail, NoError], NoError),
            (vec![Refused, ServFail, NXDomain, NoError], NXDomain),
            (vec![ServFail, Refused], Refused),
        ] {
            let mut servers = Vec::new();
            for code in codes {
                servers.push(server(code).await);
            }
            let asked = ask_each(servers.into_iter(), None, &bytes, Transport::Udp, &question).await;
            let (answer, read) = asked.unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, expected);
            assert_eq!(read.lasts, 0, "there is nothing in it to remember");
        }
    }

    #[test]
    fn servers_are_read_as_resolvers_read_them() {
        let text = "# x\nnameserver 10.0.0.2\n nameserver\tfd00::1 \nnameserver bad\nsearch lan\n";
        assert_eq!(of_text(text), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
