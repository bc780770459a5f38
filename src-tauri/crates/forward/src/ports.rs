//! Published ports: one table, which only its own task changes.
//!
//! The engine opens a PORTS stream and first tells the whole truth (`Reconcile`), then each change; it waits for every
//! answer, so that a port is bound before its container starts, and a refusal is what `docker run -p` prints. When a stream
//! drops, the ports stay until the engine is back and reconciles, and then nothing more is done for the one before; when the
//! machine is off, all are closed.

mod bind;
mod datagrams;
mod places;
mod port;
mod session;

use crate::Guest;
pub(crate) use bind::FAMILY_NOT_SUPPORTED;
use bind::bind;
use caisson_guest_proto::{
    PortForward, PortOutcome, PortProtocol, PortsAnswer, PortsCall, PublishRefused, RefusalCode,
};
use caisson_hypervisor::VsockStream;
use caisson_machine::{MachineState, MachineStatus};
use places::Places;
use port::Port;
use std::collections::{BTreeMap, HashSet};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{info, warn};

/// The most published ports. Each is a listener; a range of them is published with one `-p`.
const MAX_PORTS: usize = 4096;

/// The most connections through all TCP ports together. Each is two open files, of which this process has a limited number.
const MAX_CONNECTIONS: usize = 16_384;

/// The most clients of all UDP ports together, each an open file. Anyone can make up any number of them, so they have no
/// place that a connection could have.
const MAX_DATAGRAM_CLIENTS: usize = 8192;

/// The longest name of a published port, in bytes. The engine's are a container's id with a number.
const MAX_KEY: usize = 256;

/// The most PORTS streams at once. There is one engine; a second one is its successor.
const MAX_STREAMS: usize = 4;

/// A published port, for showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// What the engine asked for, with the port that was bound.
    pub forward: PortForward,
    /// How many connections go through it.
    pub connections: u32,
}

/// The published ports of one machine. Dropping it closes all of them.
#[derive(Debug)]
pub struct Ports {
    table: watch::Receiver<Vec<PortStatus>>,
    task: JoinHandle<()>,
}

impl Ports {
    /// Serves the PORTS streams of the guest that come out of `streams`, for as long as `machine` is watched.
    pub fn spawn(
        guest: impl Guest,
        streams: mpsc::Receiver<VsockStream>,
        machine: watch::Receiver<MachineStatus>,
    ) -> Self {
        let (publish, table) = watch::channel(Vec::new());
        let task = tokio::spawn(Owner::new(guest, publish).run(streams, machine));
        Self { table, task }
    }

    /// The table, now and from now on; also when a connection comes or goes.
    pub fn table(&self) -> watch::Receiver<Vec<PortStatus>> {
        self.table.clone()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A call of the engine's, and where its answer goes.
struct Asked {
    /// The number of its stream. Later ones have higher numbers.
    stream: u64,
    call: PortsCall,
    answer: oneshot::Sender<Result<PortsAnswer, PublishRefused>>,
}

/// The task that owns the table.
struct Owner<G> {
    guest: G,
    ports: BTreeMap<String, Port>,
    /// What is left of ports that are closed: connections that live on.
    retired: JoinSet<()>,
    publish: watch::Sender<Vec<PortStatus>>,
    /// What connections take while they last.
    connections: Places,
    /// The same for clients of UDP ports.
    datagram_clients: Places,
    /// The last stream on which the whole truth was told.
    truth_of: u64,
    /// Told by ports when a connection came or went.
    changed: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl<G: Guest> Owner<G> {
    fn new(guest: G, publish: watch::Sender<Vec<PortStatus>>) -> Self {
        Self {
            guest,
            ports: BTreeMap::new(),
            retired: JoinSet::new(),
            publish,
            connections: Places::new(MAX_CONNECTIONS),
            datagram_clients: Places::new(MAX_DATAGRAM_CLIENTS),
            truth_of: 0,
            changed: mpsc::channel(1),
        }
    }

    async fn run(
        mut self,
        mut streams: mpsc::Receiver<VsockStream>,
        mut machine: watch::Receiver<MachineStatus>,
    ) {
        let (ask, mut asked) = mpsc::channel(1);
        let mut sessions = JoinSet::new();
        let mut last = 0;
        loop {
            tokio::select! {
                Some(stream) = streams.recv(), if sessions.len() < MAX_STREAMS => {
                    last += 1;
                    sessions.spawn(session::serve(stream, last, ask.clone()));
                }
                Some(_) = sessions.join_next() => {}
                Some(_) = self.retired.join_next() => {}
                Some(Asked { stream, call, answer }) = asked.recv() => {
                    // A session that is gone wants nothing more; the next one reconciles. Once it has, nothing is done of what an
                    // engine before it had still to ask, which hears no answer but the end of its stream.
                    if !answer.is_closed() && stream >= self.truth_of {
                        if let PortsCall::Reconcile { .. } = call {
                            self.truth_of = stream;
                        }
                        let _ = answer.send(self.answer(call).await);
                        self.show();
                    }
                }
                Some(()) = self.changed.1.recv() => self.show(),
                status = machine.changed() => {
                    if status.is_err() {
                        return;
                    }
                    let state = machine.borrow_and_update().state;
                    if is_off(state) {
                        // What its engine had still to ask would open ports for nobody.
                        sessions.shutdown().await;
                        self.close_all().await;
                    }
                }
            }
        }
    }

    fn show(&self) {
        self.publish.send_replace(self.ports.values().map(Port::status).collect());
    }

    async fn answer(&mut self, call: PortsCall) -> Result<PortsAnswer, PublishRefused> {
        match call {
            PortsCall::Reconcile { ports } => {
                Ok(PortsAnswer::Reconciled { outcomes: self.reconcile(ports).await })
            }
            PortsCall::Publish { forward } => {
                self.publish(forward).await.map(|host_port| PortsAnswer::Published { host_port })
            }
            PortsCall::Unpublish { key, keep_connections } => {
                match keep_connections {
                    true => self.retire(&key).await,
                    false => self.close(&key).await,
                }
                Ok(PortsAnswer::Unpublished)
            }
        }
    }

    /// Closes first what is no longer true, since a new truth may need its port.
    async fn reconcile(&mut self, truth: Vec<PortForward>) -> Vec<PortOutcome> {
        let still_true =
            |forward: &&PortForward| self.ports.get(&forward.key).is_some_and(|open| open.is(forward));
        let kept: HashSet<&str> =
            truth.iter().filter(still_true).map(|forward| forward.key.as_str()).collect();
        let gone: Vec<String> =
            self.ports.keys().filter(|key| !kept.contains(key.as_str())).cloned().collect();
        for key in gone {
            self.close(&key).await;
        }
        let mut outcomes = Vec::with_capacity(truth.len());
        for forward in truth {
            let key = forward.key.clone();
            outcomes.push(PortOutcome { key, result: self.publish(forward).await });
        }
        outcomes
    }

    async fn publish(&mut self, forward: PortForward) -> Result<u16, PublishRefused> {
        if forward.key.len() > MAX_KEY {
            return Err(refused("a published port with so long a name"));
        }
        if let Some(open) = self.ports.get(&forward.key).filter(|open| open.is(&forward)) {
            return Ok(open.host_port());
        }
        self.close(&forward.key).await;
        self.open(forward).await.inspect_err(|refused| warn!(code = ?refused.code, %refused, "port refused"))
    }

    async fn open(&mut self, forward: PortForward) -> Result<u16, PublishRefused> {
        if self.ports.len() >= MAX_PORTS {
            return Err(refused(&format!("{MAX_PORTS} ports are published already, which is the limit")));
        }
        let (listener, host_port) = bind(forward.protocol, forward.host_ip, forward.host_port).await?;
        let bound = PortForward { host_port, ..forward };
        info!(key = %bound.key, host_ip = %bound.host_ip, host_port, target = %bound.target, "port published");
        let changed = self.changed.0.clone();
        let share = match bound.protocol {
            PortProtocol::Tcp => self.connections.share(),
            PortProtocol::Udp => self.datagram_clients.share(),
        };
        let port = Port::serve(bound, listener, self.guest.clone(), changed, share);
        self.ports.insert(port.key().to_owned(), port);
        Ok(host_port)
    }

    async fn close(&mut self, key: &str) {
        if let Some(port) = self.ports.remove(key) {
            info!(key, host_port = port.host_port(), "port closed");
            port.close().await;
        }
    }

    /// Closes a port whose connections live on: the listener was closed, and not the program that listened.
    async fn retire(&mut self, key: &str) {
        if let Some(port) = self.ports.remove(key) {
            info!(key, host_port = port.host_port(), "port closed, its connections live on");
            let left = port.retire().await;
            self.retired.spawn(left);
        }
    }

    async fn close_all(&mut self) {
        self.retired.shutdown().await;
        while let Some((_, port)) = self.ports.pop_first() {
            port.close().await;
        }
        self.show();
    }
}

/// Whether a machine in this state has no engine that could want a port.
///
/// Not so in the later stages of a boot: there the engine has reconciled already, maybe before we learnt of the stage.
fn is_off(state: MachineState) -> bool {
    match state {
        MachineState::Stopped | MachineState::Preparing | MachineState::Failed => true,
        MachineState::Booting { .. } | MachineState::Running | MachineState::Stopping => false,
    }
}

fn refused(message: &str) -> PublishRefused {
    PublishRefused { code: RefusalCode::Other, message: message.to_owned(), holder: None }
}

#[cfg(test)]
mod tests;
