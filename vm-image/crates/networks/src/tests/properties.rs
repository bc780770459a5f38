//! What holds whatever is asked for, in whatever order, and whenever the engine is killed.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use super::*;
use crate::book::{NetworkRecord, PortRecord, SandboxRecord};
use crate::drivers::Drivers;
use crate::ports::{Owner, Ports};
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
    Open { container: usize, wishes: Vec<(usize, u16)>, killed: bool },
    /// A container's ports are closed.
    Close { container: usize },
    /// Some other program takes a port of its own.
    Take { address: usize, port: u16 },
    /// It gives one back.
    GiveBack { which: Index },
    /// The engine is killed, and the next one takes over.
    Kill,
}

const ADDRESSES: [Option<&str>; 5] =
    [None, Some("127.0.0.1"), Some("127.0.0.2"), Some("::1"), Some("0.0.0.0")];

fn deed() -> impl Strategy<Value = Deed> {
    let (container, address, port) = (0usize..6, 0..ADDRESSES.len(), 8000u16..8004);
    let wishes = prop::collection::vec((address.clone(), port.clone()), 1..4);
    prop_oneof![
        5 => (container.clone(), wishes, prop::bool::weighted(0.1))
            .prop_map(|(container, wishes, killed)| Deed::Open { container, wishes, killed }),
        3 => container.prop_map(|container| Deed::Close { container }),
        2 => (address, port).prop_map(|(address, port)| Deed::Take { address, port }),
        2 => any::<Index>().prop_map(|which| Deed::GiveBack { which }),
        1 => Just(Deed::Kill),
    ]
}

/// An engine's ports, what is on record of them, and other programs.
struct Harbour {
    ports: Ports,
    recorded: BTreeMap<usize, Vec<PortRecord>>,
    others: Vec<TcpListener>,
}

impl Harbour {
    fn new() -> Self {
        Self { ports: engine(), recorded: BTreeMap::new(), others: Vec::new() }
    }

    async fn take(&mut self, deed: Deed) -> TestCaseResult {
        match deed {
            Deed::Open { container, wishes, killed } if !self.recorded.contains_key(&container) => {
                let wishes: Vec<PortBinding> = wishes
                    .into_iter()
                    .map(|(address, port)| publish(ADDRESSES[address], HostPorts::exactly(port)))
                    .collect();
                let name = name(container);
                match self.ports.open(owner(&name), &wishes).await {
                    Ok(open) if killed => self.kill(open).await?,
                    Ok(open) => drop(self.recorded.insert(container, open)),
                    Err(error) => prop_assert!(self.are_taken(&wishes), "{}", error),
                }
            }
            Deed::Open { .. } => {}
            Deed::Close { container } => {
                if let Some(ports) = self.recorded.remove(&container) {
                    self.ports.close(&ports).await;
                }
            }
            Deed::Take { address, port } => {
                let address = ADDRESSES[address].unwrap_or("0.0.0.0").parse::<IpAddr>().unwrap();
                self.others.extend(TcpListener::bind(SocketAddr::new(address, port)));
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
                let reopened = self.ports.reopen(owner(&name(*container)), port).await;
                prop_assert!(reopened.is_ok(), "{:?} is lost", port);
            }
        }
        Ok(())
    }

    /// Whether these cannot all be open.
    fn are_taken(&self, wishes: &[PortBinding]) -> bool {
        let mut open = self.open();
        wishes.iter().any(|wish| {
            let addresses = wish.host_ip.map_or_else(|| vec!["0.0.0.0", "::"], |_| Vec::new());
            let addresses = addresses.into_iter().map(|address| address.parse().unwrap()).chain(wish.host_ip);
            let HostPorts::FirstFreeOf(ports) = &wish.host_ports else { unreachable!() };
            let wanted: Vec<_> = addresses.map(|address| SocketAddr::new(address, *ports.start())).collect();
            let is_taken = wanted.iter().any(|wanted| open.iter().any(|other| collide(wanted, other)));
            open.extend(wanted);
            is_taken
        })
    }

    /// What is on record, and others'.
    fn open(&self) -> Vec<SocketAddr> {
        let others = self.others.iter().map(|other| other.local_addr().unwrap());
        self.recorded.values().flatten().map(address_of).chain(others).collect()
    }

    /// Exactly what is on record is open, and nothing of it twice.
    fn holds(&self) -> TestCaseResult {
        for port in self.recorded.values().flatten() {
            prop_assert!(self.ports.is_open(port));
        }
        let open = self.open();
        for (n, port) in open.iter().enumerate() {
            prop_assert!(!open[..n].iter().any(|other| collide(port, other)), "two have {}", port);
        }
        for port in 8000u16..8004 {
            for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
                let at = SocketAddr::new(address.parse().unwrap(), port);
                let is_taken = open.iter().any(|other| collide(&at, other));
                prop_assert_eq!(TcpListener::bind(at).is_err(), is_taken, "{}", at);
            }
        }
        Ok(())
    }
}

/// Whether two cannot be open at once.
fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    let one = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && one
}

fn engine() -> Ports {
    Ports::start(Publisher::Native, std::iter::empty())
}

fn owner(name: &str) -> Owner<'_> {
    Owner { container: name, name, address: "172.17.0.2".parse().unwrap(), routed: [None, None] }
}

fn address_of(port: &PortRecord) -> SocketAddr {
    SocketAddr::new(port.published.host_ip, port.published.host_port.0)
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
        let held = TestRunner::new(cases(64)).run(&sequences, |deeds| {
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
