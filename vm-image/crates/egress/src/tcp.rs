//! Connections: held, decided, carried.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use caisson_guest_proto::{EgressRefusal, EgressRequest, Tcp as Connected, copy};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::decided::{Decided, Ends, Stage};
use crate::flows::{Flows, Place};
use crate::host::{Flow, Host, ask};
use crate::keepalive;
use crate::queue::{Queue, Verdict};
use crate::rules;

/// As many connections as may be finished by the kernel and not yet taken here.
const BACKLOG: i32 = 4096;
/// A pause after an accept that failed, for lack of descriptors for instance, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The proxy's sockets.
pub(crate) struct Listeners {
    v4: TcpListener,
    /// A kernel without IPv6 has none.
    v6: Option<TcpListener>,
}

impl Listeners {
    pub(crate) fn bind() -> io::Result<Self> {
        let v4 = listen((Ipv4Addr::LOCALHOST, rules::PROXY_PORT).into())?;
        let v6 = listen((Ipv6Addr::LOCALHOST, rules::PROXY_PORT).into())
            .inspect_err(|error| tracing::warn!(%error, "no IPv6 connection leaves the machine"));
        Ok(Self { v4, v6: v6.ok() })
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    if at.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    keepalive::set(&socket)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// All connections.
pub(crate) struct Tcp<H: Host> {
    host: H,
    queue: Rc<Queue>,
    flows: Flows,
    decided: Decided<(Flow<H>, Place)>,
}

impl<H: Host> Tcp<H> {
    pub(crate) fn new(host: H, queue: Rc<Queue>, flows: Flows) -> Rc<Self> {
        Rc::new(Self { host, queue, flows, decided: Decided::default() })
    }

    /// The first packet of a connection, held by the kernel.
    pub(crate) fn hold(self: &Rc<Self>, packet: u32, from: SocketAddr, to: SocketAddr) {
        let ends = (from, to);
        match self.decided.stage(&ends) {
            // Sent again while the first one waits.
            Some(Stage::Asked) => return self.queue.tell(packet, Verdict::Drop),
            Some(Stage::Open) => return self.queue.tell(packet, Verdict::Mark(rules::PROXIED)),
            None => {}
        }
        let Some(place) = self.flows.enter(from.ip()) else {
            return self.queue.tell(packet, Verdict::Drop);
        };
        self.decided.ask(ends);
        let tcp = self.clone();
        tokio::task::spawn_local(async move { tcp.decide(packet, ends, place).await });
    }

    async fn decide(self: Rc<Self>, packet: u32, ends: Ends, mut place: Place) {
        let asked = place.wait(ask(&self.host, EgressRequest::Tcp { to: ends.1 })).await;
        match asked.unwrap_or(Err(EgressRefusal::TimedOut)) {
            Ok(flow) => {
                let gone = self.decided.open(ends, (flow, place));
                self.queue.tell(packet, Verdict::Mark(rules::PROXIED));
                self.decided.expire(ends, gone).await;
            }
            Err(refusal) => {
                self.decided.forget(&ends);
                self.queue.tell(packet, verdict(refusal));
            }
        }
    }

    /// Takes the connections that the guest's side has finished.
    pub(crate) async fn accept(self: &Rc<Self>, listeners: Listeners) {
        let v6 = async {
            if let Some(listener) = &listeners.v6 {
                self.accept_from(listener).await;
            }
        };
        tokio::join!(self.accept_from(&listeners.v4), v6);
    }

    async fn accept_from(self: &Rc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    let tcp = self.clone();
                    tokio::task::spawn_local(async move { tcp.carry(socket, from).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection that leaves the machine");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn carry(&self, socket: TcpStream, from: SocketAddr) {
        // The local address of a socket behind the proxy rule is where the connection was to go.
        let decided = socket.local_addr().ok().and_then(|to| {
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            self.decided.take(&(plain(from), plain(to)))
        });
        let Some((mut flow, place)) = decided else { return reset(&socket) };
        let _ = socket.set_nodelay(true);
        if copy::both_ways_or_neither(&mut Connected::new(&socket), &mut flow).await.is_err() {
            reset(&socket);
        }
        drop(place);
    }
}

/// What is closed after this is reset.
fn reset(socket: &TcpStream) {
    // One that is gone already needs none.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// What the guest's kernel is to tell.
pub(crate) fn verdict(refusal: EgressRefusal) -> Verdict {
    match refusal {
        EgressRefusal::Refused => Verdict::Mark(rules::REFUSED),
        EgressRefusal::HostUnreachable | EgressRefusal::Other => Verdict::Mark(rules::HOST_UNREACHABLE),
        EgressRefusal::NetworkUnreachable => Verdict::Mark(rules::NO_ROUTE),
        EgressRefusal::Prohibited => Verdict::Mark(rules::PROHIBITED),
        // Whoever asks waits as long as it likes: nobody answers.
        EgressRefusal::TimedOut => Verdict::Drop,
    }
}
