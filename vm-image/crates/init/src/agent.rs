//! The event loop of the running machine: follows the host's orders and takes the boot through its stages.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use caisson_guest_proto::{BootStage, FromGuest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::children::Children;
use crate::engine::Engine;
use crate::host::Host;
use crate::link::{self, Order, Outbox};
use crate::{clock, disk, egress, guard, host, modules, power, relay};

/// The engine's time to stop its containers when nobody said how long it may take.
const DEFAULT_GRACE: Duration = Duration::from_secs(15);

/// Runs the machine; returns when it is to be powered off and everything in it has stopped.
pub(crate) fn run(outbox: &Arc<Outbox>, data_disk: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("could not start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let (outbox, host) = (outbox.clone(), Host::new(Path::new(host::DIR)));
        let agent = Agent { outbox, children: Children::default(), data_disk, host };
        agent.run().await
    })
}

/// Modules that every engine asks for as soon as it runs. They are loaded beside the check of the disk, which leaves a
/// processor idle: the bridge alone took 0.7 s on a busy emulator.
const FOR_ENGINE: [&str; 7] =
    ["quota_v2", "bridge", "overlay", "veth", "nft_chain_nat", "nft_masq", "nft_nat"];

struct Agent {
    outbox: Arc<Outbox>,
    children: Children,
    data_disk: PathBuf,
    host: Host,
}

impl Agent {
    async fn run(self) -> anyhow::Result<()> {
        let children = self.children.clone();
        tokio::task::spawn_local(async move { children.reap().await });
        let (orders, mut given) = mpsc::channel(8);
        let outbox = self.outbox.clone();
        tokio::task::spawn_local(async move { link::keep(&outbox, orders).await });
        let (up, answering) = watch::channel(false);
        relay::start(answering)?;
        let engine = Rc::new(Engine::new(self.children.clone(), self.outbox.clone(), up));
        let grace = self.obey(&mut given, &engine).await?;
        self.stop(&engine, grace).await
    }

    /// Follows orders until one of them ends the machine; returns how long the engine may take to stop.
    async fn obey(&self, given: &mut mpsc::Receiver<Order>, engine: &Rc<Engine>) -> anyhow::Result<Duration> {
        let mut terminate = signal(SignalKind::terminate()).context("could not listen for signals")?;
        let mut begun = false;
        loop {
            let order = tokio::select! {
                order = given.recv() => order.context("the link to the host ended")?,
                _ = terminate.recv() => Order::PowerOff { grace: DEFAULT_GRACE },
            };
            match order {
                Order::Welcome { unix_time, hostname } => {
                    clock::set(unix_time);
                    if !begun {
                        begun = true;
                        self.begin(&hostname, engine);
                    }
                }
                Order::SetClock(time) => clock::set(time),
                Order::Learn(fact) => self.host.learn(&fact),
                Order::PowerOff { grace } => return Ok(grace),
                Order::Refused { reason } => {
                    tracing::error!("the host refuses this machine: {reason}");
                    return Ok(Duration::ZERO);
                }
            }
        }
    }

    /// What is left of the boot once the host has welcomed the machine. Goes on beside the orders.
    fn begin(&self, hostname: &str, engine: &Rc<Engine>) {
        self.enter(BootStage::Agent, "");
        if let Err(error) = rustix::system::sethostname(hostname.as_bytes()) {
            tracing::warn!("could not set the hostname to {hostname}: {error}");
        }
        let way_out = egress::start();
        tokio::task::spawn_blocking(|| modules::load_ahead(&FOR_ENGINE));
        let guarded = tokio::task::spawn_blocking(guard::vsock);
        let (outbox, children, engine) = (self.outbox.clone(), self.children.clone(), engine.clone());
        let (data_disk, known) = (self.data_disk.clone(), self.host.known());
        tokio::task::spawn_local(async move {
            let enter = |stage, detail: &str| outbox.send(FromGuest::Stage { stage, detail: detail.into() });
            match disk::make_ready(&children, &data_disk, |detail| enter(BootStage::Disk, detail)).await {
                Ok(()) => {
                    enter(BootStage::Engine, "");
                    tokio::task::spawn_local(disk::watch_space(outbox.clone()));
                    host::wait_for_all(known).await;
                    // One that panicked has said so.
                    let _ = guarded.await;
                    engine.keep_running(&way_out).await;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!("the data disk cannot be used: {error}");
                    outbox.send(FromGuest::Failed { stage: BootStage::Disk, error });
                }
            }
        });
    }

    fn enter(&self, stage: BootStage, detail: &str) {
        self.outbox.send(FromGuest::Stage { stage, detail: detail.into() });
    }

    async fn stop(&self, engine: &Engine, grace: Duration) -> anyhow::Result<()> {
        tracing::info!("stopping the machine");
        engine.stop(grace).await;
        let unmounted = power::settle(&self.children).await;
        self.outbox.send(FromGuest::PoweringOff);
        power::farewell(&self.outbox).await;
        unmounted
    }
}
