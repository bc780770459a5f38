//! What holds whatever the engine asks for, in whatever order, and whenever its streams and the machine end.
//!
//! Linux keeps two listeners apart by itself, so here it can be said exactly who may have a port; elsewhere `bind` has to see to that,
//! and has tests of its own.
#![cfg(target_os = "linux")]

use super::*;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestCaseResult, TestRunner},
};
use std::{collections::BTreeSet, fmt::Debug, net::SocketAddr};

const KEYS: usize = 5;

/// How many numbers are asked for by name.
const NUMBERS: u16 = 4;

/// Others take one of the first four: `::` would be of both families for them. The last is no address of this computer's.
const ADDRESSES: [&str; 6] = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "192.0.2.1"];

/// A forward to come: one of the numbers, or any.
#[derive(Debug, Clone, Copy)]
struct Wish {
    key: usize,
    protocol: PortProtocol,
    address: usize,
    number: Option<u16>,
    target: u8,
}

#[derive(Debug, Clone)]
enum Deed {
    Publish(Wish),
    Unpublish {
        key: usize,
        keep_connections: bool,
    },
    /// Tells the whole truth: of what is open that which is not forgotten, and more.
    Reconcile {
        forgotten: Vec<usize>,
        more: Vec<Wish>,
    },
    /// The engine asks for these without waiting, and is killed. The next one knows only what was answered before.
    Kill {
        asked: Vec<Wish>,
    },
    /// The machine goes off, maybe while it asks, and on again.
    Off {
        asked: Vec<Wish>,
    },
    /// Some other program takes a port, or gives one back.
    Take {
        protocol: PortProtocol,
        address: usize,
        number: u16,
    },
    GiveBack {
        which: Index,
    },
    /// A client comes and stays.
    Come {
        which: Index,
    },
}

fn wish() -> impl Strategy<Value = Wish> {
    let number = prop::option::weighted(0.8, 0..NUMBERS);
    (0..KEYS, protocol(), address(), number, 1u8..3)
        .prop_map(|(key, protocol, address, number, target)| Wish { key, protocol, address, number, target })
}

fn protocol() -> impl Strategy<Value = PortProtocol> {
    prop_oneof![2 => Just(PortProtocol::Tcp), 1 => Just(PortProtocol::Udp)]
}

fn address() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..ADDRESSES.len() - 1, 1 => Just(ADDRESSES.len() - 1)]
}

fn deed() -> impl Strategy<Value = Deed> {
    let wishes = || prop::collection::vec(wish(), 0..5);
    let keys = prop::collection::vec(0..KEYS, 0..4);
    prop_oneof![
        12 => wish().prop_map(Deed::Publish),
        6 => (0..KEYS, any::<bool>())
            .prop_map(|(key, keep_connections)| Deed::Unpublish { key, keep_connections }),
        3 => (keys, wishes()).prop_map(|(forgotten, more)| Deed::Reconcile { forgotten, more }),
        2 => wishes().prop_map(|asked| Deed::Kill { asked }),
        1 => wishes().prop_map(|asked| Deed::Off { asked }),
        3 => (protocol(), 0usize..4, 0..NUMBERS)
            .prop_map(|(protocol, address, number)| Deed::Take { protocol, address, number }),
        3 => any::<Index>().prop_map(|which| Deed::GiveBack { which }),
        3 => any::<Index>().prop_map(|which| Deed::Come { which }),
    ]
}

/// Where something is open.
type Place = (PortProtocol, SocketAddr);

fn place(forward: &PortForward) -> Place {
    (forward.protocol, SocketAddr::new(forward.host_ip, forward.host_port))
}

/// Whether two cannot be open at once.
fn collide((protocol, a): &Place, (others, b): &Place) -> bool {
    let one = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    protocol == others && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && one
}

/// What another program has open.
#[derive(Debug)]
enum Other {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

impl Other {
    fn take((protocol, at): Place) -> std::io::Result<Self> {
        match protocol {
            PortProtocol::Tcp => std::net::TcpListener::bind(at).map(Self::Tcp),
            PortProtocol::Udp => std::net::UdpSocket::bind(at).map(Self::Udp),
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Tcp(listener) => (PortProtocol::Tcp, listener.local_addr().unwrap()),
            Self::Udp(socket) => (PortProtocol::Udp, socket.local_addr().unwrap()),
        }
    }
}

/// Numbers that nobody has, below those that systems give away themselves. Tests that run beside this one look elsewhere.
fn free_numbers() -> Vec<u16> {
    let first = 10_000 + (std::process::id() % 5_000) as u16 * 4;
    let is_free = |number: &u16| {
        let every =
            |address| [PortProtocol::Tcp, PortProtocol::Udp].map(|of| (of, (address, *number).into()));
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];
        everywhere.into_iter().flat_map(every).all(|place| Other::take(place).is_ok())
    };
    let free: Vec<u16> = (first..32_000).filter(is_free).take(NUMBERS.into()).collect();
    assert_eq!(free.len(), usize::from(NUMBERS), "no ports are free");
    free
}

/// A client that stays, and the container that it came to.
struct Client {
    stream: TcpStream,
    container: DuplexStream,
    /// Whose port it came through, as long as it would be cut with that.
    through: Option<String>,
}

impl Client {
    async fn still_talks(&mut self) -> TestCaseResult {
        let mut heard = [0; 4];
        self.stream.write_all(b"ping").await?;
        self.container.read_exact(&mut heard).await?;
        self.container.write_all(b"pong").await?;
        self.stream.read_exact(&mut heard).await?;
        prop_assert_eq!(&heard, b"pong");
        Ok(())
    }

    /// Returns when both sides have seen the end.
    async fn ends(mut self) -> TestCaseResult {
        let ended = self.stream.read(&mut [0]).await;
        prop_assert!(matches!(ended, Ok(0) | Err(_)), "{:?}", ended);
        let ended = self.container.read(&mut [0]).await;
        prop_assert!(matches!(ended, Ok(0) | Err(_)), "{:?}", ended);
        Ok(())
    }
}

/// A host's ports, what is to be open of them, and other programs.
struct Harbour {
    world: World,
    engine: Engine,
    numbers: Vec<u16>,
    open: BTreeMap<String, PortForward>,
    others: Vec<Other>,
    clients: Vec<Client>,
    /// Where the system gave a number, until that was seen to be free again. Other addresses of it may be anybody's.
    given: BTreeSet<Place>,
}

impl Harbour {
    async fn new(numbers: &[u16]) -> Self {
        let world = world();
        let mut engine = world.engine().await;
        assert_eq!(engine.reconcile(Vec::new()).await, []);
        Self {
            world,
            engine,
            numbers: numbers.to_vec(),
            open: BTreeMap::new(),
            others: Vec::new(),
            clients: Vec::new(),
            given: BTreeSet::new(),
        }
    }

    fn forward(&self, wish: &Wish) -> PortForward {
        PortForward {
            key: key(wish.key),
            host_ip: ADDRESSES[wish.address].parse().unwrap(),
            host_port: wish.number.map_or(0, |number| self.numbers[usize::from(number)]),
            protocol: wish.protocol,
            target: SocketAddr::new(Ipv4Addr::new(172, 17, 0, wish.target).into(), 80),
        }
    }

    async fn take(&mut self, deed: Deed) -> TestCaseResult {
        match deed {
            Deed::Publish(wish) => {
                let forward = self.forward(&wish);
                let answer = self.engine.publish(forward.clone()).await;
                self.was_published(&forward, &answer).await?;
            }
            Deed::Unpublish { key: which, keep_connections } => {
                self.engine.unpublish_with(&key(which), keep_connections).await;
                self.was_closed(&key(which), keep_connections).await?;
            }
            Deed::Reconcile { forgotten, more } => {
                let forgotten: Vec<String> = forgotten.into_iter().map(key).collect();
                let mut truth = self.open.clone();
                truth.retain(|key, _| !forgotten.contains(key));
                truth.extend(more.iter().map(|wish| (key(wish.key), self.forward(wish))));
                self.reconcile(truth).await?;
            }
            Deed::Kill { asked } => {
                self.ask(&asked).await?;
                // What it had no answer to may have been done, and is undone.
                let keys: Vec<String> = asked.iter().map(|wish| key(wish.key)).collect();
                self.clients.retain(|client| !client.through.as_ref().is_some_and(|key| keys.contains(key)));
                self.engine = self.world.engine().await;
                self.reconcile(self.open.clone()).await?;
                // One turn for each that the last engine asked for, should any of it be waiting still.
                for _ in asked {
                    self.engine.unpublish("unknown/0").await;
                }
            }
            Deed::Off { asked } => self.off(&asked).await?,
            Deed::Take { protocol, address, number } => {
                let at =
                    SocketAddr::new(ADDRESSES[address].parse().unwrap(), self.numbers[usize::from(number)]);
                let is_taken = self.is_taken(&(protocol, at));
                let taken = Other::take((protocol, at));
                prop_assert_eq!(taken.is_err(), is_taken, "{}: {:?}", at, taken);
                self.others.extend(taken);
            }
            Deed::GiveBack { which } if !self.others.is_empty() => {
                self.others.swap_remove(which.index(self.others.len()));
            }
            Deed::GiveBack { .. } => {}
            Deed::Come { which } => {
                let tcp: Vec<_> =
                    self.open.values().filter(|port| port.protocol == PortProtocol::Tcp).cloned().collect();
                if !tcp.is_empty() {
                    let client = self.connect(which.get(&tcp)).await?;
                    self.clients.push(client);
                }
            }
        }
        self.holds().await
    }

    /// Asks for these and hears no answer.
    async fn ask(&mut self, wishes: &[Wish]) -> TestCaseResult {
        for wish in wishes {
            self.engine.id += 1;
            let call = PortsCall::Publish { forward: self.forward(wish) };
            let request = PortsRequest { id: self.engine.id, call };
            write_frame(&mut self.engine.stream, &request).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn off(&mut self, asked: &[Wish]) -> TestCaseResult {
        self.ask(asked).await?;
        self.world.machine.send_replace(status(MachineState::Stopped));
        // What was answered before is of no use any more; then the stream ends.
        while let Ok(Some(_)) = read_frame::<PortsReply>(&mut self.engine.stream).await {}

        self.world.wait_for(Vec::is_empty).await;

        self.open.clear();
        for client in self.clients.drain(..) {
            client.ends().await?;
        }

        self.world.machine.send_replace(status(MachineState::Running));
        self.engine = self.world.engine().await;
        self.reconcile(BTreeMap::new()).await
    }

    /// What is no longer true is closed before anything is opened.
    async fn reconcile(&mut self, truth: BTreeMap<String, PortForward>) -> TestCaseResult {
        let outcomes = self.engine.reconcile(truth.values().cloned().collect()).await;
        let keys: Vec<_> = outcomes.iter().map(|outcome| &outcome.key).collect();
        prop_assert_eq!(keys, truth.keys().collect::<Vec<_>>());
        for open in self.open.values().cloned().collect::<Vec<_>>() {
            if truth.get(&open.key).is_none_or(|wanted| !is(&open, wanted)) {
                self.was_closed(&open.key, false).await?;
            }
        }
        for (forward, outcome) in truth.values().zip(&outcomes) {
            self.was_published(forward, &outcome.result).await?;
        }
        Ok(())
    }

    /// Notes what was answered, which is what could be.
    async fn was_published(
        &mut self,
        forward: &PortForward,
        answer: &Result<u16, PublishRefused>,
    ) -> TestCaseResult {
        if let Some(open) = self.open.get(&forward.key).filter(|open| is(open, forward)) {
            prop_assert_eq!(answer, &Ok(open.host_port));
            return Ok(());
        }
        self.was_closed(&forward.key, false).await?;
        match answer {
            Ok(number) => {
                let bound = PortForward { host_port: *number, ..forward.clone() };
                prop_assert!(*number == forward.host_port || forward.host_port == 0);
                prop_assert!(*number != 0 && !self.is_taken(&place(&bound)), "{:?} was granted twice", bound);
                if forward.host_port == 0 {
                    prop_assert!(!self.numbers.contains(number));
                    self.given.insert(place(&bound));
                }
                self.open.insert(bound.key.clone(), bound);
            }
            Err(refused) => {
                let expected = if forward.host_ip == IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)) {
                    RefusalCode::NotAvailable
                } else {
                    prop_assert!(self.is_taken(&place(forward)), "{:?} is free: {}", forward, refused);
                    RefusalCode::InUse
                };
                prop_assert_eq!(refused.code, expected);
            }
        }
        Ok(())
    }

    async fn was_closed(&mut self, key: &str, keep_connections: bool) -> TestCaseResult {
        self.open.remove(key);
        let (its, others) = self.clients.drain(..).partition(|client| client.through.as_deref() == Some(key));
        self.clients = others;
        let its: Vec<Client> = its;
        for client in its {
            if keep_connections {
                self.clients.push(Client { through: None, ..client });
            } else {
                client.ends().await?;
            }
        }
        Ok(())
    }

    fn is_taken(&self, place: &Place) -> bool {
        self.places().iter().any(|other| collide(place, other))
    }

    /// What is open, and others'.
    fn places(&self) -> Vec<Place> {
        self.open.values().map(place).chain(self.others.iter().map(Other::place)).collect()
    }

    async fn connect(&mut self, port: &PortForward) -> Result<Client, TestCaseError> {
        let stream = TcpStream::connect(reachable(port)).await?;
        let container = self.reached(port).await?;
        Ok(Client { stream, container, through: Some(port.key.clone()) })
    }

    /// A datagram makes a flow, which ends with its container.
    async fn send(&mut self, port: &PortForward) -> TestCaseResult {
        let at = reachable(port);
        let from = SocketAddr::new(at.ip(), 0);
        let client = UdpSocket::bind(from).await?;
        client.send_to(b"ping", at).await?;
        let mut container = self.reached(port).await?;
        let mut heard = Vec::new();
        prop_assert!(read_message(&mut container, &mut heard).await?);
        prop_assert_eq!(heard, b"ping");
        Ok(())
    }

    async fn reached(&mut self, port: &PortForward) -> Result<DuplexStream, TestCaseError> {
        let (target, container) = self.world.containers.recv().await.expect("the guest is there");
        prop_assert_eq!(target, Some(port.target));
        Ok(container)
    }

    /// Exactly what is on the table is open, leads where it says, and nothing of it twice.
    async fn holds(&mut self) -> TestCaseResult {
        let open: Vec<PortForward> = self.open.values().cloned().collect();
        // What came of the call before is on the table once this one is answered.
        self.engine.unpublish("unknown/0").await;
        let shown: Vec<_> =
            self.world.ports.table().borrow().iter().map(|port| port.forward.clone()).collect();
        prop_assert_eq!(&shown, &open);
        let places = self.places();
        for (n, place) in places.iter().enumerate() {
            prop_assert!(!places[..n].iter().any(|other| collide(place, other)), "two have {:?}", place);
        }
        for port in &open {
            match port.protocol {
                PortProtocol::Tcp => drop(self.connect(port).await?),
                PortProtocol::Udp => self.send(port).await?,
            }
        }
        for client in &mut self.clients {
            client.still_talks().await?;
        }
        let mut looked_at = self.given.clone();
        for number in &self.numbers {
            for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
                let at = SocketAddr::new(address.parse().unwrap(), *number);
                looked_at.extend([(PortProtocol::Tcp, at), (PortProtocol::Udp, at)]);
            }
        }
        for at in looked_at {
            let is_taken = places.iter().any(|other| collide(&at, other));
            prop_assert_eq!(Other::take(at).is_err(), is_taken, "{:?}", at);
        }
        self.given.retain(|given| places.contains(given));
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("c/{number}")
}

/// Whether what is open is what is wanted; any number will do where any is asked for.
fn is(open: &PortForward, wanted: &PortForward) -> bool {
    let host_port = if wanted.host_port == 0 { open.host_port } else { wanted.host_port };
    *open == PortForward { host_port, ..wanted.clone() }
}

/// Where a client gets to a port.
fn reachable(port: &PortForward) -> SocketAddr {
    let ip = match port.host_ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, port.host_port)
}

fn failed(error: impl Debug) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

#[test]
fn exactly_what_was_answered_is_open() {
    let numbers = free_numbers();
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let held = TestRunner::new(config).run(&prop::collection::vec(deed(), 1..50), |deeds| {
        // More than one worker: what is closed only after it was answered is to be found open. And none goes on after its case.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut harbour = Harbour::new(&numbers).await;
            for deed in deeds {
                harbour.take(deed).await?;
            }
            // Nothing is left of any of it.
            harbour.off(&[]).await?;
            harbour.holds().await
        })
    });
    held.unwrap();
}
