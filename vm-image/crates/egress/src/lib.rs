//! The machine's way out: it has no network card, so what leaves it goes over streams to the host, which opens ordinary
//! sockets (guest-proto EGRESS).
//!
//! ```text
//!  container ── SYN ──▶ nftables: queue ──▶ queue ──▶ tcp: asks the host ──▶ host connects
//!                          │   ◀── go on (mark), or reset, or unreachable ◀────────┘
//!                          ▼
//!                       tproxy ──▶ listener of tcp ◀══ bytes ══▶ stream of the host's
//! ```
//!
//! - **TCP**: the first packet waits in the kernel until the host's connect has succeeded or failed, and is answered
//!   accordingly; so a container meets the same errors as a program on the host. Then a transparent proxy carries the
//!   bytes. Retransmitted first packets are dropped while one waits, and all waiting is bounded: in all and for each
//!   source.
//! - **UDP**: a flow is what one socket sends to one address. Each has a socket of its own here, which the kernel finds by
//!   itself from the second datagram on, and ends when nothing went either way for a while. That nobody listens there, or
//!   that there is no way, is told to the sender as its own kernel would tell it (ICMP).
//! - **Pings** are held and answered like connections; the answers are made here.
//! - **Published ports** are the other way round: [`clients`] connects to containers in the name of who came to the host.
//!   Connections with a container that is gone end by themselves, whichever side began them (`keepalive`).
//! - **DNS**: 127.0.0.1:53 leads to the host's resolver, and so does [`DNS_ADDRESS`], which containers can reach.
//!
//! Everything here is tasks of one thread, none of which waits for another; an idle flow holds no buffer. If this ends,
//! nothing leaves the machine any more (the queue has no reader): it fails closed.
//!
//! The kernel's part is in `rules` (what is classified, held, given to the proxy) and `link` (a device for the default
//! route, and the policy route that turns marked packets inwards).

pub mod clients;
mod decided;
mod dns;
mod echo;
mod flows;
mod host;
mod keepalive;
mod link;
mod packet;
mod queue;
mod raw;
mod rules;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod watched;

use std::io;
use std::rc::Rc;

pub use host::Host;
pub use link::ADDRESS_V4 as DNS_ADDRESS;

use flows::Flows;
use packet::Packet;
use queue::{Queue, Verdict};

/// The kernel modules that this needs. Loaded beforehand it is ready ten times as soon: the packet filter asks for what a
/// rule lacks, starts all over, and then asks for all that it ever asked for once more (`nf_tables_module_autoload`), each
/// time by a program of its own.
pub const MODULES: [&str; 9] = [
    "nfnetlink_queue",
    "nf_tables",
    "nft_ct",
    "nft_queue",
    "nft_socket",
    "nft_reject_inet",
    "nft_fib_inet",
    "nft_tproxy",
    "dummy",
];

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The device or a route could not be made.
    #[error("could not {0}")]
    Link(&'static str, #[source] io::Error),
    /// The kernel refused the rules.
    #[error("could not set the rules of what leaves the machine")]
    Rules(#[from] caisson_nftables::KernelError),
    /// A socket could not be opened.
    #[error("could not {0}")]
    Socket(&'static str, #[source] io::Error),
}

fn socket<T>(doing: &'static str, made: io::Result<T>) -> Result<T, EgressError> {
    made.map_err(|source| EgressError::Socket(doing, source))
}

/// The way out, ready to be used once it [runs](Egress::run).
pub struct Egress {
    queue: Queue,
    tcp: tcp::Listeners,
    udp: udp::Listeners,
    raw: raw::Raw,
    dns: dns::Listeners,
}

impl Egress {
    /// Makes the device, the routes and the rules in the calling thread's network namespace, and opens all sockets. What
    /// an earlier call made is taken over.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What could not be made. Rules come last, so nothing is sent this way before it leads somewhere.
    pub fn prepare() -> Result<Self, EgressError> {
        link::make()?;
        let egress = Self {
            queue: socket("read the queue of held packets", Queue::bind(rules::QUEUE))?,
            tcp: socket("listen for connections that leave the machine", tcp::Listeners::bind())?,
            udp: socket("listen for datagrams that leave the machine", udp::Listeners::bind())?,
            raw: socket("open the sockets that answer for others", raw::Raw::open())?,
            dns: socket("listen for DNS queries", dns::Listeners::bind())?,
        };
        let kernel = socket("speak with the packet filter", caisson_nftables::Kernel::open())?;
        kernel.replace(&rules::table())?;
        Ok(egress)
    }

    /// Carries everything to the host until it is dropped. Must run in a `LocalSet`.
    pub async fn run(self, host: impl Host) {
        let flows = Flows::default();
        let (queue, raw) = (Rc::new(self.queue), Rc::new(self.raw));
        let tcp = tcp::Tcp::new(host.clone(), queue.clone(), flows.clone());
        let pings = echo::Pings::new(host.clone(), queue.clone(), flows.clone(), raw.clone());
        tokio::join!(
            classify(&queue, &tcp, &pings),
            tcp.accept(self.tcp),
            udp::serve(self.udp, host.clone(), flows, raw),
            dns::serve(self.dns, host),
        );
    }
}

/// Hands each held packet to whoever decides on it.
async fn classify<H: Host>(queue: &Queue, tcp: &Rc<tcp::Tcp<H>>, pings: &Rc<echo::Pings<H>>) {
    loop {
        match queue.next().await {
            Ok(held) => match Packet::parse(&held.payload) {
                Some(Packet::Syn { from, to }) => tcp.hold(held.id, from, to),
                Some(Packet::Echo(echo)) => pings.hold(held.id, echo),
                None => queue.tell(held.id, Verdict::Drop),
            },
            Err(error) => tracing::warn!(%error, "cannot read the queue of held packets"),
        }
    }
}
