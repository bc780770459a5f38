//! Queries that the system's call cannot answer, asked of the name servers that the system names.
//!
//! Each goes on under a number of its own that nobody can foresee, and only a reply to its question counts: else whoever
//! sends enough of them in time could answer for the server.

use super::message::{Code, Query};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// How long one server may take to answer.
const LIMIT: Duration = Duration::from_secs(4);

/// Queries that wait for servers at once. More are told that it failed: servers that do not answer hold up nobody else.
const MAX_ASKED: usize = 32;

/// Asks the system's servers.
#[derive(Debug)]
pub(super) struct Upstream {
    room: Semaphore,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { room: Semaphore::new(MAX_ASKED) }
    }
}

impl Upstream {
    /// The reply of the first server that has one; else what is to be answered instead.
    pub(super) async fn ask(&self, query: &Query<'_>, bytes: &[u8]) -> Result<Vec<u8>, Code> {
        self.ask_each(caisson_os::name_servers(), query, bytes).await
    }

    async fn ask_each(
        &self,
        servers: Vec<SocketAddr>,
        query: &Query<'_>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Code> {
        if servers.is_empty() {
            return Err(Code::NotImplemented);
        }
        let _room = self.room.try_acquire().map_err(|_| Code::Failed)?;
        for server in servers {
            match timeout(LIMIT, ask_one(server, query, bytes)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
                Err(_) => tracing::debug!(%server, "a name server does not answer"),
            }
        }
        Err(Code::Failed)
    }
}

/// The reply, under the query's own number.
async fn ask_one(server: SocketAddr, query: &Query<'_>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let id = rand::random::<u16>();
    let own = numbered(bytes, id.to_be_bytes());
    let reply = by_udp(server, query, id, &own).await?;
    let is_cut = reply[2] & 0x02 != 0;
    let reply = if is_cut { by_tcp(server, query, id, &own).await? } else { reply };
    Ok(numbered(&reply, [bytes[0], bytes[1]]))
}

/// The same message under another number.
fn numbered(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    [&id[..], &message[2..]].concat()
}

async fn by_udp(server: SocketAddr, query: &Query<'_>, id: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut reply = vec![0; u16::MAX.into()];
    loop {
        let length = socket.recv(&mut reply).await?;
        if query.is_answered_by(id, &reply[..length]) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &Query<'_>, id: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    if query.is_answered_by(id, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::other("a reply to another question"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Answer, query};
    use super::*;

    /// The type of mail servers' records.
    const MX: u16 = 15;

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    #[tokio::test]
    async fn a_query_goes_on_under_another_number_and_only_its_reply_comes_back() {
        let (server, at) = socket().await;
        let serving = async {
            let mut numbers = Vec::new();
            for _ in 0..8 {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                let asked = Query::parse(&buffer[..length]).unwrap();
                let id = [buffer[0], buffer[1]];
                let other = query(u16::from_be_bytes(id), "example.com", MX);
                let other = Query::parse(&other).unwrap().answer(&Answer::of(Code::NoSuchName));
                let reply = asked.answer(&Answer::of(Code::Fine));
                for wrong in [&buffer[..length], &other, &numbered(&reply, [!id[0], id[1]])] {
                    server.send_to(wrong, from).await.unwrap();
                }
                server.send_to(&reply, from).await.unwrap();
                numbers.push(u16::from_be_bytes(id));
            }
            numbers
        };
        let asking = async {
            let upstream = Upstream::default();
            for _ in 0..8 {
                let bytes = query(7, "example.org", MX);
                let query = Query::parse(&bytes).unwrap();
                let reply = upstream.ask_each(vec![at], &query, &bytes).await.unwrap();
                assert_eq!(reply, query.answer(&Answer::of(Code::Fine)));
            }
        };
        let (numbers, ()) = tokio::join!(serving, asking);
        let steps: Vec<u16> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.iter().any(|step| *step != steps[0]), "{numbers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_do_not_answer_fail_and_hold_up_nobody_else() {
        let (_silent, at) = socket().await;
        let upstream = Upstream::default();
        let bytes = query(7, "example.org", MX);
        let query = Query::parse(&bytes).unwrap();
        assert_eq!(upstream.ask_each(Vec::new(), &query, &bytes).await, Err(Code::NotImplemented));
        assert_eq!(upstream.ask_each(vec![at], &query, &bytes).await, Err(Code::Failed));

        let _all = upstream.room.try_acquire_many(u32::try_from(MAX_ASKED).unwrap()).unwrap();
        let before = tokio::time::Instant::now();
        assert_eq!(upstream.ask_each(vec![at], &query, &bytes).await, Err(Code::Failed));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
