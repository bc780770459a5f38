//! The machine's way out, on a thread of its own: whatever containers send must not keep the agent from its work.

use std::io;

use anyhow::Context;
use caisson_egress::{DNS_ADDRESS, Egress, Host};
use caisson_guest_proto::HOST_EGRESS;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::vsock::VsockStream;
use crate::{boot, modules};

/// Where `/etc/resolv.conf` leads.
const RESOLV_CONF: &str = "/run/resolv.conf";

/// How many connections the kernel can keep track of, and by how many lists it finds them again. By itself it goes by the
/// machine's memory: 8,192 in 1 GiB, which the flows that may leave at once would use up, and with it what containers have to
/// say to each other. An entry that is not used takes nothing.
const TRACKED: [(&str, &str); 2] =
    [("net/netfilter/nf_conntrack_buckets", "65536"), ("net/netfilter/nf_conntrack_max", "262144")];

/// How many packets between the machine and its containers may wait for a processor: as many as tell the ends of all connections that
/// leave the machine (10,240) or came to published ports (16,384) when their containers are killed at once. Of the kernel's own 1,000
/// the rest is thrown away, and nobody is left to say it again.
const WAITING: [(&str, &str); 1] = [("net/core/netdev_max_backlog", "32768")];

/// How often what a container does not acknowledge is sent again: for some 100 s, and not for a quarter of an hour, which is as long as one
/// that is gone would keep its connections. Who is only paused, or reads nothing, has a kernel that answers. Containers have their own.
const SENT_AGAIN: [(&str, &str); 1] = [("net/ipv4/tcp_retries2", "8")];

/// Starts it; tells when it is open. Without it the machine runs all the same, and the log says what is missing.
pub(crate) fn start() -> watch::Receiver<bool> {
    if let Err(error) = std::fs::write(RESOLV_CONF, format!("nameserver {DNS_ADDRESS}\n")) {
        tracing::warn!("could not write {RESOLV_CONF}: {error}");
    }
    let (open, opened) = watch::channel(false);
    let run = move || {
        modules::load_ahead(&caisson_egress::MODULES);
        boot::adjust(&TRACKED);
        boot::adjust(&WAITING);
        boot::adjust(&SENT_AGAIN);
        if let Err(error) = run(&open) {
            tracing::error!("nothing can leave the machine: {error:#}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("egress".into()).spawn(run) {
        tracing::error!("nothing can leave the machine: {error}");
    }
    opened
}

fn run(open: &watch::Sender<bool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .context("could not start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let egress = Egress::prepare()?;
        tracing::info!("the way out is open");
        open.send_replace(true);
        egress.run(Vsock).await;
        Ok(())
    })
}

#[derive(Clone)]
struct Vsock;

impl Host for Vsock {
    type Stream = VsockStream;

    async fn open(&self) -> io::Result<VsockStream> {
        VsockStream::connect(HOST_EGRESS).await
    }
}
