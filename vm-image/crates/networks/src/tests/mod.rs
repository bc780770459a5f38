//! Whole sandboxes, each test in a system of its own: network and mount namespaces that end with it.
//!
//! Without root these are skipped, with the reason on stderr.

mod crashes;
mod dns;
mod firewall;
mod latency;
mod overlay;
mod properties;
mod publishing;
mod sandboxes;
mod user_defined;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caisson_guest_proto::PortProtocol;
use caisson_sys::netns::{self, Netns};

use crate::netlink::{self, Netlink};
use crate::{
    AttachRequest, ContainerPort, HostPorts, Join, Networks, Options, PortBinding, Publisher, Sandbox,
};

/// Nothing here waits so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

/// Where an engine of a test keeps its things.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn exec_root(&self) -> PathBuf {
        self.0.path().join("exec")
    }

    async fn open(&self) -> Networks {
        Networks::open(&self.root(), &self.exec_root(), Options::new(Publisher::Native)).await.unwrap()
    }

    fn namespaces(&self) -> usize {
        std::fs::read_dir(self.exec_root().join("netns")).unwrap().count()
    }
}

/// Runs a test in a system of its own that has a loopback device and nothing else.
fn in_own_system<F: Future<Output = ()>>(test: impl FnOnce(Home) -> F + Send) {
    netns::isolated(|| {
        Netlink::open().unwrap().batch(vec![netlink::set_up(1)]).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(LIMIT, test(Home::new())).await.unwrap() });
    });
}

/// What is left of an engine that did not say good-bye: the records, and nothing in memory.
async fn forget(networks: Networks) {
    let ports = crate::firewall::ports(&networks.shared.book());
    networks.shared.ports.close(&ports).await;
}

fn request(container: &str, ports: Vec<PortBinding>) -> AttachRequest {
    on("bridge", container, ports)
}

fn on(network: &str, container: &str, ports: Vec<PortBinding>) -> AttachRequest {
    let networks = vec![Join { network: network.into(), ..Join::default() }];
    AttachRequest {
        container: container.into(),
        name: container.into(),
        networks,
        ports,
        name_servers: Vec::new(),
        namespace: None,
        cgroup: None,
    }
}

/// `-p HOST:80`
fn publish(host_ip: Option<&str>, host_ports: HostPorts) -> PortBinding {
    PortBinding {
        container_port: ContainerPort(80),
        protocol: PortProtocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_ports,
    }
}

/// The names of the devices of this system, without the loopback device.
fn devices() -> Vec<String> {
    let links = netlink::links(&mut Netlink::open().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect()
}

fn inside<T: Send>(sandbox: &Sandbox, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    let netns = Netns::open(sandbox.netns.as_ref().unwrap()).unwrap();
    netns::enter(&netns, work).unwrap()
}

fn address(sandbox: &Sandbox) -> IpAddr {
    sandbox.endpoints[0].link.as_ref().unwrap().ipv4.unwrap().address
}

/// A server in a sandbox, on port 80; the socket stays there whoever accepts.
fn listen_in(sandbox: &Sandbox) -> TcpListener {
    inside(sandbox, || TcpListener::bind("0.0.0.0:80"))
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Says something both ways and closes both ways.
fn converse(mut client: TcpStream, server: &TcpListener) {
    let (mut served, _) = server.accept().unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    served.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"question");
    served.write_all(b"answer").unwrap();
    drop(served);
    heard.clear();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"answer");
}

/// Our table without what it has counted; empty if there is none.
fn rules() -> String {
    let listed = Command::new("nft").args(["-s", "list", "table", "inet", "caisson"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

/// A table of our name that is another program's, which the kernel lets nobody else change while that lives.
pub(crate) struct OthersTable(Child);

impl OthersTable {
    /// Takes the name, whoever has it. Returns when the table is there.
    pub(crate) fn hold() -> Self {
        let nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut nft = nft.expect("nft of package nftables");
        let take = "table inet caisson; delete table inet caisson; table inet caisson { flags owner; }\n";
        nft.stdin.as_mut().unwrap().write_all(take.as_bytes()).unwrap();
        let give_up_at = Instant::now() + LIMIT;
        while !is_owned() {
            assert!(nft.try_wait().unwrap().is_none(), "nft has ended");
            assert!(Instant::now() < give_up_at, "the table is not nft's");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(nft)
    }
}

fn is_owned() -> bool {
    let listed = Command::new("nft").args(["list", "table", "inet", "caisson"]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).contains("flags owner")
}

impl Drop for OthersTable {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
