//! Names: every container on a network that users have made asks us, at 127.0.0.11.
//!
//! ```text
//! container --127.0.0.11:53--> rule in its namespace --127.0.0.11:N--> our socket there --> names on its networks
//!                                                                                      '--> cache --> name servers
//! ```
//!
//! The sockets are bound inside the container's namespace, under numbers that the kernel chooses, and a rule of ours in
//! that namespace leads port 53 there: so port 53 of all addresses stays the container's own. Who asks is known by the
//! socket that is asked, so a container learns names of its own networks only, and nobody can pose as another.
//!
//! What is answered is decided anew for each question, from the records (`names`): there is no second list of names that
//! could be wrong. What we do not know is asked of the name servers of this system, or those that the user chose for the
//! container (`upstream`), and remembered for as long as they say (`cache`).

mod cache;
mod message;
mod names;
mod server;
mod upstream;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caisson_nftables::{Chain, ChainKind, Family, Hook, Kernel, Key, NatTarget, Rule, Table, priority};
use caisson_sys::netns::{self, Netns};
use tokio::task::JoinSet;

pub(crate) use names::{Found, find, name_of};
use server::Sockets;
use upstream::Upstreams;

/// Where containers ask.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;

/// The name of our table in a container's namespace.
const TABLE: &str = "caisson-dns";

/// Who knows the names: the records.
pub(crate) trait Names: Send + Sync + 'static {
    /// What a container finds under a name; `None` if it is none of ours.
    fn find(&self, container: &str, name: &str) -> Option<Found>;
    /// The name behind an address, as `name.network`; `None` if it is none of ours.
    fn name_of(&self, container: &str, address: IpAddr) -> Option<String>;
    /// Who else is asked: the name servers that the user chose for a container, and whether it may ask anybody.
    fn outside(&self, container: &str) -> Outside;
}

/// Whom a container's questions may be passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Nobody: no way out leads from its networks.
    Nobody,
    /// The name servers of this system.
    Ours,
    /// These, asked from inside the container's namespace.
    Chosen(Vec<IpAddr>, PathBuf),
}

/// The servers of all containers.
#[derive(Debug)]
pub(crate) struct Resolvers {
    running: Mutex<HashMap<String, JoinSet<()>>>,
    upstreams: Arc<Upstreams>,
}

impl Resolvers {
    /// `servers` answer what we do not know; none is what the system's resolv.conf(5) names at that time.
    pub(crate) fn new(servers: Vec<IpAddr>) -> Self {
        Self { running: Mutex::default(), upstreams: Arc::new(Upstreams::new(servers)) }
    }

    /// Starts to answer a container whose namespace is bound to `netns`; it is answered when this returns.
    pub(crate) async fn start(
        &self,
        container: &str,
        netns: PathBuf,
        names: Arc<dyn Names>,
    ) -> io::Result<()> {
        let sockets = crate::networks::blocking(move || open(&netns)).await?;
        let mut tasks = JoinSet::new();
        server::serve(sockets, container.to_owned(), names, Arc::clone(&self.upstreams), &mut tasks)?;
        self.running().insert(container.to_owned(), tasks);
        Ok(())
    }

    /// Whether a container is answered.
    pub(crate) fn serves(&self, container: &str) -> bool {
        self.running().contains_key(container)
    }

    /// Stops answering a container; its sockets are closed soon after.
    pub(crate) fn stop(&self, container: &str) {
        self.running().remove(container);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, JoinSet<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sockets in a namespace, and the rules that lead there. Blocks for the kernel.
fn open(netns: &std::path::Path) -> io::Result<Sockets> {
    netns::enter(&Netns::open(netns)?, || {
        let sockets = Sockets::bind(SocketAddr::from((ADDRESS, 0)))?;
        let (udp, tcp) = sockets.ports()?;
        Kernel::open()?.replace(&table(udp, tcp)).map_err(io::Error::other)?;
        Ok(sockets)
    })
}

fn table(udp: u16, tcp: u16) -> Table {
    let lead = |key: Key, port: u16, what: &str| {
        Rule::new()
            .is(Key::Ip4Daddr, IpAddr::V4(ADDRESS))
            .is(key, PORT)
            .dnat(NatTarget::To(ADDRESS.into(), Some(port)))
            .comment(format!("questions for names over {what}"))
    };
    let chain = Chain::base("output", ChainKind::Nat, Hook::Output, priority::DSTNAT)
        .rule(lead(Key::UdpDport, udp, "UDP"))
        .rule(lead(Key::TcpDport, tcp, "TCP"));
    Table::new(Family::Ip, TABLE).chain(chain)
}
