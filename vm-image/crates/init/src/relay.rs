//! Streams between the host and what runs in the machine: the engine, containers, and the engine's way to the host.

mod datagrams;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use caisson_egress::clients;
use caisson_guest_proto::{
    Duplex, GUEST_API, GUEST_ENGINE_SOCKET, GUEST_PORTS_SOCKET, GUEST_RELAY, GuestVsockPort, HOST_PORTS,
    RelayProtocol, RelayRefusal, RelayReply, RelayRequest, copy, read_frame, write_frame,
};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::vsock::{VsockListener, VsockStream};

/// How long a stream to the engine waits for an engine that is being started again.
const ENGINE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a host may take to say where a relayed stream is to go.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection inside the machine may take. There is no network between: a container that takes longer
/// drops packets.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A pause after an accept that failed, for lack of descriptors for instance, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts to listen on all of them. `answering` says whether the engine answers.
pub(crate) fn start(answering: watch::Receiver<bool>) -> anyhow::Result<()> {
    serve(GUEST_API, move |stream| api(stream, answering.clone()))?;
    serve(GUEST_RELAY, relay)?;
    let listener =
        bind(GUEST_PORTS_SOCKET).with_context(|| format!("could not listen on {GUEST_PORTS_SOCKET}"))?;
    tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((engine, _)) => spawn("ports", ports(engine)),
                Err(error) => pause("ports", &error).await,
            }
        }
    });
    Ok(())
}

fn bind(path: &str) -> io::Result<UnixListener> {
    if let Some(dir) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(dir)?;
    }
    UnixListener::bind(path)
}

/// Serves each of the host's connections to a port in a task of its own.
fn serve<F>(port: GuestVsockPort, serve: impl Fn(VsockStream) -> F + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let listener =
        VsockListener::bind(port).with_context(|| format!("could not listen on vsock port {}", port.0))?;
    tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok(stream) => spawn("relay", serve(stream)),
                Err(error) => pause("vsock", &error).await,
            }
        }
    });
    Ok(())
}

/// A stream that ends in an error is everyday life: the other side hung up. It is the streams' business, not the log's.
fn spawn(what: &'static str, stream: impl Future<Output = anyhow::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = stream.await {
            tracing::debug!("a {what} stream ended: {error:#}");
        }
    });
}

async fn pause(what: &str, error: &io::Error) {
    tracing::warn!("could not accept a {what} connection: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The host to the engine. While there is no engine the stream waits for the next.
async fn api(stream: VsockStream, mut answering: watch::Receiver<bool>) -> anyhow::Result<()> {
    timeout(ENGINE_DEADLINE, answering.wait_for(|up| *up)).await.context("the engine does not answer")??;
    let mut engine = UnixStream::connect(GUEST_ENGINE_SOCKET).await?;
    Ok(copy::both_ways(&mut Duplex::new(stream), &mut engine).await?)
}

/// The host to an address inside the machine.
async fn relay(stream: VsockStream) -> anyhow::Result<()> {
    let mut host = Duplex::new(stream);
    let request = timeout(REQUEST_DEADLINE, read_frame(&mut host)).await.context("no request came")??;
    match request {
        Some(RelayRequest { address, protocol: RelayProtocol::Tcp, client }) => {
            match connect(address, client).await {
                Ok(mut container) => {
                    write_frame(&mut host, &RelayReply::Connected).await?;
                    Ok(copy::both_ways(&mut host, &mut container).await?)
                }
                Err(error) => refuse(host, &error).await,
            }
        }
        Some(RelayRequest { address, protocol: RelayProtocol::Udp, client }) => {
            match clients::datagrams(address, client).await {
                Ok(container) => {
                    write_frame(&mut host, &RelayReply::Connected).await?;
                    Ok(datagrams::carry(host, &container).await?)
                }
                Err(error) => refuse(host, &error).await,
            }
        }
        None => Ok(()),
    }
}

async fn refuse(mut host: Duplex<VsockStream>, error: &io::Error) -> anyhow::Result<()> {
    let refused = RelayReply::Refused { kind: refusal(error), message: error.to_string() };
    Ok(write_frame(&mut host, &refused).await?)
}

async fn connect(address: SocketAddr, client: Option<SocketAddr>) -> io::Result<TcpStream> {
    let connected = timeout(CONNECT_DEADLINE, clients::connect(address, client)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // What comes from the host comes in the pieces in which it was sent; waiting to join them only delays answers.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn refusal(error: &io::Error) -> RelayRefusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => RelayRefusal::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => RelayRefusal::Unreachable,
        io::ErrorKind::TimedOut => RelayRefusal::TimedOut,
        _ => RelayRefusal::Other,
    }
}

/// The engine to the host's table of published ports.
async fn ports(mut engine: UnixStream) -> anyhow::Result<()> {
    let host = VsockStream::connect(HOST_PORTS).await?;
    Ok(copy::both_ways(&mut engine, &mut Duplex::new(host)).await?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_told_as_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(refusal(&connect(address, None).await.unwrap_err()), RelayRefusal::Refused);
    }

    #[test]
    fn kinds_of_refusal_are_told_apart() {
        for (kind, told) in [
            (io::ErrorKind::HostUnreachable, RelayRefusal::Unreachable),
            (io::ErrorKind::NetworkUnreachable, RelayRefusal::Unreachable),
            (io::ErrorKind::TimedOut, RelayRefusal::TimedOut),
            (io::ErrorKind::PermissionDenied, RelayRefusal::Other),
        ] {
            assert_eq!(refusal(&kind.into()), told);
        }
    }

    #[tokio::test]
    async fn a_half_close_goes_through_and_the_answer_comes_back() {
        let (near, far) = tokio::io::duplex(64);
        let (mut service, service_end) = UnixStream::pair().unwrap();
        let relayed = async {
            let mut service_end = service_end;
            copy::both_ways(&mut Duplex::new(far), &mut service_end).await
        };
        let served = async {
            let mut asked = String::new();
            service.read_to_string(&mut asked).await.unwrap();
            service.write_all(asked.to_uppercase().as_bytes()).await.unwrap();
            drop(service);
        };
        let asked = async {
            let mut host = Duplex::new(near);
            host.write_all(b"what?").await.unwrap();
            host.shutdown().await.unwrap();
            let mut answer = String::new();
            host.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (relayed, (), answer) = tokio::join!(relayed, served, asked);
        relayed.unwrap();
        assert_eq!(answer, "WHAT?");
    }

    #[tokio::test]
    async fn an_answer_to_a_request_that_is_not_read_to_its_end_comes_back() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (service, mut service_end) = UnixStream::pair().unwrap();
        let relayed = async { copy::both_ways(&mut Duplex::new(far), &mut service_end).await };
        let served = async {
            let (mut reads, mut writes) = service.into_split();
            reads.read_exact(&mut [0; 10]).await.unwrap();
            drop(reads);
            writes.write_all(b"no").await.unwrap();
            drop(writes);
        };
        let asked = async {
            let (mut reads, mut writes) = tokio::io::split(Duplex::new(near));
            let send_for_ever = async {
                while writes.write_all(&[7; 4096]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                std::future::pending().await
            };
            let mut answer = [0; 2];
            tokio::select! {
                read = reads.read_exact(&mut answer) => read.unwrap(),
                () = send_for_ever => unreachable!(),
            };
            answer
        };
        // Closing with unread input resets the connection, behind the answer: how the relay ends is not the point here.
        let ((), _, answer) = tokio::join!(served, relayed, asked);
        assert_eq!(&answer, b"no");
    }
}
