//! A machine that runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use caisson_hypervisor::{
    BoxFuture, ConnectError, GuestVsockPort, StopError, Vm, VmEnd, VmState, VsockStream,
};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::warn;
use windows::Win32::Networking::WinSock::{WSAECONNREFUSED, WSAETIMEDOUT};
use windows::core::GUID;

use crate::computecore::{Failure, System};
use crate::hvsocket::HvSocket;
use crate::launch::Guest;
use crate::pump;

/// How long the guest may take to accept a stream.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(10);

/// A machine of Hyper-V's. Closing its last handle, as dropping it does, terminates it.
pub(crate) struct HcsVm {
    system: Arc<System>,
    machine: GUID,
    guest: Guest,
}

impl HcsVm {
    pub(crate) fn new(system: System, machine: GUID, guest: Guest) -> Self {
        Self { system: Arc::new(system), machine, guest }
    }

    /// Where its end is told.
    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Starts it. Blocks.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        self.system.start()
    }

    async fn open(&self, port: GuestVsockPort) -> Result<VsockStream, ConnectError> {
        if let Some(end) = self.guest.ending.end() {
            return Err(ConnectError::Ended(end));
        }
        let machine = self.machine;
        let connecting = spawn_blocking(move || HvSocket::connect(machine, port.0, ACCEPTS_WITHIN));
        let connected = connecting.await.map_err(io::Error::other)?;
        Ok(pump::stream(connected.map_err(|error| not_connected(port, error))?)?)
    }

    async fn ask(&self) -> Result<(), StopError> {
        if let Some(end) = self.guest.ending.end() {
            return Err(StopError::Ended(end));
        }
        let system = Arc::clone(&self.system);
        let asked = spawn_blocking(move || system.shut_down().map_err(|failure| failure.how()));
        let given_up = |error: tokio::task::JoinError| StopError::NotDelivered(error.to_string());
        asked.await.map_err(given_up)?.map_err(StopError::NotDelivered)
    }

    async fn terminate(&self) {
        if self.guest.ending.end().is_some() {
            return;
        }
        let system = Arc::clone(&self.system);
        match spawn_blocking(move || system.terminate().map_err(|failure| failure.how())).await {
            Ok(Ok(())) => {}
            Ok(Err(how)) => warn!(how, "the service could not end the machine"),
            Err(error) => warn!(%error, "the service could not end the machine"),
        }
        self.guest.ended(VmEnd::Killed);
    }
}

fn not_connected(port: GuestVsockPort, error: io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(code) if code == WSAECONNREFUSED.0 => ConnectError::Refused(port),
        Some(code) if code == WSAETIMEDOUT.0 => ConnectError::TimedOut { port, limit: ACCEPTS_WITHIN },
        _ => ConnectError::Io(error),
    }
}

impl Vm for HcsVm {
    fn connect(&self, port: GuestVsockPort) -> BoxFuture<'_, Result<VsockStream, ConnectError>> {
        Box::pin(self.open(port))
    }

    fn state(&self) -> watch::Receiver<VmState> {
        self.guest.ending.watch()
    }

    fn request_stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.ask())
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.terminate())
    }
}

impl Drop for HcsVm {
    fn drop(&mut self) {
        // The handle that closes with `system` terminates the machine; what waits for its end is told here.
        self.guest.ended(VmEnd::Killed);
    }
}
