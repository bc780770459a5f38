//! What holds whatever is asked for, in whatever order, and whenever the engine is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::ops::RangeInclusive;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

use super::*;
use crate::book::{NetworkRecord, PortRecord, SandboxRecord};
use crate::drivers::Drivers;
use crate::ports::{Owner, Ports, Reach};
use crate::records::Records;
use crate::{AttachError, IpamPool};

/// Sequences are long and touch the disk or the kernel.
fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// What is done with containers and their addresses.
#[derive(Debug, Clone)]
enum Step {
    /// This container joins this network, where it may ask for an address.
    Join { container: usize, network: usize, asked: Option<u8> },
    /// It leaves one of its networks.
    Leave { container: usize, which: Index },
    /// It is gone.
    Detach { container: usize },
    /// The engine is killed, while it writes of this container if there is one, and the next one starts.
    Kill { writing: Option<usize> },
}

fn step() -> impl Strategy<Value = Step> {
    let container = 0usize..12;
    prop_oneof![
        6 => (container.clone(), 0usize..2, prop::option::weighted(0.3, any::<u8>()))
            .prop_map(|(container, network, asked)| Step::Join { container, network, asked }),
        3 => (container.clone(), any::<Index>()).prop_map(|(container, which)| Step::Leave { container, which }),
        2 => container.clone().prop_map(|container| Step::Detach { container }),
        1 => prop::option::of(container).prop_map(|writing| Step::Kill { writing }),
    ]
}

/// An engine's records, and what must be on them.
struct Desk {
    dir: tempfile::TempDir,
    records: Records,
    drivers: Drivers,
    networks: Vec<NetworkRecord>,
    expected: BTreeMap<String, SandboxRecord>,
}

impl Desk {
    /// One network of few addresses, and one of both families.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("root"), &dir.path().join("exec")).unwrap();
        let network = |name, ranges: &[&str]| NetworkRecord {
            ipv6: true,
            pools: ranges.iter().map(|range| IpamPool::of(range.parse().unwrap())).collect(),
            ..NetworkRecord::new(name, "bridge")
        };
        let small = NetworkRecord { ipv6: false, ..network("small", &["10.1.0.0/29"]) };
        let networks = vec![small, network("both", &["10.2.0.0/28", "fd00:2::/64"])];
        for network in &networks {
            records.pen().put_network(network.clone()).unwrap();
        }
        Self { dir, records, drivers: Drivers::new(false), networks, expected: BTreeMap::new() }
    }

    fn take(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Join { container, network, asked } => self.join(container, network, asked)?,
            Step::Leave { container, which } => self.leave(container, which),
            Step::Detach { container } => {
                self.records.pen().remove(&name(container)).unwrap();
                self.expected.remove(&name(container));
            }
            Step::Kill { writing } => self.kill(writing),
        }
        self.holds()
    }

    fn join(&mut self, container: usize, network: usize, asked: Option<u8>) -> TestCaseResult {
        let network = &self.networks[network];
        let IpAddr::V4(base) = network.pools[0].subnet.base() else { unreachable!() };
        let [a, b, c, _] = base.octets();
        let asked = asked.map(|last| std::net::Ipv4Addr::new(a, b, c, last % 16));
        let join = Join { network: network.name.clone(), ipv4: asked, ..Join::default() };
        let mut record = self.expected.get(&name(container)).cloned().unwrap_or_else(|| sandbox(container));
        if record.endpoints.iter().any(|endpoint| endpoint.endpoint.network_id == network.id) {
            return Ok(());
        }
        let pen = self.records.pen();
        let granted = pen.book().granted(&network.id);
        let driver = self.drivers.of(network);
        let endpoint = pen.book().new_endpoint(driver, network, &join, &record.endpoints, None);
        match endpoint {
            Ok(endpoint) => {
                let link = endpoint.endpoint.link.clone().unwrap();
                for address in link.addresses() {
                    prop_assert!(!granted.contains(&address.address), "{:?} is granted twice", address);
                    prop_assert!(!network.pools.iter().any(|pool| pool.gateway == Some(address.address)));
                }
                prop_assert!(asked.is_none_or(|asked| link.ipv4.unwrap().address == IpAddr::V4(asked)));
                record.endpoints.push(endpoint);
                pen.put(record.clone()).unwrap();
                self.expected.insert(name(container), record);
            }
            Err(AttachError::NoAddress { .. }) => {
                prop_assert_eq!(network.pools[0].next_free(&granted), None, "an address was lost");
            }
            Err(AttachError::AddressTaken) => {
                let asked = IpAddr::V4(asked.unwrap());
                prop_assert!(granted.contains(&asked) || !network.pools[0].may_be_asked_for(asked));
            }
            Err(AttachError::OutsideOfRange(address)) => {
                prop_assert!(!network.pools[0].subnet.contains(address));
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    }

    fn leave(&mut self, container: usize, which: Index) {
        let Some(record) = self.expected.get_mut(&name(container)) else { return };
        if !record.endpoints.is_empty() {
            record.endpoints.remove(which.index(record.endpoints.len()));
            self.records.pen().put(record.clone()).unwrap();
        }
    }

    /// A record that was being written is not yet one.
    fn kill(&mut self, writing: Option<usize>) {
        let (root, exec) = (self.dir.path().join("root"), self.dir.path().join("exec"));
        if let Some(container) = writing {
            fs::write(exec.join(format!("sandboxes/{}.json.new", name(container))), "{\"version\":2,\"cont")
                .unwrap();
        }
        self.records = Records::open(&root, &exec).unwrap();
    }

    fn holds(&self) -> TestCaseResult {
        let book = self.records.book();
        let on_record: BTreeMap<_, _> =
            book.sandboxes().map(|sandbox| (sandbox.container.clone(), sandbox.clone())).collect();
        prop_assert_eq!(&on_record, &self.expected);
        for network in &self.networks {
            let links = book.endpoints(&network.id).filter_map(|record| record.endpoint.link.as_ref());
            let addresses = links.map(|link| link.addresses().count()).sum::<usize>();
            prop_assert_eq!(book.granted(&network.id).len(), addresses, "two have one address");
        }
        Ok(())
    }
}

fn name(container: usize) -> String {
    format!("c{container}")
}

fn sandbox(container: usize) -> SandboxRecord {
    SandboxRecord {
        container: name(container),
        name: name(container),
        netns: None,
        endpoints: Vec::new(),
        ports: Vec::new(),
        cgroup: None,
        listeners: Vec::new(),
        wishes: Vec::new(),
        name_servers: Vec::new(),
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn no_address_is_granted_twice_or_lost(steps in prop::collection::vec(step(), 1..80)) {
        let mut desk = Desk::new();
        for step in steps {
            desk.take(step)?;
        }
    }
}

/// What is done with ports.
#[derive(Debug, Clone)]
enum Deed {
    /// A container without ports wishes for some; the engine may be killed before they are on record.
    Open { container: usize, wishes: Vec<Wish>, killed: bool },
    /// A container's ports are closed.
    Close { container: usize },
    /// Some other program takes a port of its own.
    Take { protocol: PortProtocol, address: usize, port: u16 },
    /// It gives one back.
    GiveBack { which: Index },
    /// The engine is killed, and the next one takes over.
    Kill,
}

/// A wish of `-p`: an address, and how many ports from the first on will do; any, if there is no first.
#[derive(Debug, Clone, Copy)]
struct Wish {
    protocol: PortProtocol,
    address: usize,
    first: Option<u16>,
    more: u16,
}

impl Wish {
    fn binding(self) -> PortBinding {
        let ports =
            self.first.map(|first| HostPorts::FirstFreeOf(first..=(first + self.more).min(*NUMBERS.end())));
        PortBinding {
            protocol: self.protocol,
            ..publish(ADDRESSES[self.address], ports.unwrap_or(HostPorts::Ephemeral))
        }
    }
}

const ADDRESSES: [Option<&str>; 5] =
    [None, Some("127.0.0.1"), Some("127.0.0.2"), Some("::1"), Some("0.0.0.0")];

const NUMBERS: RangeInclusive<u16> = 8000..=8003;

fn deed() -> impl Strategy<Value = Deed> {
    let (container, address, port) = (0usize..6, 0..ADDRESSES.len(), NUMBERS);
    let protocol = || prop_oneof![2 => Just(PortProtocol::Tcp), 1 => Just(PortProtocol::Udp)];
    let first = prop::option::weighted(0.8, port.clone());
    let more = prop_oneof![2 => Just(0), 1 => 1u16..4];
    let wish = (protocol(), address.clone(), first, more).prop_map(|(protocol, address, first, more)| Wish {
        protocol,
        address,
        first,
        more,
    });
    prop_oneof![
        5 => (container.clone(), prop::collection::vec(wish, 1..4), prop::bool::weighted(0.1))
            .prop_map(|(container, wishes, killed)| Deed::Open { container, wishes, killed }),
        3 => container.prop_map(|container| Deed::Close { container }),
        2 => (protocol(), address, port)
            .prop_map(|(protocol, address, port)| Deed::Take { protocol, address, port }),
        2 => any::<Index>().prop_map(|which| Deed::GiveBack { which }),
        1 => Just(Deed::Kill),
    ]
}

/// Where something is open.
type Place = (PortProtocol, SocketAddr);

/// What another program has open.
enum Other {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Other {
    fn take((protocol, at): Place) -> std::io::Result<Self> {
        match protocol {
            PortProtocol::Tcp => TcpListener::bind(at).map(Self::Tcp),
            PortProtocol::Udp => UdpSocket::bind(at).map(Self::Udp),
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Tcp(listener) => (PortProtocol::Tcp, listener.local_addr().unwrap()),
            Self::Udp(socket) => (PortProtocol::Udp, socket.local_addr().unwrap()),
        }
    }
}

/// An engine's ports, what is on record of them, and other programs.
struct Harbour {
    ports: Ports,
    recorded: BTreeMap<usize, Vec<PortRecord>>,
    others: Vec<Other>,
    /// Numbers that the system gave, until they were seen to be free again.
    given: BTreeSet<u16>,
}

impl Harbour {
    fn new() -> Self {
        Self { ports: engine(), recorded: BTreeMap::new(), others: Vec::new(), given: BTreeSet::new() }
    }

    async fn take(&mut self, deed: Deed) -> TestCaseResult {
        match deed {
            Deed::Open { container, wishes, killed } if !self.recorded.contains_key(&container) => {
                let name = name(container);
                let bindings: Vec<PortBinding> = wishes.iter().map(|wish| wish.binding()).collect();
                match self.ports.open(owner(&name), &bindings).await {
                    Ok(open) => {
                        self.is_granted(&wishes, &open)?;
                        if killed {
                            self.kill(open).await?;
                        } else {
                            self.recorded.insert(container, open);
                        }
                    }
                    Err(error) => prop_assert!(self.grants(&wishes).is_none(), "{}", error),
                }
            }
            Deed::Open { .. } => {}
            Deed::Close { container } => {
                if let Some(ports) = self.recorded.remove(&container) {
                    self.ports.close(&ports).await;
                }
            }
            Deed::Take { protocol, address, port } => {
                let address = ADDRESSES[address].unwrap_or("0.0.0.0").parse::<IpAddr>().unwrap();
                self.others.extend(Other::take((protocol, SocketAddr::new(address, port))));
            }
            Deed::GiveBack { which } if !self.others.is_empty() => {
                self.others.swap_remove(which.index(self.others.len()));
            }
            Deed::GiveBack { .. } => {}
            Deed::Kill => self.kill(Vec::new()).await?,
        }
        self.holds()
    }

    /// `unrecorded` were open besides those on record. What is on record is open again, for nobody else can have it.
    async fn kill(&mut self, unrecorded: Vec<PortRecord>) -> TestCaseResult {
        let open: Vec<PortRecord> = self.recorded.values().flatten().cloned().chain(unrecorded).collect();
        self.ports.close(&open).await;
        self.ports = engine();
        for (container, ports) in &self.recorded {
            for port in ports {
                let reopened = self.ports.reopen(&name(*container), port).await;
                prop_assert!(reopened.is_ok(), "{:?} is lost", port);
            }
        }
        Ok(())
    }

    /// The number that each wish gets, one after the other: the first that is free on all of its addresses, which for any number is
    /// none that we know. Nothing if one gets none.
    fn grants(&self, wishes: &[Wish]) -> Option<Vec<Option<u16>>> {
        let mut open = self.open();
        let grant = |wish: &Wish| {
            let HostPorts::FirstFreeOf(mut numbers) = wish.binding().host_ports else { return Some(None) };
            let granted = numbers.find(|number| {
                let taken = |place: &Place| open.iter().any(|other| collide(place, other));
                !places(wish, *number).iter().any(taken)
            })?;
            open.extend(places(wish, granted));
            Some(Some(granted))
        };
        wishes.iter().map(grant).collect()
    }

    /// What was opened is what was wished for.
    fn is_granted(&mut self, wishes: &[Wish], open: &[PortRecord]) -> TestCaseResult {
        let Some(grants) = self.grants(wishes) else {
            return Err(TestCaseError::fail(format!("{open:?} was granted, and is not free")));
        };
        let mut left = open.iter();
        for (wish, grant) in wishes.iter().zip(grants) {
            let first = left.as_slice().first().ok_or_else(|| TestCaseError::fail("a wish was forgotten"))?;
            let number = first.published.host_port.0;
            prop_assert!(grant.is_none_or(|grant| grant == number), "{} for {:?}", number, wish);
            prop_assert!(number != 0 && (grant.is_some() || !NUMBERS.contains(&number)));
            if grant.is_none() {
                self.given.insert(number);
            }
            let expected = places(wish, number);
            prop_assert_eq!(left.by_ref().take(expected.len()).map(place_of).collect::<Vec<_>>(), expected);
        }
        prop_assert_eq!(left.next(), None);
        Ok(())
    }

    /// What is on record, and others'.
    fn open(&self) -> Vec<Place> {
        self.recorded.values().flatten().map(place_of).chain(self.others.iter().map(Other::place)).collect()
    }

    /// Exactly what is on record is open, and nothing of it twice.
    fn holds(&mut self) -> TestCaseResult {
        for port in self.recorded.values().flatten() {
            prop_assert!(self.ports.is_open(port));
        }
        let open = self.open();
        for (n, port) in open.iter().enumerate() {
            prop_assert!(!open[..n].iter().any(|other| collide(port, other)), "two have {:?}", port);
        }
        for port in NUMBERS.chain(self.given.iter().copied()) {
            for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
                for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
                    let at = (protocol, SocketAddr::new(address.parse().unwrap(), port));
                    let is_taken = open.iter().any(|other| collide(&at, other));
                    prop_assert_eq!(Other::take(at).is_err(), is_taken, "{:?}", at);
                }
            }
        }
        self.given.retain(|number| open.iter().any(|(_, at)| at.port() == *number));
        Ok(())
    }
}

/// Where a wish is open under this number.
fn places(wish: &Wish, number: u16) -> Vec<Place> {
    let addresses = ADDRESSES[wish.address].map_or_else(|| vec!["0.0.0.0", "::"], |address| vec![address]);
    let at = |address: &str| (wish.protocol, SocketAddr::new(address.parse().unwrap(), number));
    addresses.into_iter().map(at).collect()
}

/// Whether two cannot be open at once.
fn collide((protocol, a): &Place, (others, b): &Place) -> bool {
    let one = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    protocol == others && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && one
}

fn engine() -> Ports {
    Ports::start(Publisher::Native, std::iter::empty())
}

fn owner(name: &str) -> Owner<'_> {
    Owner {
        container: name,
        name,
        reach: Reach { address: "172.17.0.2".parse().unwrap(), ipv6: None },
        routed: [None, None],
    }
}

fn place_of(port: &PortRecord) -> Place {
    (port.published.protocol, SocketAddr::new(port.published.host_ip, port.published.host_port.0))
}

/// Does this in a process of its own, which is this test in this program again. Programs that other tests start have all of this process'
/// sockets for a moment, from their birth until they are themselves, and a port that was closed meanwhile is open for that long.
fn alone(test: &str, work: impl FnOnce()) {
    const ALONE: &str = "CAISSON_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return work();
    }
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new(program).args([test, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn exactly_the_ports_on_record_are_open() {
    alone("tests::properties::exactly_the_ports_on_record_are_open", ports_are_as_on_record);
}

fn ports_are_as_on_record() {
    netns::isolated(|| {
        Netlink::open().unwrap().batch(vec![netlink::set_up(1)]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sequences = prop::collection::vec(deed(), 1..60);
        let held = TestRunner::new(cases(48)).run(&sequences, |deeds| {
            runtime.block_on(async {
                let mut harbour = Harbour::new();
                for deed in deeds {
                    harbour.take(deed).await?;
                }
                let open: Vec<PortRecord> = harbour.recorded.values().flatten().cloned().collect();
                harbour.ports.close(&open).await;
                Ok(())
            })
        });
        held.unwrap();
    });
}
