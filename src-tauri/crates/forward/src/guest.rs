//! What is asked of the machine here: streams into it.

use caisson_guest_proto::RelayRequest;
use caisson_hypervisor::VsockStream;
use caisson_machine::{MachineHandle, MachineState, RelayError, Unavailable};
use std::future::Future;

/// Opens streams into the guest. The machine does; tests have one of their own.
pub trait Guest: Clone + Send + Sync + 'static {
    /// A stream to the engine. Starts the machine if it is off and waits until the engine answers.
    fn api(&self) -> impl Future<Output = Result<VsockStream, Unavailable>> + Send;

    /// A stream to an address inside the guest: bytes, or messages with a datagram each. Never starts the machine: a port
    /// is open because it runs.
    fn relay(&self, to: RelayRequest) -> impl Future<Output = Result<VsockStream, RelayError>> + Send;

    /// Whether the machine is off because something went wrong.
    fn has_failed(&self) -> bool;
}

impl Guest for MachineHandle {
    async fn api(&self) -> Result<VsockStream, Unavailable> {
        Self::api(self).await
    }

    async fn relay(&self, to: RelayRequest) -> Result<VsockStream, RelayError> {
        self.relay_if_running(to).await
    }

    fn has_failed(&self) -> bool {
        self.status().borrow().state == MachineState::Failed
    }
}
