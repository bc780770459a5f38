mod properties;

use super::*;
use crate::testing::{FakeGuest, Opened, status};
use caisson_guest_proto::{
    PortProtocol, PortsReply, PortsRequest, read_frame, read_message, write_frame, write_message,
};
use caisson_machine::Stage;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Instant, advance, pause, resume, timeout},
};

/// Nothing here waits so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);

/// The ports of a machine, and everything that they see of it.
struct World {
    ports: Ports,
    streams: mpsc::Sender<VsockStream>,
    machine: watch::Sender<MachineStatus>,
    containers: Opened,
}

fn world() -> World {
    world_with(|_| {})
}

/// One whose owner of ports is made another one first.
fn world_with(change: impl FnOnce(&mut Owner<FakeGuest>)) -> World {
    let (guest, containers) = FakeGuest::new();
    let (streams, from_guest) = mpsc::channel(1);
    let machine = watch::Sender::new(status(MachineState::Running));
    let (publish, table) = watch::channel(Vec::new());
    let mut owner = Owner::new(guest, publish);
    change(&mut owner);
    let task = tokio::spawn(owner.run(from_guest, machine.subscribe()));
    World { ports: Ports { table, task }, streams, machine, containers }
}

impl World {
    async fn engine(&self) -> Engine {
        let (near, far) = tokio::io::duplex(4096);
        assert!(self.streams.send(Box::new(far)).await.is_ok());
        Engine { stream: near, id: 0 }
    }

    async fn wait_for(&self, what: impl FnMut(&Vec<PortStatus>) -> bool) -> Vec<PortStatus> {
        self.ports.table().wait_for(what).await.unwrap().clone()
    }
}

/// The engine's end of a PORTS stream.
struct Engine {
    stream: DuplexStream,
    id: u64,
}

impl Engine {
    async fn call(&mut self, call: PortsCall) -> Result<PortsAnswer, PublishRefused> {
        self.id += 1;
        write_frame(&mut self.stream, &PortsRequest { id: self.id, call }).await.unwrap();
        let reply: PortsReply = read_frame(&mut self.stream).await.unwrap().unwrap();
        assert_eq!(reply.id, self.id);
        reply.result
    }

    async fn publish(&mut self, forward: PortForward) -> Result<u16, PublishRefused> {
        match self.call(PortsCall::Publish { forward }).await? {
            PortsAnswer::Published { host_port } => Ok(host_port),
            other => panic!("{other:?}"),
        }
    }

    async fn reconcile(&mut self, ports: Vec<PortForward>) -> Vec<PortOutcome> {
        match self.call(PortsCall::Reconcile { ports }).await.unwrap() {
            PortsAnswer::Reconciled { outcomes } => outcomes,
            other => panic!("{other:?}"),
        }
    }

    async fn unpublish(&mut self, key: &str) {
        self.unpublish_with(key, false).await;
    }

    async fn unpublish_with(&mut self, key: &str, keep_connections: bool) {
        let answer = self.call(PortsCall::Unpublish { key: key.to_owned(), keep_connections }).await;
        assert_eq!(answer, Ok(PortsAnswer::Unpublished));
    }
}

fn forward(key: &str, host_port: u16) -> PortForward {
    PortForward {
        key: key.to_owned(),
        host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        host_port,
        protocol: PortProtocol::Tcp,
        target: "172.17.0.2:80".parse().unwrap(),
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
}

#[tokio::test]
async fn bytes_and_their_end_go_both_ways_through_a_published_port() {
    let mut world = world();
    let port = world.engine().await.publish(forward("web/0", 0)).await.unwrap();
    let mut client = connect(port).await.unwrap();
    let (target, mut container) = world.containers.recv().await.unwrap();
    assert_eq!(target, Some("172.17.0.2:80".parse().unwrap()));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    container.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    container.write_all(b"answer").await.unwrap();
    drop(container);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn connections_live_on_through_a_port_that_is_closed_without_them_and_end_with_the_machine() {
    let mut world = world();
    let mut engine = world.engine().await;
    let port = engine.publish(forward("web/0", 0)).await.unwrap();
    let mut client = connect(port).await.unwrap();
    let (_, mut container) = world.containers.recv().await.unwrap();
    engine.unpublish_with("web/0", true).await;
    assert_eq!(connect(port).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    client.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    container.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still");
    // The number is free for the next listener while the last one's connections last.
    assert_eq!(engine.publish(forward("web/0", port)).await, Ok(port));
    engine.unpublish("web/0").await;
    container.write_all(b"there").await.unwrap();
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
    world.machine.send_replace(status(MachineState::Stopped));
    assert!(!matches!(client.read(&mut heard).await, Ok(1..)), "it outlived the machine");
}

#[tokio::test]
async fn a_port_with_too_long_a_name_is_refused() {
    let world = world();
    let mut engine = world.engine().await;
    let refused = engine.publish(forward(&"n".repeat(MAX_KEY + 1), 0)).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::Other);
    assert!(world.ports.table().borrow().is_empty());
    engine.publish(forward(&"n".repeat(MAX_KEY), 0)).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_refused_and_free_again_once_its_holder_is_gone() {
    let world = world();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = other.local_addr().unwrap().port();
    let mut engine = world.engine().await;
    let refused = engine.publish(forward("web/0", port)).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::InUse);
    assert!(world.ports.table().borrow().is_empty());
    drop(other);
    assert_eq!(engine.publish(forward("web/0", port)).await, Ok(port));
}

#[tokio::test]
async fn unpublishing_frees_the_port_and_cuts_its_connections() {
    let mut world = world();
    let mut engine = world.engine().await;
    let port = engine.publish(forward("web/0", 0)).await.unwrap();
    let mut client = connect(port).await.unwrap();
    let _container = world.containers.recv().await.unwrap();
    world.wait_for(|table| table[0].connections == 1).await;
    engine.unpublish("web/0").await;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("it is free once the answer is there");
    assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn ports_outlive_the_engine_and_are_reconciled_with_the_next_one() {
    let world = world();
    let mut first = world.engine().await;
    let kept = first.publish(forward("kept/0", 0)).await.unwrap();
    let gone = first.publish(forward("gone/0", 0)).await.unwrap();
    drop(first);
    connect(kept).await.expect("ports stay while the engine restarts");
    let mut second = world.engine().await;
    let outcomes = second.reconcile(vec![forward("kept/0", kept), forward("new/0", gone)]).await;
    assert_eq!(outcomes[0], PortOutcome { key: "kept/0".into(), result: Ok(kept) });
    assert_eq!(
        outcomes[1],
        PortOutcome { key: "new/0".into(), result: Ok(gone) },
        "freed before it is taken anew"
    );
    let keys: Vec<_> = world.ports.table().borrow().iter().map(|port| port.forward.key.clone()).collect();
    assert_eq!(keys, ["kept/0", "new/0"]);
}

#[tokio::test]
async fn everything_closes_when_the_machine_stops_and_nothing_while_it_boots() {
    let world = world();
    let mut engine = world.engine().await;
    let port = engine.publish(forward("web/0", 0)).await.unwrap();
    world.machine.send_replace(status(MachineState::Booting { stage: Stage::Socket }));
    engine.unpublish("unknown/0").await;
    assert_eq!(world.ports.table().borrow().len(), 1);
    world.machine.send_replace(status(MachineState::Stopped));
    world.wait_for(Vec::is_empty).await;
    assert!(connect(port).await.is_err());
}

#[tokio::test]
async fn what_an_engine_asked_before_its_machine_went_off_opens_nothing() {
    let world = world();
    let mut engine = world.engine().await;
    engine.publish(forward("web/0", 0)).await.unwrap();
    world.machine.send_replace(status(MachineState::Stopped));
    world.wait_for(Vec::is_empty).await;
    let call = PortsCall::Publish { forward: forward("web/1", 0) };
    // The host may have hung up already.
    let _ = write_frame(&mut engine.stream, &PortsRequest { id: 2, call }).await;
    assert!(matches!(read_frame::<PortsReply>(&mut engine.stream).await, Ok(None) | Err(_)));
    assert!(world.ports.table().borrow().is_empty());
}

#[tokio::test]
async fn a_container_that_refuses_closes_the_connection() {
    let world = world();
    let refusing = PortForward { target: "172.17.0.2:9".parse().unwrap(), ..forward("web/0", 0) };
    let port = world.engine().await.publish(refusing).await.unwrap();
    let mut client = connect(port).await.unwrap();
    assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn what_is_no_request_ends_its_stream_and_nothing_else() {
    let world = world();
    let mut engine = world.engine().await;
    engine.publish(forward("web/0", 0)).await.unwrap();
    let mut hostile = world.engine().await.stream;
    hostile.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert_eq!(hostile.read(&mut [0]).await.unwrap(), 0, "the host hangs up");
    assert_eq!(world.ports.table().borrow().len(), 1);
    engine.unpublish("web/0").await;
}

#[tokio::test]
async fn each_client_of_a_udp_port_gets_its_own_answers() {
    let mut world = world();
    let mut engine = world.engine().await;
    let udp = PortForward { protocol: PortProtocol::Udp, ..forward("dns/0", 0) };
    let port = engine.publish(udp.clone()).await.unwrap();
    let at = (Ipv4Addr::LOCALHOST, port);
    let mut clients = Vec::new();
    for name in [&b"one"[..], b"two"] {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.send_to(name, at).await.unwrap();
        let (to, container) = world.containers.recv().await.unwrap();
        assert_eq!(to, Some(udp.target));
        clients.push((name, client, container));
    }
    world.wait_for(|ports| ports[0].connections == 2).await;
    for (name, client, mut container) in clients {
        let mut heard = Vec::new();
        assert!(read_message(&mut container, &mut heard).await.unwrap());
        assert_eq!(heard, name);
        for answer in [&b""[..], &[7; 60_000]] {
            write_message(&mut container, answer).await.unwrap();
            let mut buffer = vec![0; 1 << 16];
            let (length, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (answer, at.into()));
        }
    }
    world.wait_for(|ports| ports[0].connections == 0).await;
    let taken =
        engine.publish(PortForward { host_port: port, key: "dns/1".into(), ..udp }).await.unwrap_err();
    assert_eq!(taken.code, RefusalCode::InUse);
    engine.unpublish("dns/0").await;
    UdpSocket::bind(at).await.unwrap();
}

/// One socket, so that the client is the same one each time.
#[tokio::test]
async fn who_asks_an_address_of_a_udp_port_is_answered_from_that_one() {
    let mut world = world();
    let mut engine = world.engine().await;
    // macOS' loopback has one address, and wine tells of none.
    let v4 = if cfg!(target_os = "linux") { &["127.0.0.2", "127.0.0.1"][..] } else { &["127.0.0.1"] };
    for (all, asked) in [("0.0.0.0", v4), ("::", &["::1"])] {
        let udp = PortForward {
            protocol: PortProtocol::Udp,
            host_ip: all.parse().unwrap(),
            ..forward(&format!("dns/{all}"), 0)
        };
        let port = engine.publish(udp).await.unwrap();
        let client = UdpSocket::bind((asked[asked.len() - 1], 0)).await.unwrap();
        let mut flows = Vec::new();
        for ip in asked {
            client.connect(SocketAddr::new(ip.parse().unwrap(), port)).await.unwrap();
            client.send(b"question").await.unwrap();
            let flow = timeout(LIMIT, world.containers.recv()).await.expect("a flow of its own");
            let (_, mut container) = flow.unwrap();
            write_message(&mut container, b"answer").await.unwrap();
            let mut buffer = [0; 16];
            let length = timeout(LIMIT, client.recv(&mut buffer)).await.expect("an answer").unwrap();
            assert_eq!(&buffer[..length], b"answer", "{ip}");
            flows.push(container);
        }
    }
}

/// Lets this much time go by at once. Else the clock goes on: while it stands still nobody waits for a socket, it jumps.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

#[tokio::test]
async fn a_silent_client_of_a_udp_port_gives_its_place_back_and_one_that_speaks_keeps_it() {
    const IDLE: Duration = Duration::from_secs(180);
    const NEARLY: Duration = Duration::from_secs(170);
    let mut world = world_with(|owner| owner.datagram_clients = Places::new(1));
    let mut engine = world.engine().await;
    let udp = PortForward { protocol: PortProtocol::Udp, ..forward("dns/0", 0) };
    let at = SocketAddr::new(udp.host_ip, engine.publish(udp).await.unwrap());
    let clients =
        [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    clients[0].send_to(b"question", at).await.unwrap();
    let (_, mut container) = world.containers.recv().await.unwrap();
    let mut heard = Vec::new();
    assert!(read_message(&mut container, &mut heard).await.unwrap());
    for _ in 0..2 {
        pass(NEARLY).await;
        clients[0].send_to(b"more", at).await.unwrap();
        let more = timeout(LIMIT, read_message(&mut container, &mut heard)).await.expect("it goes on");
        assert!(more.unwrap() && heard == b"more");
        pass(NEARLY).await;
        write_message(&mut container, b"answer").await.unwrap();
        timeout(LIMIT, clients[0].recv_from(&mut [0; 16])).await.expect("it goes on").unwrap();
    }
    pause();
    let silent_since = Instant::now();
    let ended = world.wait_for(|ports| ports[0].connections == 0);
    timeout(IDLE * 2, ended).await.expect("a silent flow ends");
    assert!(silent_since.elapsed() >= NEARLY);
    resume();
    clients[1].send_to(b"question", at).await.unwrap();
    timeout(LIMIT, world.containers.recv()).await.expect("the place is free").unwrap();
}

#[tokio::test]
async fn connections_of_all_ports_share_their_places() {
    let (guest, mut containers) = FakeGuest::new();
    let places = Places::new(1);
    let open = async |key: &str| {
        let (listener, port) = bind(PortProtocol::Tcp, Ipv4Addr::LOCALHOST.into(), 0).await.unwrap();
        let (changed, _) = mpsc::channel(1);
        Port::serve(forward(key, port), listener, guest.clone(), changed, places.share())
    };
    let (one, other) = (open("a/0").await, open("b/0").await);
    let first = connect(one.host_port()).await.unwrap();
    let (_, container) = containers.recv().await.unwrap();
    let second = connect(other.host_port()).await.unwrap();
    // Long enough for the second to be accepted and relayed, were there a place.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(containers.try_recv().is_err(), "there was no place for the second");
    drop((first, container));
    containers.recv().await.unwrap();
    drop(second);
}

#[tokio::test]
async fn clients_of_udp_ports_take_no_place_of_a_connection() {
    let mut world = world_with(|owner| {
        owner.connections = Places::new(1);
        owner.datagram_clients = Places::new(2);
    });
    let mut engine = world.engine().await;
    let udp = |key: &str| PortForward { protocol: PortProtocol::Udp, ..forward(key, 0) };
    let tcp = engine.publish(forward("web/0", 0)).await.unwrap();
    let (one, other) = (engine.publish(udp("a/0")).await.unwrap(), engine.publish(udp("b/0")).await.unwrap());
    let mut flows = Vec::new();
    let mut clients = Vec::new();
    let mut come = async |port: u16| {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.send_to(b"hello", (Ipv4Addr::LOCALHOST, port)).await.unwrap();
        clients.push(client);
    };
    come(one).await;
    flows.push(world.containers.recv().await.unwrap());
    // Half of the places are this port's, and it has them.
    come(one).await;
    come(other).await;
    flows.push(world.containers.recv().await.unwrap());
    let table = world.wait_for(|ports| ports.iter().map(|port| port.connections).sum::<u32>() == 2).await;
    let counted = |key: &str| table.iter().find(|port| port.forward.key == key).unwrap().connections;
    assert_eq!((counted("a/0"), counted("b/0")), (1, 1));
    let _client = connect(tcp).await.unwrap();
    assert_eq!(world.containers.recv().await.unwrap().0, Some(forward("web/0", 0).target));
}
