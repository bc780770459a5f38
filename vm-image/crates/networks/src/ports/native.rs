//! Ports of this system: bound here, and the bytes of what the firewall does not lead to the containers are copied to them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caisson_guest_proto::datagrams::Datagrams;
use caisson_guest_proto::{PortForward, PortProtocol, PublishRefused, RefusalCode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};

use super::{PublishError, datagrams, holder, relay};

/// How many connections may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long accepting rests when this process has no descriptors left.
const REST: Duration = Duration::from_millis(100);

/// The listeners, by key. They end with it.
#[derive(Debug, Default)]
pub(super) struct Native(Mutex<HashMap<String, Listening>>);

/// A port that is served until it is told to end, or this is dropped.
#[derive(Debug)]
struct Listening {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Listening {
    /// Ends it. The port is free when this returns.
    async fn end(self) {
        drop(self.end);
        // A panic was reported where it happened.
        let _ = self.task.await;
    }
}

impl Native {
    /// Binds a port and starts to serve it. Returns the bound number.
    pub(super) async fn open(&self, forward: PortForward) -> Result<u16, PublishError> {
        let wanted = SocketAddr::new(forward.host_ip, forward.host_port);
        match start(wanted, &forward) {
            Ok((listening, bound)) => {
                self.listeners().insert(forward.key, listening);
                Ok(bound)
            }
            Err(error) => {
                let refused = refusal(error, wanted, forward.protocol).await;
                Err(PublishError::refused(&forward, refused))
            }
        }
    }

    /// Closes ports and drops their connections; they are free when this returns.
    pub(super) async fn close(&self, keys: impl Iterator<Item = &str>) {
        for key in keys {
            let listening = self.listeners().remove(key);
            if let Some(listening) = listening {
                listening.end().await;
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<String, Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(address: SocketAddr, forward: &PortForward) -> io::Result<(Listening, u16)> {
    let target = forward.target;
    let (end, told) = oneshot::channel();
    let (task, bound) = match forward.protocol {
        PortProtocol::Tcp => {
            let socket = bind_socket(address, SocketType::STREAM)?;
            listen(&socket, BACKLOG)?;
            let listener = std::net::TcpListener::from(socket);
            let bound = listener.local_addr()?.port();
            (tokio::spawn(accept(TcpListener::from_std(listener)?, target, told)), bound)
        }
        PortProtocol::Udp => {
            let socket = std::net::UdpSocket::from(bind_socket(address, SocketType::DGRAM)?);
            let bound = socket.local_addr()?.port();
            let socket = Datagrams::new(UdpSocket::from_std(socket)?)?;
            (tokio::spawn(converse(socket, target, told)), bound)
        }
    };
    Ok((Listening { task, end }, bound))
}

fn bind_socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if kind == SocketType::STREAM {
        // Connections of the last listener that are still closing do not hold up the next one; another listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// The system's refusal, with the process that is in the way.
async fn refusal(error: io::Error, wanted: SocketAddr, protocol: PortProtocol) -> PublishRefused {
    let (code, message) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => (RefusalCode::InUse, "address already in use".to_owned()),
        Some(Errno::ACCESS | Errno::PERM) => (RefusalCode::NotPermitted, "permission denied".to_owned()),
        Some(Errno::ADDRNOTAVAIL) => {
            (RefusalCode::NotAvailable, "cannot assign requested address".to_owned())
        }
        Some(Errno::AFNOSUPPORT) => {
            (RefusalCode::NotAvailable, "address family not supported by protocol".to_owned())
        }
        _ => (RefusalCode::Other, error.to_string()),
    };
    let holder = match code {
        RefusalCode::InUse => {
            tokio::task::spawn_blocking(move || holder::find(wanted, protocol)).await.ok().flatten()
        }
        _ => None,
    };
    PublishRefused { code, message, holder }
}

/// Serves a TCP port.
async fn accept(listener: TcpListener, target: SocketAddr, told: oneshot::Receiver<()>) {
    tokio::select! {
        () = serve(listener, target) => {}
        _ = told => {}
    }
}

/// Serves a UDP port. Each conversation has the socket, so the port is free only when all have ended.
async fn converse(socket: Datagrams, target: SocketAddr, told: oneshot::Receiver<()>) {
    let mut talks = JoinSet::new();
    tokio::select! {
        () = datagrams::serve(&mut talks, socket, target) => {}
        _ = told => {}
    }
    talks.shutdown().await;
}

/// Accepts until it is dropped; its connections end with it.
async fn serve(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connect(client, target))),
                Err(error) => rest_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection that died in the queue costs nothing; a lack of descriptors passes only with time.
async fn rest_after(error: &io::Error) {
    let gone = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !gone {
        warn!(%error, "published port cannot accept");
        tokio::time::sleep(REST).await;
    }
}

async fn connect(client: TcpStream, target: SocketAddr) {
    let relayed = match TcpStream::connect(target).await {
        Ok(container) => relay::run(&client, &container).await,
        Err(error) => Err(error),
    };
    if let Err(error) = relayed {
        debug!(%target, %error, "connection to a published port failed");
        relay::reset(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this runtime's threads one may serve the port while another one has a conversation.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_udp_port_with_conversations_is_free_when_it_is_closed() {
        const CONVERSATIONS: usize = 100;
        let container = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forward = PortForward {
            key: "c0ffee/0".into(),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 0,
            protocol: PortProtocol::Udp,
            target: container.local_addr().unwrap(),
        };
        let native = Native::default();
        for _ in 0..10 {
            let port = native.open(forward.clone()).await.unwrap();
            for _ in 0..CONVERSATIONS {
                let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                client.send_to(b"question", ("127.0.0.1", port)).await.unwrap();
                container.recv_from(&mut [0; 16]).await.unwrap();
            }
            native.close(["c0ffee/0"].into_iter()).await;
            UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        }
    }
}
