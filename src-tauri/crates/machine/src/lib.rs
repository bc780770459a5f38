//! The life of the machine: one task that owns it, from the wish to start it to its last breath.
//!
//! ```text
//!  Stopped ─▶ Preparing ─▶ Booting(hypervisor ▸ kernel ▸ agent ▸ disk ▸ engine ▸ socket) ─▶ Running
//!     ▲           │                │                                                          │
//!     │           ▼                ▼                                                          ▼
//!     ├──────── Failed{stage, why} ◀──────────────────── the machine died, fell silent, … ────┤
//!     └──────────────────────────────────────── Stopping ◀──────────────── somebody's wish ───┘
//! ```
//!
//! The happy path in words: the image and the data disk are looked at (an image that is new here, byte for byte); the hypervisor powers the machine on; the
//! guest's agent connects to us and says hello, then which stage it enters; when it says that the engine is up, we ask the
//! engine `GET /_ping` over the very way that Docker clients will take, and only its answer makes the machine `Running`.
//!
//! Others talk to the task through a [`MachineHandle`] and watch the [`MachineStatus`] that it publishes. Nobody else
//! touches the machine.

mod boot;
mod config;
mod console;
mod converse;
mod disk;
mod handle;
mod health;
mod host;
mod image;
mod link;
mod owner;
mod ping;
mod queue;
mod state;
mod status;
mod store;

pub use config::{Limits, MachineConfig};
pub use handle::{MachineHandle, RelayError, Unavailable};
pub use status::{
    DiskRoom, EngineStatus, Failure, FailureCode, GuestInfo, MachineState, MachineStatus, Progress, Stage,
    StageStatus,
};

use std::{path::PathBuf, sync::Arc};

use caisson_guest_proto::HostFact;
use caisson_hypervisor::{Hypervisor, VsockStream};
use caisson_os::LockError;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{owner::Owner, queue::Queue};

/// How many requests wait for the task before those who ask have to.
const REQUESTS: usize = 64;
/// How many PORTS streams wait to be taken.
const PORT_STREAMS: usize = 16;
/// How many EGRESS streams may wait to be served: as many as a busy moment opens at once.
const EGRESS_STREAMS: usize = 1024;

/// Why the machine cannot be owned by this process.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Another daemon owns it, and lives.
    #[error("the machine's data disk {} is in use by {}", disk.display(), owner.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The data disk.
        disk: PathBuf,
        /// The process, if it can be told.
        owner: Option<u32>,
    },
    /// The data disk's directory cannot be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The lock beside the data disk cannot be used.
    #[error(transparent)]
    Lock(LockError),
}

/// The streams that the guest opens, each kind for whoever serves it.
pub struct GuestStreams {
    /// PORTS: what the engine wants published.
    pub ports: mpsc::Receiver<VsockStream>,
    /// EGRESS: what leaves the machine.
    pub egress: mpsc::Receiver<VsockStream>,
}

/// The machine's owner: as long as this lives, nobody else can own the same data disk.
pub struct Machine {
    handle: MachineHandle,
    task: JoinHandle<()>,
}

impl Machine {
    /// Takes the machine into possession, switched off, and starts the task that owns it. Gives also the streams that the
    /// guest will open; the caller serves them. The guest is told the `facts` when it comes, and again when they change.
    ///
    /// Must be called within a tokio runtime.
    pub fn spawn(
        config: MachineConfig,
        hypervisor: Arc<dyn Hypervisor>,
        facts: watch::Receiver<Vec<HostFact>>,
    ) -> Result<(Self, GuestStreams), SpawnError> {
        let possession = store::take(&config.data_disk)?;
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (status, watched) = watch::channel(MachineStatus::new(hypervisor.name()));
        let (ports, guest_ports) = mpsc::channel(PORT_STREAMS);
        let (egress, guest_egress) = mpsc::channel(EGRESS_STREAMS);
        let console_log = Arc::new(config.console_log.clone());
        let handle = MachineHandle { requests: sender, status: watched, console_log };
        let config = Arc::new(config);
        let owner = Owner {
            config,
            hypervisor,
            facts,
            requests,
            status,
            ports,
            egress,
            queue: Queue::default(),
            possession,
        };
        let task = tokio::spawn(owner.run());
        Ok((Self { handle, task }, GuestStreams { ports: guest_ports, egress: guest_egress }))
    }

    /// How to ask the machine for things.
    #[must_use]
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Stops the machine in order and ends its task; the data disk is free then.
    pub async fn shut_down(self) {
        // A failed send means that the task has ended already, which is what is wanted.
        let _ = self.handle.requests.send(handle::Request::ShutDown).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the machine's task ended badly");
        }
    }
}
