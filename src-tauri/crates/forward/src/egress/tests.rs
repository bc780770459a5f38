//! The host's side alone: the guest is a stream of the test's.

use super::*;
use caisson_guest_proto::{Connection, Duplex, HOST_ADDRESS, read_message, write_message};
use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::{advance, pause, resume},
};

type Guest = Duplex<DuplexStream>;

/// Nothing here waits so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon that serves flows, for as long as this lives.
struct Host {
    streams: mpsc::Sender<VsockStream>,
    task: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    fn new(policy: EgressPolicy) -> Self {
        let (streams, served) = mpsc::channel(8);
        Self { streams, task: tokio::spawn(serve_egress(served, policy)) }
    }

    async fn ask(&self, request: EgressRequest) -> (EgressReply, Guest) {
        let (near, far) = tokio::io::duplex(1 << 16);
        self.streams.send(Box::new(Duplex::new(far))).await.unwrap();
        let mut guest = Duplex::new(near);
        write_frame(&mut guest, &request).await.unwrap();
        (read_frame(&mut guest).await.unwrap().unwrap(), guest)
    }

    async fn refusal(&self, request: EgressRequest) -> EgressRefusal {
        match self.ask(request).await.0 {
            EgressReply::Refused { kind, .. } => kind,
            EgressReply::Open => panic!("{request:?} was not refused"),
        }
    }

    async fn open(&self, request: EgressRequest) -> Guest {
        let (reply, guest) = self.ask(request).await;
        assert_eq!(reply, EgressReply::Open);
        guest
    }

    /// A connection to a server on this computer, with the server's end.
    async fn connection(&self) -> (Guest, TcpStream) {
        let (listener, to) = listener().await;
        let (guest, accepted) = tokio::join!(self.open(EgressRequest::Tcp { to }), listener.accept());
        (guest, accepted.unwrap().0)
    }
}

/// A server on this computer, and the address by which the guest knows it.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = SocketAddr::new(HOST_ADDRESS.into(), listener.local_addr().unwrap().port());
    (listener, to)
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_ends_on_its_own() {
    let host = Host::new(EgressPolicy::default());
    let (mut guest, mut server) = host.connection().await;
    guest.write_all(b"what?").await.unwrap();
    guest.shutdown().await.unwrap();
    let mut asked = String::new();
    server.read_to_string(&mut asked).await.unwrap();
    server.write_all(asked.to_uppercase().as_bytes()).await.unwrap();
    drop(server);
    let mut answer = String::new();
    guest.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "WHAT?");
}

#[cfg_attr(windows, ignore = "a reset does not arrive as one under wine 8; to be run on Windows")]
#[tokio::test]
async fn a_reset_goes_through_both_ways() {
    let host = Host::new(EgressPolicy::default());
    let (mut guest, server) = host.connection().await;
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    assert_eq!(guest.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let (guest, mut server) = host.connection().await;
    drop(guest);
    assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[cfg_attr(windows, ignore = "Windows does not tell")]
#[tokio::test]
async fn a_reset_after_an_end_goes_through_both_ways() {
    let host = Host::new(EgressPolicy::default());
    let (mut guest, mut server) = host.connection().await;
    server.shutdown().await.unwrap();
    assert_eq!(guest.read(&mut [0]).await.unwrap(), 0);
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    timeout(LIMIT, poll_fn(|cx| guest.poll_gone(cx))).await.expect("the guest is told");

    let (mut guest, mut server) = host.connection().await;
    guest.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    drop(guest);
    timeout(LIMIT, server.ready(Interest::ERROR)).await.expect("the server is told").unwrap();
}

#[tokio::test]
async fn what_the_host_says_is_what_the_guest_is_told() {
    let (listener, to) = listener().await;
    drop(listener);
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to.port());
    let host = Host::new(EgressPolicy::default());
    assert_eq!(host.refusal(EgressRequest::Tcp { to }).await, EgressRefusal::Refused);
    for to in [own, "[::]:80".parse().unwrap(), "224.0.0.1:80".parse().unwrap()] {
        assert_eq!(host.refusal(EgressRequest::Tcp { to }).await, EgressRefusal::Prohibited, "{to}");
        assert_eq!(host.refusal(EgressRequest::Udp { to }).await, EgressRefusal::Prohibited, "{to}");
    }
    assert_eq!(host.refusal(EgressRequest::Echo { to: own.ip() }).await, EgressRefusal::Prohibited);
}

#[tokio::test]
async fn the_daemons_own_door_is_shut() {
    let (listener, to) = listener().await;
    let host = Host::new(EgressPolicy { own_doors: vec![listener.local_addr().unwrap()] });
    assert_eq!(
        host.refusal(EgressRequest::Tcp { to }).await,
        EgressRefusal::Refused,
        "nothing else is there"
    );
}

#[cfg_attr(windows, ignore = "a datagram does not come back under wine 8; to be run on Windows")]
#[tokio::test]
async fn datagrams_of_any_size_come_back() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = SocketAddr::new(HOST_ADDRESS.into(), server.local_addr().unwrap().port());
    let host = Host::new(EgressPolicy::default());
    let mut guest = host.open(EgressRequest::Udp { to }).await;
    let mut buffer = vec![0; 1 << 16];
    for length in [0, 1, 1400, 60_000] {
        write_message(&mut guest, &vec![7; length]).await.unwrap();
        let (received, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(received, length);
        server.send_to(&buffer[..received], from).await.unwrap();
        let mut answer = Vec::new();
        assert!(read_message(&mut guest, &mut answer).await.unwrap());
        assert_eq!(answer.len(), length);
    }
    drop(server);
    write_message(&mut guest, b"anybody?").await.unwrap();
    let told = read_message(&mut guest, &mut Vec::new()).await;
    assert_eq!(told.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "nobody is there");
}

#[cfg_attr(windows, ignore = "a datagram does not come back under wine 8; to be run on Windows")]
#[tokio::test]
async fn a_silent_flow_of_datagrams_ends_and_one_that_speaks_goes_on() {
    const IDLE: Duration = Duration::from_secs(300);
    const NEARLY: Duration = Duration::from_secs(290);
    /// At once. Else the clock goes on: while it stands still nobody waits for a socket, it jumps.
    async fn pass(time: Duration) {
        pause();
        advance(time).await;
        resume();
    }
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = SocketAddr::new(HOST_ADDRESS.into(), server.local_addr().unwrap().port());
    let host = Host::new(EgressPolicy::default());
    let mut guest = host.open(EgressRequest::Udp { to }).await;
    let mut message = Vec::new();
    for _ in 0..2 {
        pass(NEARLY).await;
        write_message(&mut guest, b"question").await.unwrap();
        let (_, flow) = timeout(LIMIT, server.recv_from(&mut [0; 16])).await.expect("it goes on").unwrap();
        pass(NEARLY).await;
        server.send_to(b"answer", flow).await.unwrap();
        let answered = timeout(LIMIT, read_message(&mut guest, &mut message)).await.expect("it goes on");
        assert!(answered.unwrap() && message == b"answer");
    }
    pause();
    let ended = timeout(IDLE * 2, read_message(&mut guest, &mut message)).await.expect("a silent flow ends");
    assert!(!matches!(ended, Ok(true)), "nobody spoke");
}

#[tokio::test]
async fn nonsense_ends_its_own_stream_only() {
    let host = Host::new(EgressPolicy::default());
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0{}", b""] {
        let (near, far) = tokio::io::duplex(1 << 16);
        host.streams.send(Box::new(Duplex::new(far))).await.unwrap();
        let mut guest = Duplex::new(near);
        guest.write_all(nonsense).await.unwrap();
        guest.shutdown().await.unwrap();
        assert!(guest.read_to_end(&mut Vec::new()).await.is_err());
    }
    drop(host.connection().await);
}

/// The flow's own socket is all that it takes: the way to the guest is no file of this process, as under QEMU, and the server
/// here takes nobody in, so that the kernel has its ends.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn as_many_flows_as_the_guest_has_take_a_file_each_and_leave_room() {
    /// What a listener's line holds by the kernel's own limit (`net.core.somaxconn`), or less.
    const LINE: usize = 4000;
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let limit = caisson_os::raise_file_limit(MAX_FLOWS as u64 + 1000).unwrap();
    assert!(limit > MAX_FLOWS as u64 + 100, "{limit} open files are too few for this test");
    let host = Host::new(EgressPolicy::default());
    let (mut listeners, mut flows) = (Vec::new(), Vec::new());
    let before = open_files();
    while flows.len() < MAX_FLOWS {
        if flows.len() % LINE == 0 {
            listeners.push(crowded_listener(LINE));
        }
        let to = listeners.last().unwrap().1;
        flows.push(host.open(EgressRequest::Tcp { to }).await);
    }
    // Tests beside this one have files, too.
    let taken = open_files() - before - listeners.len();
    assert!(taken < MAX_FLOWS + 200, "{taken} files for {MAX_FLOWS} flows");
    // Beside them the guest has its queries, and flows of which it does not know yet that their place is free.
    let beside = async { (host.open(EgressRequest::Dns).await, host.connection().await) };
    drop(timeout(LIMIT, beside).await.expect("there is room beside them"));
    drop((flows, listeners));
}

/// A server whose line holds so many, and the address by which the guest knows it.
#[cfg(target_os = "linux")]
fn crowded_listener(line: usize) -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket2::SockRef::from(&listener).listen(i32::try_from(line).unwrap()).unwrap();
    let to = SocketAddr::new(HOST_ADDRESS.into(), listener.local_addr().unwrap().port());
    (listener, to)
}
