//! The whole of it on this kernel: a machine, a container in it and a host, each a network namespace of its own. The host
//! is a stand-in that does as the real one.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use caisson_guest_proto::{
    Duplex, EgressRefusal, EgressReply, EgressRequest, Tcp, copy, read_frame, read_message, write_frame,
    write_message,
};
use caisson_sys::netns::{self, Netns};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, split};
use tokio::net::UnixStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::{Egress, Host, clients};

/// Nothing here waits so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);
/// An address of the host's world, and one to which it has no route.
const OUTSIDE: &str = "203.0.113.5";
const OUTSIDE_V6: &str = "2001:db8::5";
const NOWHERE: &str = "198.51.100.1:80";

#[derive(Clone)]
struct Stand(tokio::sync::mpsc::UnboundedSender<std::os::unix::net::UnixStream>);

impl Host for Stand {
    type Stream = UnixStream;

    async fn open(&self) -> io::Result<UnixStream> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        self.0.send(far).map_err(io::Error::other)?;
        UnixStream::from_std(near)
    }
}

fn run(program: &str) {
    run_here(program).unwrap();
}

/// For a namespace, whose work may fail.
fn run_here(program: &str) -> io::Result<()> {
    for line in program.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let status = Command::new("sh").args(["-c", line]).status().unwrap();
        assert!(status.success(), "{line}");
    }
    Ok(())
}

struct World {
    host: Netns,
    container: Netns,
}

impl World {
    /// Runs something where the container's programs run.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::enter(&self.container, || Ok(work())).unwrap()
    }

    /// Runs something on the host.
    fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::enter(&self.host, || Ok(work())).unwrap()
    }

    /// A server on the host; each connection is served on a thread.
    fn server(&self, ip: &str, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
        let listener = self.outside(|| TcpListener::bind((ip, 0)).unwrap());
        // More than the standard library's backlog may come at once.
        SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let serve = serve.clone();
                thread::spawn(move || serve(client.unwrap()));
            }
        });
        address
    }
}

/// Says what it heard, once that has ended.
fn echo(mut client: TcpStream) {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    client.write_all(&heard).unwrap();
}

/// Runs a test beside a machine whose way out leads to a host.
fn in_world(test: impl FnOnce(&World) + Send) {
    let done = netns::isolated(|| {
        let dir = tempfile::tempdir().unwrap();
        let lo = || run_here("ip link set lo up");
        let (host, ()) = netns::create(&dir.path().join("host"), lo).unwrap();
        let (container, ()) = netns::create(&dir.path().join("container"), lo).unwrap();
        netns::enter(&host, || {
            run_here(&format!(
                "ip address add {OUTSIDE}/32 dev lo\nip address add {OUTSIDE_V6}/128 dev lo nodad"
            ))
        })
        .unwrap();
        run(&format!(
            "ip link set lo up
             ip link add inner type veth peer name outer
             ip link set inner netns {}/container
             ip address add 172.17.0.1/16 dev outer
             ip address add fd17::1/64 dev outer nodad
             ip link set outer up",
            dir.path().display()
        ));
        netns::enter(&container, || {
            run_here(
                "ip address add 172.17.0.2/16 dev inner
                 ip address add fd17::2/64 dev inner nodad
                 ip link set inner up
                 ip route add default via 172.17.0.1
                 ip -6 route add default via fd17::1",
            )
        })
        .unwrap();
        let (opened, mut streams) = tokio::sync::mpsc::unbounded_channel::<std::os::unix::net::UnixStream>();
        let world = World { host, container };
        let (ready, is_ready) = std_mpsc::channel();
        // Both end when the test does: with the channel's last sender, which the machine holds.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                netns::enter(&world.host, || {
                    on_a_loop(async {
                        while let Some(stream) = streams.recv().await {
                            stream.set_nonblocking(true).unwrap();
                            let stream = Duplex::new(UnixStream::from_std(stream).unwrap());
                            tokio::task::spawn_local(async move { drop(serve(stream).await) });
                        }
                    });
                    Ok(())
                })
                .unwrap();
            });
            scope.spawn(move || {
                on_a_loop(async {
                    let egress = Egress::prepare().unwrap();
                    ready.send(()).unwrap();
                    tokio::select! {
                        () = egress.run(Stand(opened)) => {}
                        _ = stopped => {}
                    }
                });
            });
            is_ready.recv().unwrap();
            test(&world);
            drop(stop);
        });
    });
    assert!(done.is_some(), "tests of the kernel's part need root");
}

fn on_a_loop(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work);
}

/// What the host does with a flow.
async fn serve(mut stream: Duplex<UnixStream>) -> io::Result<()> {
    match read_frame(&mut stream).await.map_err(io::Error::other)? {
        Some(EgressRequest::Tcp { to }) => match tokio::net::TcpStream::connect(to).await {
            Ok(socket) => {
                write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
                let copied = copy::both_ways_or_neither(&mut stream, &mut Tcp::new(&socket)).await;
                if copied.is_err() {
                    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                }
                copied
            }
            Err(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => EgressRefusal::Refused,
                    io::ErrorKind::HostUnreachable => EgressRefusal::HostUnreachable,
                    io::ErrorKind::NetworkUnreachable => EgressRefusal::NetworkUnreachable,
                    io::ErrorKind::TimedOut => EgressRefusal::TimedOut,
                    _ => EgressRefusal::Prohibited,
                };
                let reply = EgressReply::Refused { kind, message: error.to_string() };
                write_frame(&mut stream, &reply).await.map_err(io::Error::other)
            }
        },
        Some(EgressRequest::Udp { to }) => {
            let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = tokio::net::UdpSocket::bind(any).await?;
            socket.connect(to).await?;
            write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
            let (from, to) = split(stream);
            tokio::try_join!(send_all(from, &socket), receive_all(&socket, to)).map(drop)
        }
        // The stand-in's world answers pings itself, and turns queries into answers.
        Some(EgressRequest::Echo { .. }) => answer_all(stream, |_| {}).await,
        Some(EgressRequest::Dns) => answer_all(stream, |query| query[2] |= 0x80).await,
        None => Ok(()),
    }
}

async fn send_all(mut from: impl AsyncRead + Unpin, socket: &tokio::net::UdpSocket) -> io::Result<()> {
    let mut datagram = Vec::new();
    while read_message(&mut from, &mut datagram).await? {
        socket.send(&datagram).await?;
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn receive_all(socket: &tokio::net::UdpSocket, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut datagram = vec![0; 1 << 16];
    loop {
        let length = socket.recv(&mut datagram).await?;
        write_message(&mut to, &datagram[..length]).await?;
    }
}

async fn answer_all(mut stream: Duplex<UnixStream>, answer: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
    write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
    let mut message = Vec::new();
    while read_message(&mut stream, &mut message).await? {
        answer(&mut message);
        write_message(&mut stream, &message).await?;
    }
    Ok(())
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn ask(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = connect(to)?;
    let mut writer = socket.try_clone()?;
    let question = question.to_vec();
    let written = thread::spawn(move || {
        writer.write_all(&question)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    written.join().unwrap()?;
    Ok(answer)
}

#[test]
fn connections_go_through_and_each_direction_ends_on_its_own() {
    in_world(|world| {
        let question: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        for ip in [OUTSIDE, OUTSIDE_V6] {
            let to = world.server(ip, echo);
            assert!(world.inside(|| ask(to, &question)).unwrap() == question, "a container, {ip}");
            assert!(ask(to, b"hello").unwrap() == b"hello", "the machine itself, {ip}");
        }
    });
}

#[test]
fn what_the_host_meets_is_what_a_container_meets() {
    in_world(|world| {
        let closed = |ip: &str| {
            let listener = world.outside(|| TcpListener::bind((ip, 0)).unwrap());
            listener.local_addr().unwrap()
        };
        for to in [closed(OUTSIDE), closed(OUTSIDE_V6)] {
            for error in [world.inside(|| connect(to)).unwrap_err(), connect(to).unwrap_err()] {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}");
            }
        }
        let nowhere = NOWHERE.parse().unwrap();
        let there = world.outside(|| connect(nowhere)).unwrap_err();
        let here = world.inside(|| connect(nowhere)).unwrap_err();
        assert_eq!(here.kind(), there.kind());
        assert_eq!(here.kind(), io::ErrorKind::NetworkUnreachable);
    });
}

#[test]
fn a_filtered_port_times_out_and_blocks_nobody() {
    in_world(|world| {
        let to = world.server(OUTSIDE, echo);
        let filtered = SocketAddr::new(OUTSIDE.parse().unwrap(), 9);
        world.outside(|| {
            use caisson_nftables::{Chain, ChainKind, Family, Hook, Kernel, Key, Rule, Table, priority};
            let chain = Chain::base("in", ChainKind::Filter, Hook::Input, priority::FILTER)
                .rule(Rule::new().is(Key::TcpDport, 9u16).drop());
            Kernel::open().unwrap().replace(&Table::new(Family::Inet, "t").chain(chain)).unwrap();
        });
        let (gone, others) = thread::scope(|scope| {
            let gone = scope.spawn(|| {
                world.inside(|| TcpStream::connect_timeout(&filtered, Duration::from_millis(2500)))
            });
            let others = (0..20).map(|_| world.inside(|| ask(to, b"hello")).unwrap()).collect::<Vec<_>>();
            (gone.join().unwrap().map(drop), others)
        });
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(others.iter().all(|answer| answer == b"hello"));
    });
}

#[test]
fn a_reset_goes_through_both_ways() {
    in_world(|world| {
        let to = world.server(OUTSIDE, |mut client| {
            // Not before the client is there.
            client.read_exact(&mut [0]).unwrap();
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let mut client = world.inside(|| connect(to)).unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (told, tell) = std_mpsc::channel();
        let to = world.server(OUTSIDE, move |mut server| {
            let mut byte = [0];
            server.read_exact(&mut byte).unwrap();
            told.send(server.read(&mut byte).unwrap_err().kind()).unwrap();
        });
        let mut client = world.inside(|| connect(to)).unwrap();
        client.write_all(b"x").unwrap();
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(tell.recv_timeout(LIMIT).unwrap(), io::ErrorKind::ConnectionReset);
    });
}

/// Cuts the container off: nothing that its kernel says arrives any more.
fn cut_off(world: &World) {
    world.inside(|| run("ip link set inner down"));
}

#[test]
fn a_connection_of_a_container_that_is_gone_ends() {
    in_world(|world| {
        let (told, tell) = std_mpsc::channel();
        let servers = [OUTSIDE, OUTSIDE_V6].map(|ip| {
            let told = told.clone();
            world.server(ip, move |mut server| {
                server.read_exact(&mut [0]).unwrap();
                told.send(None).unwrap();
                told.send(Some(server.read(&mut [0]).unwrap_err().kind())).unwrap();
            })
        });
        let clients = servers.map(|to| {
            let mut client = world.inside(|| connect(to)).unwrap();
            client.write_all(b"x").unwrap();
            assert_eq!(tell.recv_timeout(LIMIT), Ok(None), "{to}: it is there");
            client
        });
        cut_off(world);
        for _ in &clients {
            assert_eq!(tell.recv_timeout(LIMIT), Ok(Some(io::ErrorKind::ConnectionReset)));
        }
    });
}

#[test]
fn a_connection_that_a_container_had_ended_before_it_was_gone_ends() {
    in_world(|world| {
        let (told, tell) = std_mpsc::channel();
        let to = world.server(OUTSIDE, move |mut server| {
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            told.send(false).unwrap();
            on_a_loop(async {
                server.set_nonblocking(true).unwrap();
                let server = tokio::net::TcpStream::from_std(server).unwrap();
                let reset = timeout(LIMIT, server.ready(Interest::ERROR)).await;
                told.send(reset.is_ok()).unwrap();
            });
        });
        let client = world.inside(|| connect(to)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(tell.recv_timeout(LIMIT), Ok(false), "its end came");
        cut_off(world);
        assert_eq!(tell.recv_timeout(LIMIT * 2), Ok(true));
    });
}

#[test]
fn a_connection_to_a_container_that_is_gone_ends() {
    in_world(|world| {
        let listener = world.inside(|| TcpListener::bind("172.17.0.2:0").unwrap());
        let to = listener.local_addr().unwrap();
        on_a_loop(async {
            let unnamed = clients::connect(to, None).await.unwrap();
            let named = clients::connect(to, Some("203.0.113.7:4321".parse().unwrap())).await.unwrap();
            let connections = [unnamed, named];
            let _accepted = connections.each_ref().map(|_| listener.accept().unwrap());
            cut_off(world);
            for mut connection in connections {
                let ended = timeout(LIMIT, connection.read_u8()).await.expect("it ends").unwrap_err();
                assert_ne!(ended.kind(), io::ErrorKind::UnexpectedEof, "nobody said that it does");
            }
        });
    });
}

#[test]
fn a_thousand_connections_at_once_go_through() {
    in_world(|world| {
        let to = world.server(OUTSIDE, echo);
        world.inside(|| {
            let sockets: Vec<_> = (0..1000)
                .map(|_| {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.set_nonblocking(true).unwrap();
                    let started = socket.connect(&to.into()).unwrap_err();
                    assert_eq!(started.raw_os_error(), Some(115), "in progress");
                    socket
                })
                .collect();
            for socket in sockets {
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(LIMIT)).unwrap();
                socket.set_write_timeout(Some(LIMIT)).unwrap();
                let mut socket = TcpStream::from(socket);
                // Blocks until it is connected.
                socket.write_all(b"hello").unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                socket.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"hello");
            }
        });
    });
}

#[test]
fn datagrams_go_and_come_back_from_where_they_were_sent() {
    in_world(|world| {
        for (ip, any) in [(OUTSIDE, "0.0.0.0:0"), (OUTSIDE_V6, "[::]:0")] {
            let server = world.outside(|| UdpSocket::bind((ip, 0)).unwrap());
            let to = server.local_addr().unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok((length, from)) = server.recv_from(&mut buffer) {
                    server.send_to(&buffer[..length], from).unwrap();
                }
            });
            for client in [world.inside(|| UdpSocket::bind(any).unwrap()), UdpSocket::bind(any).unwrap()] {
                client.set_read_timeout(Some(LIMIT)).unwrap();
                let mut buffer = vec![0; 1 << 16];
                for length in [0, 5, 1400, 60_000, 7] {
                    client.send_to(&vec![length as u8; length], to).unwrap();
                    assert_eq!(client.recv_from(&mut buffer).unwrap(), (length, to));
                    assert!(buffer[..length].iter().all(|byte| *byte == length as u8));
                }
            }
        }
    });
}

#[test]
fn a_datagram_to_nobody_is_refused_as_on_the_host() {
    in_world(|world| {
        for (ip, any) in [(OUTSIDE, "0.0.0.0:0"), (OUTSIDE_V6, "[::]:0")] {
            let nobody = world.outside(|| UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap());
            for client in [world.inside(|| UdpSocket::bind(any).unwrap()), UdpSocket::bind(any).unwrap()] {
                client.set_read_timeout(Some(LIMIT)).unwrap();
                client.connect(nobody).unwrap();
                client.send(b"anybody?").unwrap();
                let error = client.recv(&mut [0; 16]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{nobody}");
            }
        }
    });
}

#[test]
fn queries_of_many_clients_are_answered_by_udp_and_tcp() {
    in_world(|world| {
        let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        for server in ["127.0.0.1:53", "192.0.0.253:53"] {
            let ask = || {
                let client = UdpSocket::bind("0.0.0.0:0").unwrap();
                client.set_read_timeout(Some(LIMIT)).unwrap();
                client.send_to(query, server).unwrap();
                let mut buffer = [0; 512];
                let (length, _) = client.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..length], answer);
                let mut client = connect(server.parse().unwrap()).unwrap();
                client.write_all(&[&[0, query.len() as u8][..], query].concat()).unwrap();
                let mut received = vec![0; query.len() + 2];
                client.read_exact(&mut received).unwrap();
                assert_eq!(received[2..], answer);
            };
            ask();
            if server.starts_with("192") {
                world.inside(ask);
            }
        }
    });
}

/// Pings from an identifier of its own, and waits for the answers.
fn ping(to: IpAddr) {
    let (domain, protocol, request, answer) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(&SocketAddr::new(to, 0).into()).unwrap();
    for sequence in 1..4 {
        let mut echo = vec![request, 0, 0, 0, 0x77, 0x66, 0, sequence];
        echo.extend_from_slice(b"caisson");
        if to.is_ipv4() {
            let sum = crate::raw::checksum(&echo).to_be_bytes();
            echo[2..4].copy_from_slice(&sum);
        }
        socket.send(&echo).unwrap();
        let mut packet = [0; 1500];
        loop {
            let length = socket.read(&mut packet).unwrap();
            let message = &packet[if to.is_ipv4() { 20 } else { 0 }..length];
            if message[0] == answer {
                assert_eq!(message[4..], echo[4..]);
                break;
            }
        }
    }
}

#[test]
fn pings_are_answered() {
    in_world(|world| {
        for ip in [OUTSIDE, OUTSIDE_V6] {
            world.inside(|| ping(ip.parse().unwrap()));
        }
    });
}

#[test]
fn other_protocols_and_the_proxy_itself_are_out_of_reach() {
    in_world(|world| {
        for to in ["172.17.0.1:15001", "192.0.0.253:15001"] {
            let error = world.inside(|| connect(to.parse().unwrap())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}");
        }
        let stranger = connect((Ipv6Addr::LOCALHOST, 15001).into()).map(|mut socket| socket.read(&mut [0]));
        assert!(!matches!(stranger, Ok(Ok(1..))), "who asks the proxy directly gets nothing");
    });
}
