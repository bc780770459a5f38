//! Datagrams: a flow is what one socket sends to one address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use caisson_guest_proto::{EgressRefusal, EgressRequest, MAX_MESSAGE, read_message, write_message};
use caisson_sys::transparent;
use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, split};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::flows::{Flows, Place};
use crate::host::{Flow, Host, ask};
use crate::raw::Raw;
use crate::rules;
use crate::watched::watched;

/// How long nothing may go either way: before an answer came, and after. As the kernel's own tracking has it.
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(180);
/// Datagrams that came before the flow's own socket was there; more are lost.
const EARLY: usize = 16;

/// The sockets that get a flow's first datagram.
pub(crate) struct Listeners {
    v4: AsyncFd<OwnedFd>,
    v6: Option<AsyncFd<OwnedFd>>,
}

impl Listeners {
    pub(crate) fn bind() -> io::Result<Self> {
        let v4 = listen((Ipv4Addr::LOCALHOST, rules::PROXY_PORT).into())?;
        let v6 = listen((Ipv6Addr::LOCALHOST, rules::PROXY_PORT).into())
            .inspect_err(|error| tracing::warn!(%error, "no IPv6 datagram leaves the machine"));
        Ok(Self { v4, v6: v6.ok() })
    }
}

fn listen(at: SocketAddr) -> io::Result<AsyncFd<OwnedFd>> {
    let socket: OwnedFd = transparent_socket(at)?.into();
    transparent::tell_destinations(&socket, at.is_ipv6())?;
    watched(socket)
}

/// A socket bound to any address, of this system or not.
fn transparent_socket(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    if at.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

type Ends = (SocketAddr, SocketAddr);
type Early = Rc<RefCell<HashMap<Ends, mpsc::Sender<Vec<u8>>>>>;

/// Carries all datagrams.
pub(crate) async fn serve<H: Host>(listeners: Listeners, host: H, flows: Flows, raw: Rc<Raw>) {
    let early = Early::default();
    let v6 = async {
        if let Some(socket) = &listeners.v6 {
            receive(socket, &host, &flows, &raw, &early).await;
        }
    };
    tokio::join!(receive(&listeners.v4, &host, &flows, &raw, &early), v6);
}

/// The first datagrams of flows, each with where it was to go.
async fn receive<H: Host>(socket: &AsyncFd<OwnedFd>, host: &H, flows: &Flows, raw: &Rc<Raw>, early: &Early) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let received = |socket: &OwnedFd| transparent::receive(socket, &mut buffer);
        let (length, from, to) = match socket.async_io(Interest::READABLE, received).await {
            Ok(Some(received)) => received,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, "cannot take a datagram that leaves the machine");
                continue;
            }
        };
        let datagram = buffer[..length].to_vec();
        let ends = (from, to);
        if let Some(flow) = early.borrow().get(&ends) {
            // One too many is lost, as datagrams may be.
            let _ = flow.try_send(datagram);
            continue;
        }
        let Some(place) = flows.enter(from.ip()) else { continue };
        let (sender, first) = mpsc::channel(EARLY);
        let _ = sender.try_send(datagram);
        early.borrow_mut().insert(ends, sender);
        let (host, raw, early) = (host.clone(), raw.clone(), early.clone());
        tokio::task::spawn_local(async move {
            match flow(&host, ends, first, place).await {
                Ok(None) => {}
                Ok(Some(refusal)) => raw.not_delivered(ends, refusal),
                Err(error) => tracing::debug!(%error, to = %ends.1, "datagrams could not be carried"),
            }
            early.borrow_mut().remove(&ends);
        });
    }
}

/// Until it ends: by itself, or because the host says that nobody takes what is sent.
async fn flow<H: Host>(
    host: &H,
    (from, to): Ends,
    early: mpsc::Receiver<Vec<u8>>,
    mut place: Place,
) -> io::Result<Option<EgressRefusal>> {
    let socket = transparent_socket(to)?;
    socket.connect(&from.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let Some(asked) = place.wait(ask(host, EgressRequest::Udp { to })).await else { return Ok(None) };
    match asked {
        Ok(flow) => carry::<H>(flow, &socket, early).await,
        Err(refusal) => Ok(Some(refusal)),
    }
}

async fn carry<H: Host>(
    flow: Flow<H>,
    socket: &UdpSocket,
    mut early: mpsc::Receiver<Vec<u8>>,
) -> io::Result<Option<EgressRefusal>> {
    let (from_host, mut to_host) = split(flow);
    let deadline = RefCell::new(Instant::now() + UNANSWERED);
    let answered = RefCell::new(false);
    let alive = |answer: bool| {
        *answered.borrow_mut() |= answer;
        let limit = if *answered.borrow() { ANSWERED } else { UNANSWERED };
        *deadline.borrow_mut() = Instant::now() + limit;
    };
    let outwards = async {
        loop {
            let datagram = tokio::select! {
                Some(datagram) = early.recv() => datagram,
                received = receive_one(socket) => received?,
            };
            if write_message(&mut to_host, &datagram).await.is_err() {
                return Ok(Some(EgressRefusal::Refused));
            }
            alive(false);
        }
    };
    let idle = async {
        loop {
            let until = *deadline.borrow();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        ended = outwards => ended,
        // The host waits longer than we do: it ends a flow only where nobody listens, and tears it down then.
        _ = inwards(from_host, socket, || alive(true)) => Ok(Some(EgressRefusal::Refused)),
        () = idle => Ok(None),
    }
}

/// The next datagram of the guest's. May be dropped while waiting.
async fn receive_one(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        socket.readable().await?;
        let mut datagram = Vec::with_capacity(MAX_MESSAGE);
        // An error is nothing after all, or a socket of the guest's that is closed, as its kernel says.
        if socket.try_recv_buf(&mut datagram).is_ok() {
            return Ok(datagram);
        }
    }
}

async fn inwards(
    mut from_host: impl AsyncRead + Unpin,
    socket: &UdpSocket,
    alive: impl Fn(),
) -> io::Result<()> {
    let mut datagram = Vec::new();
    while read_message(&mut from_host, &mut datagram).await? {
        // The guest's socket may be closed: its kernel says so, and the flow ends by itself.
        let _ = socket.send(&datagram).await;
        alive();
        datagram = Vec::new();
    }
    Ok(())
}
