//! The handle: how others ask the machine's task for things.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use caisson_guest_proto::{
    Duplex, FrameError, GUEST_API, GUEST_RELAY, RelayProtocol, RelayRefusal, RelayReply, RelayRequest,
    read_frame, write_frame,
};
use caisson_hypervisor::{ConnectError, GuestVsockPort, Vm, VsockStream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use crate::{Failure, MachineStatus, queue::Reply};

/// How long a guest may refuse streams, being behind with accepting those before (its backlog is 128, listen(2)).
const CROWD_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before trying again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why the machine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// It failed to boot, or failed while it was needed.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// Somebody stopped it meanwhile.
    #[error("the machine was stopped")]
    Stopped,
    /// The engine ended by itself and did not come back in time.
    #[error("the container engine is down ({status})")]
    EngineDown {
        /// How it ended the last time.
        status: String,
        /// The last that it said, oldest line first.
        tail: Vec<String>,
    },
    /// It runs, but the stream could not be opened.
    #[error("cannot open a stream into the machine")]
    Unreachable(#[from] ConnectError),
    /// The daemon is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// Why a stream to an address in the guest was not opened.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The machine is not there.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The guest tried in vain.
    #[error("cannot connect to {address} in the machine: {message}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What to decide by.
        kind: RelayRefusal,
        /// The guest's words.
        message: String,
    },
    /// The guest closed the stream without an answer.
    #[error("the machine closed the connection to {0} without an answer")]
    NoAnswer(SocketAddr),
    /// The guest did not speak as agreed.
    #[error("the machine's answer to a connection to {address} cannot be read")]
    Broken {
        /// The address.
        address: SocketAddr,
        /// What was wrong.
        #[source]
        source: FrameError,
    },
}

/// What the owner task is asked for. Each is answered when it is done, not when it is begun.
pub(crate) enum Request {
    /// Run, if it does not.
    Start(Reply<()>),
    /// Be off, if it is not.
    Stop(Reply<()>),
    /// Be off, then run.
    Restart(Reply<()>),
    /// Run, and give the machine whose engine answers.
    Need(Reply<Arc<dyn Vm>>),
    /// Give the machine whose engine answers, if it runs or boots.
    Find(Reply<Arc<dyn Vm>>),
    /// Be off and end the task.
    ShutDown,
}

/// How others ask the machine for things. Cheap to clone; the machine stays as it is when handles are dropped.
#[derive(Clone)]
pub struct MachineHandle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) status: watch::Receiver<MachineStatus>,
    pub(crate) console_log: Arc<PathBuf>,
}

impl MachineHandle {
    /// The machine's status, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<MachineStatus> {
        self.status.clone()
    }

    /// Starts the machine. Returns when the engine has answered; at once if it runs already.
    pub async fn start(&self) -> Result<(), Unavailable> {
        self.ask(Request::Start).await
    }

    /// Stops the machine and all containers in order. Returns when it is off; at once if it is off already.
    ///
    /// A stop while it boots ends the boot: whoever waits for it gets [`Unavailable::Stopped`].
    pub async fn stop(&self) -> Result<(), Unavailable> {
        self.ask(Request::Stop).await
    }

    /// Stops the machine, if it runs, and starts it. Returns when the engine has answered.
    pub async fn restart(&self) -> Result<(), Unavailable> {
        self.ask(Request::Restart).await
    }

    /// Opens a stream to the engine's API, with half-close in both directions. A machine that is off is started first and waited for; a machine that failed
    /// is tried again.
    pub async fn api(&self) -> Result<VsockStream, Unavailable> {
        Ok(Box::new(self.open(GUEST_API, Request::Need).await?))
    }

    /// Opens a stream to the engine's API as [`api`](Self::api) does, but never starts the machine: one that is off or
    /// stops is [`Unavailable::Stopped`].
    pub async fn api_if_running(&self) -> Result<VsockStream, Unavailable> {
        Ok(Box::new(self.open(GUEST_API, Request::Find).await?))
    }

    /// Opens a TCP connection to an address inside the guest, such as a container's. The machine is started if it is off.
    pub async fn relay(&self, address: SocketAddr) -> Result<VsockStream, RelayError> {
        let request = RelayRequest { address, protocol: RelayProtocol::Tcp, client: None };
        Self::connect(self.open(GUEST_RELAY, Request::Need).await?, request).await
    }

    /// Opens a connection as [`relay`](Self::relay) does, or a flow of datagrams, but never starts the machine: one that is
    /// off or stops is [`Unavailable::Stopped`].
    pub async fn relay_if_running(&self, request: RelayRequest) -> Result<VsockStream, RelayError> {
        Self::connect(self.open(GUEST_RELAY, Request::Find).await?, request).await
    }

    async fn connect(
        mut stream: Duplex<VsockStream>,
        request: RelayRequest,
    ) -> Result<VsockStream, RelayError> {
        let address = request.address;
        let broken = |source| RelayError::Broken { address, source };
        write_frame(&mut stream, &request).await.map_err(broken)?;
        match read_frame(&mut stream).await.map_err(broken)? {
            Some(RelayReply::Connected) => Ok(Box::new(stream)),
            Some(RelayReply::Refused { kind, message }) => {
                Err(RelayError::Refused { address, kind, message })
            }
            None => Err(RelayError::NoAnswer(address)),
        }
    }

    /// The file with what the guest's console printed since the last start; the start before is beside it (`.1`).
    #[must_use]
    pub fn console_log(&self) -> &Path {
        &self.console_log
    }

    /// Opens a stream to a port that a running guest listens on, so a refusal means that it is behind. A machine that
    /// dies just then is one that is off: the next round asks for it again.
    async fn open(
        &self,
        port: GuestVsockPort,
        machine: impl Fn(Reply<Arc<dyn Vm>>) -> Request,
    ) -> Result<Duplex<VsockStream>, Unavailable> {
        let (mut until, mut pause) = (None, FIRST_PAUSE);
        loop {
            let vm = self.ask(&machine).await?;
            let until = *until.get_or_insert_with(|| Instant::now() + CROWD_LIMIT);
            match vm.connect(port).await {
                Err(ConnectError::Refused(_) | ConnectError::Ended(_)) if Instant::now() < until => {
                    sleep(pause).await;
                }
                Err(error) => return Err(error.into()),
                Ok(stream) => return Ok(Duplex::new(stream)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Unavailable::ShuttingDown)?;
        answer.await.map_err(|_| Unavailable::ShuttingDown)?
    }
}
