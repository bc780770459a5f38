//! A guest without a machine: an engine and containers that do as a test says.

use crate::Guest;
use caisson_guest_proto::{RelayRefusal, RelayRequest};
use caisson_hypervisor::VsockStream;
use caisson_machine::{Failure, FailureCode, MachineState, MachineStatus, RelayError, Unavailable};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

/// A guest whose streams come out of [`FakeGuest::new`]'s receiver, once it has booted.
#[derive(Clone)]
pub(crate) struct FakeGuest {
    pub(crate) booted: watch::Sender<Option<Result<(), Box<Failure>>>>,
    pub(crate) api_asked: Arc<AtomicU32>,
    opened: mpsc::UnboundedSender<(Option<SocketAddr>, DuplexStream)>,
}

pub(crate) type Opened = mpsc::UnboundedReceiver<(Option<SocketAddr>, DuplexStream)>;

impl FakeGuest {
    /// A guest that has yet to boot, and the streams that will be opened into it.
    pub(crate) fn new() -> (Self, Opened) {
        let (opened, streams) = mpsc::unbounded_channel();
        let guest = Self { booted: watch::Sender::new(None), api_asked: Arc::default(), opened };
        (guest, streams)
    }

    fn open(&self, to: Option<SocketAddr>) -> VsockStream {
        let (near, far) = tokio::io::duplex(4096);
        self.opened.send((to, far)).expect("the test still looks at its streams");
        Box::new(near)
    }
}

impl Guest for FakeGuest {
    async fn api(&self) -> Result<VsockStream, Unavailable> {
        self.api_asked.fetch_add(1, Ordering::SeqCst);
        let outcome =
            self.booted.subscribe().wait_for(Option::is_some).await.expect("we hold a sender").clone();
        match outcome.expect("waited for") {
            Ok(()) => Ok(self.open(None)),
            Err(failure) => Err(Unavailable::Failed(failure)),
        }
    }

    async fn relay(&self, RelayRequest { address: to, .. }: RelayRequest) -> Result<VsockStream, RelayError> {
        if to.port() == 9 {
            let message = "connection refused".to_owned();
            return Err(RelayError::Refused { address: to, kind: RelayRefusal::Refused, message });
        }
        Ok(self.open(Some(to)))
    }

    fn has_failed(&self) -> bool {
        matches!(*self.booted.borrow(), Some(Err(_)))
    }
}

pub(crate) fn failure() -> Box<Failure> {
    Box::new(Failure {
        stage: None,
        code: FailureCode::ProgramMissing,
        message: "qemu is not installed".to_owned(),
        remedy: "install qemu".to_owned(),
        console_tail: Vec::new(),
    })
}

pub(crate) fn status(state: MachineState) -> MachineStatus {
    MachineStatus { state, ..MachineStatus::new("fake") }
}
