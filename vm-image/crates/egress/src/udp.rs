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

#[cfg(test)]
mod tests {
    use super::*;
    use caisson_guest_proto::{Duplex, EgressReply, MAX_FLOWS, read_frame, write_frame};
    use caisson_sys::netns;
    use tokio::io::DuplexStream;
    use tokio::task::{JoinHandle, LocalSet};
    use tokio::time::{advance, pause, resume, timeout};

    /// Nothing here waits so long unless it is broken.
    const LIMIT: Duration = Duration::from_secs(30);
    const FROM: &str = "127.0.0.1:4321";
    const TO: &str = "203.0.113.5:53";

    /// A host that opens one stream after the other, each of which is the test's.
    #[derive(Clone)]
    struct Stand(mpsc::UnboundedSender<DuplexStream>);

    impl Host for Stand {
        type Stream = DuplexStream;

        async fn open(&self) -> io::Result<DuplexStream> {
            let (near, far) = tokio::io::duplex(4096);
            self.0.send(far).map_err(io::Error::other)?;
            Ok(near)
        }
    }

    /// A flow that is open: what the guest says goes in, the host has the other end.
    struct Open {
        guest: mpsc::Sender<Vec<u8>>,
        host: Duplex<DuplexStream>,
        task: JoinHandle<io::Result<Option<EgressRefusal>>>,
    }

    impl Open {
        async fn new(flows: &Flows) -> Self {
            let (streams, mut opened) = mpsc::unbounded_channel();
            let (guest, early) = mpsc::channel(EARLY);
            let place = flows.enter(source()).expect("a place");
            let ends = (FROM.parse().unwrap(), TO.parse().unwrap());
            let task =
                tokio::task::spawn_local(async move { flow(&Stand(streams), ends, early, place).await });
            let mut host = Duplex::new(opened.recv().await.unwrap());
            let request: Option<EgressRequest> = read_frame(&mut host).await.unwrap();
            assert_eq!(request, Some(EgressRequest::Udp { to: ends.1 }));
            write_frame(&mut host, &EgressReply::Open).await.unwrap();
            Self { guest, host, task }
        }

        async fn asks(&mut self) {
            self.guest.send(b"question".to_vec()).await.expect("it goes on");
            let mut heard = Vec::new();
            let read = timeout(LIMIT, read_message(&mut self.host, &mut heard)).await.expect("it goes on");
            assert!(read.unwrap() && heard == b"question");
        }

        /// Returns when the container has the answer.
        async fn answers(&mut self, container: &UdpSocket) {
            write_message(&mut self.host, b"answer").await.unwrap();
            let heard = timeout(LIMIT, container.recv_from(&mut [0; 16])).await.expect("it goes on");
            assert_eq!(heard.unwrap(), (6, TO.parse().unwrap()));
        }

        /// How long it lives on when nobody says anything; when it is over its place is free.
        async fn silence(self, flows: &Flows) -> Duration {
            pause();
            let since = Instant::now();
            let ended = timeout(Duration::from_secs(1000), self.task).await.expect("a silent flow ends");
            assert_eq!(ended.unwrap().unwrap(), None, "nobody is told anything");
            let silence = since.elapsed();
            resume();
            assert!(flows.enter(source()).is_some(), "its place is free");
            silence
        }
    }

    fn source() -> std::net::IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    /// Lets this much time go by at once. Else the clock goes on: while it stands still nobody waits for a socket, it jumps.
    async fn pass(seconds: u64) {
        pause();
        advance(Duration::from_secs(seconds)).await;
        resume();
    }

    /// All places but one are taken.
    async fn crowded() -> (Flows, Vec<Place>) {
        let flows = Flows::default();
        let mut others = Vec::new();
        for n in 1..MAX_FLOWS {
            let source = Ipv4Addr::from(0x0a00_0000 + u32::from(n % 2 == 0));
            let mut other = flows.enter(source.into()).expect("a place");
            assert!(other.wait(std::future::ready(())).await.is_some());
            others.push(other);
        }
        (flows, others)
    }

    #[test]
    fn a_silent_flow_ends_and_gives_its_place_back_and_one_that_speaks_goes_on() {
        let done = netns::isolated(|| {
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let container = UdpSocket::bind(FROM).await.unwrap();
                let (flows, _others) = crowded().await;

                let mut flow = Open::new(&flows).await;
                flow.asks().await;
                assert!(flows.enter(source()).is_none(), "it has the last place");
                for _ in 0..2 {
                    pass(25).await;
                    flow.asks().await;
                }
                let unanswered = flow.silence(&flows).await.as_secs();
                assert!((25..=31).contains(&unanswered), "{unanswered} s");

                let mut flow = Open::new(&flows).await;
                flow.asks().await;
                for _ in 0..2 {
                    flow.answers(&container).await;
                    pass(170).await;
                    flow.asks().await;
                    pass(170).await;
                }
                flow.answers(&container).await;
                let answered = flow.silence(&flows).await.as_secs();
                assert!((170..=181).contains(&answered), "{answered} s");
            });
        });
        assert!(done.is_some(), "tests of the kernel's part need root");
    }
}
