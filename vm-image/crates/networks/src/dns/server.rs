//! One container's server: a UDP and a TCP socket in its namespace.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::Names;
use super::message::{Question, Wanted};
use super::upstream::{Transport, Upstreams};

/// Questions of one container that are being answered at once; more wait in its socket.
const MOST: usize = 256;

/// Connections of one container at once.
const MOST_CONNECTIONS: usize = 64;

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// The largest question, in bytes.
const LARGEST: usize = 65_535;

/// Both, bound.
pub(super) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Sockets {
    /// Binds both in the calling thread's namespace.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = (std::net::UdpSocket::bind(address)?, std::net::TcpListener::bind(address)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Their numbers.
    pub(super) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.udp.local_addr()?.port(), self.tcp.local_addr()?.port()))
    }
}

/// Who answers.
struct Server {
    container: String,
    names: Arc<dyn Names>,
    upstreams: Arc<Upstreams>,
}

/// Serves until `tasks` is dropped.
pub(super) fn serve(
    sockets: Sockets,
    container: String,
    names: Arc<dyn Names>,
    upstreams: Arc<Upstreams>,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let (udp, tcp) = (UdpSocket::from_std(sockets.udp)?, TcpListener::from_std(sockets.tcp)?);
    let server = Arc::new(Server { container, names, upstreams });
    tasks.spawn(serve_udp(udp, Arc::clone(&server)));
    tasks.spawn(serve_tcp(tcp, server));
    Ok(())
}

async fn serve_udp(socket: UdpSocket, server: Arc<Server>) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(MOST));
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while answering.try_join_next().is_some() {}
        // An earlier answer that did not reach its asker shows here, and says nothing of the next question.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let (bytes, server, socket) = (buffer[..length].to_vec(), Arc::clone(&server), Arc::clone(&socket));
        answering.spawn(async move {
            if let Some(answer) = server.answer(&bytes, Transport::Udp).await {
                // An asker who has gone needs no answer.
                let _ = socket.send_to(&answer, client).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, server: Arc<Server>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &server).await {
                        debug!(%error, "a connection for names failed");
                    }
                    drop(permit);
                });
            }
            // A lack of descriptors passes only with time.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers the questions of one connection, each with its length before it (RFC 1035, section 4.2.2).
async fn converse(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let Ok(length) = timeout(IDLE, stream.read_u16()).await else { return Ok(()) };
        let length = match length {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => length?,
        };
        let mut bytes = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut bytes)).await??;
        let Some(answer) = server.answer(&bytes, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}

impl Server {
    /// `None` for what is no question, and for what cannot be answered at all.
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Question::read(bytes)?;
        let own = match question.wanted() {
            Wanted::Addresses(name) => {
                self.names.find(&self.container, &name).map(|found| question.answer(&found))
            }
            Wanted::NameOf(address) => {
                let name = self.names.name_of(&self.container, address);
                name.and_then(|name| question.answer_name(&name))
            }
            Wanted::Other => None,
        };
        let answer = match own {
            Some(answer) => answer.to_vec().ok()?,
            None => {
                let outside = self.names.outside(&self.container);
                match self.upstreams.ask(&question, bytes, transport, &outside).await {
                    Some(answer) => answer,
                    None => question.failure().to_vec().ok()?,
                }
            }
        };
        Some(if transport == Transport::Udp { question.for_udp(answer) } else { answer })
    }
}
