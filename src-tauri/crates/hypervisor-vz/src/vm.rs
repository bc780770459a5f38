//! A machine that runs.
#![expect(unsafe_code, reason = "the framework's calls are foreign functions")]

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use block2::RcBlock;
use caisson_hypervisor::{
    BoxFuture, ConnectError, GuestVsockPort, StopError, Vm, VmEnd, VmState, VsockStream,
};
use objc2_foundation::{NSError, NSPOSIXErrorDomain};
use objc2_virtualization::{VZVirtioSocketConnection, VZVirtualMachine, VZVirtualMachineState};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::delegates::{Guest, descriptor, stream};
use crate::launch::{Parts, description};
use crate::queue::Confined;

/// How long the guest may take to accept a stream.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for the end before a machine that could not be stopped is stopped again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// `ECONNREFUSED` and `ECONNRESET` of macOS: what the framework says when nothing in the guest listens.
const NOBODY_LISTENS: [isize; 2] = [61, 54];

/// A machine of the framework's. Ends when it is dropped.
pub(crate) struct VzVm {
    parts: Confined<Parts>,
    guest: Guest,
}

impl VzVm {
    pub(crate) fn new(parts: Confined<Parts>, guest: Guest) -> Self {
        Self { parts, guest }
    }

    pub(crate) fn parts(&self) -> &Confined<Parts> {
        &self.parts
    }

    async fn open(&self, port: GuestVsockPort) -> Result<VsockStream, ConnectError> {
        if let Some(end) = self.guest.ending.end() {
            return Err(ConnectError::Ended(end));
        }
        let (answer, answered) = oneshot::channel();
        self.parts.run(move |parts| connect(parts, port, answer)).await.map_err(queue_gone)?;
        let timed_out = |_| ConnectError::TimedOut { port, limit: ACCEPTS_WITHIN };
        let connected = tokio::time::timeout(ACCEPTS_WITHIN, answered).await.map_err(timed_out)?;
        Ok(stream(connected.map_err(queue_gone)??, &Handle::current())?)
    }

    /// Stops the machine without asking its guest; answered when it is gone, or the framework could not do it.
    fn stop(&self) -> oneshot::Receiver<()> {
        let (gone, is_gone) = oneshot::channel();
        let guest = self.guest.clone();
        // Its answer comes through `gone`; a queue that is gone drops that too.
        drop(self.parts.run(move |parts| stop(parts, guest, gone)));
        is_gone
    }
}

fn queue_gone(_: oneshot::error::RecvError) -> ConnectError {
    ConnectError::Io(io::Error::other("the machine's queue is gone"))
}

fn connect(parts: &Parts, port: GuestVsockPort, answer: oneshot::Sender<Result<OwnedFd, ConnectError>>) {
    let answer = Cell::new(Some(answer));
    let done = RcBlock::new(move |connection: *mut VZVirtioSocketConnection, error: *mut NSError| {
        // SAFETY: the framework passes null or objects that live as long as the call of the block.
        let (connection, error) = unsafe { (connection.as_ref(), error.as_ref()) };
        let connected = match (connection, error) {
            (Some(connection), _) => descriptor(connection).map_err(ConnectError::Io),
            (None, error) => Err(not_connected(port, error)),
        };
        if let Some(answer) = answer.take() {
            // Whoever asked may have stopped waiting; the descriptor then closes.
            let _ = answer.send(connected);
        }
    });
    // SAFETY: this runs on the machine's queue.
    unsafe { parts.vsock.connectToPort_completionHandler(port.0, &done) };
}

fn not_connected(port: GuestVsockPort, error: Option<&NSError>) -> ConnectError {
    let Some(error) = error else {
        return ConnectError::Io(io::Error::other("the framework gave neither a connection nor an error"));
    };
    // SAFETY: a constant of the system's.
    let posix = unsafe { NSPOSIXErrorDomain };
    match *error.domain() == *posix && NOBODY_LISTENS.contains(&error.code()) {
        true => ConnectError::Refused(port),
        false => ConnectError::Io(io::Error::other(error.localizedDescription().to_string())),
    }
}

/// Whether the machine does not run any more. To be asked on its queue.
fn is_off(machine: &VZVirtualMachine) -> bool {
    // SAFETY: this runs on the machine's queue.
    let state = unsafe { machine.state() };
    matches!(state, VZVirtualMachineState::Stopped | VZVirtualMachineState::Error)
}

fn stop(parts: &Parts, guest: Guest, gone: oneshot::Sender<()>) {
    if is_off(&parts.machine) {
        guest.ended(VmEnd::Killed);
        // Whoever asked may have stopped waiting.
        let _ = gone.send(());
        return;
    }
    let gone = Cell::new(Some(gone));
    let kept = parts.machine.clone();
    let done = RcBlock::new(move |error: *mut NSError| {
        // The block holds the machine, which has to live until it has stopped, though its `Vm` may have been dropped
        // meanwhile. It is called on the machine's queue.
        let how = description(error);
        if let Some(how) = &how {
            tracing::warn!(how, "the framework could not stop the machine");
        }
        // A machine that runs on has not ended; if it does later, the delegate hears of it.
        if how.is_none() || is_off(&kept) {
            guest.ended(VmEnd::Killed);
        }
        if let Some(gone) = gone.take() {
            // Whoever asked may have stopped waiting.
            let _ = gone.send(());
        }
    });
    // SAFETY: this runs on the machine's queue.
    unsafe { parts.machine.stopWithCompletionHandler(&done) };
}

impl Vm for VzVm {
    fn connect(&self, port: GuestVsockPort) -> BoxFuture<'_, Result<VsockStream, ConnectError>> {
        Box::pin(self.open(port))
    }

    fn state(&self) -> watch::Receiver<VmState> {
        self.guest.ending.watch()
    }

    fn request_stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async {
            if let Some(end) = self.guest.ending.end() {
                return Err(StopError::Ended(end));
            }
            let pressed = self.parts.run(|parts| {
                // SAFETY: this runs on the machine's queue.
                unsafe { parts.machine.requestStopWithError() }
                    .map_err(|error| error.localizedDescription().to_string())
            });
            let gone = |_| StopError::NotDelivered("the machine's queue is gone".to_owned());
            pressed.await.map_err(gone)?.map_err(StopError::NotDelivered)
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut state = self.guest.ending.watch();
            // An error says that the queue is gone, and the machine with it.
            while self.stop().await.is_ok() && self.guest.ending.end().is_none() {
                // It may be in the middle of another change, or end by itself.
                let ended = state.wait_for(|state| matches!(state, VmState::Ended(_)));
                let _ = tokio::time::timeout(TRY_AGAIN, ended).await;
            }
        })
    }
}

impl Drop for VzVm {
    fn drop(&mut self) {
        if self.guest.ending.end().is_none() {
            drop(self.stop());
        }
    }
}
