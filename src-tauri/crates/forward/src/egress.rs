//! What leaves the machine: each flow of the guest's is a socket of this process, so VPNs, firewalls and proxies of this
//! computer treat it like any other program's.
//!
//! The guest waits for the answer to its request before it lets its own side go on. A flow is a task that owns its
//! socket and its stream; nothing else is kept. Memory is bounded by the number of flows, and an idle one holds no
//! buffer. Whoever reads slowly is waited for, all the way back to the sender: no flow stands in another's way.

mod dns;
mod echo;
mod policy;
mod tcp;
mod udp;

use caisson_guest_proto::{EgressRefusal, EgressReply, EgressRequest, MAX_FLOWS, read_frame, write_frame};
use caisson_hypervisor::VsockStream;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use dns::Resolver;
pub use policy::EgressPolicy;

/// The most streams at once: the guest's flows, and beside them its queries to the resolver and what has ended there and is just ending here.
/// More of those wait until one has ended; a connection's first packet, or a query, waits with them.
const MAX_STREAMS: usize = MAX_FLOWS + 256;

/// How long the guest may take to say where a stream is to go.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Serves the flows of the guest that come out of `streams` until it ends; they end with it.
pub async fn serve_egress(mut streams: mpsc::Receiver<VsockStream>, policy: EgressPolicy) {
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    let shared = Arc::new((policy, Resolver::default()));
    let mut flows = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Some(stream) = streams.recv().await else { return };
        let shared = shared.clone();
        flows.spawn(async move {
            if let Err(error) = serve(stream, &shared.0, &shared.1).await {
                debug!(%error, "a flow out of the machine broke");
            }
            drop(place);
        });
        while flows.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: VsockStream, policy: &EgressPolicy, resolver: &Resolver) -> io::Result<()> {
    let Ok(request) = timeout(REQUEST_LIMIT, read_frame(&mut stream)).await else { return Ok(()) };
    match request.map_err(io::Error::other)? {
        Some(EgressRequest::Tcp { to }) => tcp::serve(stream, &policy.places(to)).await,
        Some(EgressRequest::Udp { to }) => udp::serve(stream, &policy.places(to)).await,
        Some(EgressRequest::Echo { to }) => echo::serve(stream, policy.host(to)).await,
        Some(EgressRequest::Dns) => {
            write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
            resolver.serve(stream).await
        }
        None => Ok(()),
    }
}

/// Says why there is no way.
async fn refuse(mut stream: VsockStream, error: &io::Error) -> io::Result<()> {
    let reply = EgressReply::Refused { kind: refusal(error), message: error.to_string() };
    write_frame(&mut stream, &reply).await.map_err(io::Error::other)?;
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await
}

/// What the guest's kernel tells the program that asked.
fn refusal(error: &io::Error) -> EgressRefusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => EgressRefusal::Refused,
        io::ErrorKind::HostUnreachable => EgressRefusal::HostUnreachable,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => {
            EgressRefusal::NetworkUnreachable
        }
        io::ErrorKind::TimedOut => EgressRefusal::TimedOut,
        io::ErrorKind::PermissionDenied => EgressRefusal::Prohibited,
        _ if error.raw_os_error() == Some(crate::ports::FAMILY_NOT_SUPPORTED) => {
            EgressRefusal::NetworkUnreachable
        }
        _ => EgressRefusal::Other,
    }
}

#[cfg(test)]
mod tests;
