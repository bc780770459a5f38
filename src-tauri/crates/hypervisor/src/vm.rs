//! A machine that runs, and the streams between it and the host.

use std::fmt;

use caisson_guest_proto::{Connection, GuestVsockPort, HostVsockPort};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::{BoxFuture, ConnectError, StopError};

/// What a vsock stream can do. `shutdown()` may end both directions: see `caisson_guest_proto::Duplex` for half-close.
pub trait VsockIo: Connection + Send {}
impl<T: Connection + Send> VsockIo for T {}

/// One stream of bytes between the host and the guest. Dropping it closes both directions.
pub type VsockStream = Box<dyn VsockIo>;

/// The streams that the guest opened, each with the port that it opened it to. Ends when the machine does.
pub type Incoming = mpsc::Receiver<(HostVsockPort, VsockStream)>;

/// A machine that has just been powered on.
pub struct Launched {
    /// The machine.
    pub vm: Box<dyn Vm>,
    /// The streams that its guest opens.
    pub incoming: Incoming,
}

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launched").field("state", &*self.vm.state().borrow()).finish_non_exhaustive()
    }
}

/// A machine that was powered on. Dropping it ends the machine without asking its guest.
pub trait Vm: Send + Sync {
    /// Opens a stream to a port on which the guest listens.
    ///
    /// Returns when the guest has accepted it. The backend sets a limit of some seconds.
    fn connect(&self, port: GuestVsockPort) -> BoxFuture<'_, Result<VsockStream, ConnectError>>;

    /// The machine's state, now and from now on. Once [`VmState::Ended`] it never changes again.
    fn state(&self) -> watch::Receiver<VmState>;

    /// Presses the power button: asks the guest to shut down. Returns when it is pressed, not when the guest obeyed.
    fn request_stop(&self) -> BoxFuture<'_, Result<(), StopError>>;

    /// Ends the machine without asking the guest. Returns when nothing of it is left; ending an ended one is fine.
    fn kill(&self) -> BoxFuture<'_, ()>;
}

/// The state of a machine as its backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmState {
    /// Its processors run.
    Running,
    /// Its processors stand still; it goes on by itself once the reason is gone.
    Paused(PauseReason),
    /// It is gone.
    Ended(VmEnd),
}

/// Why a machine's processors stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum PauseReason {
    /// The host's disk is full, so the guest's write waits until there is room. Nothing is lost.
    HostDiskFull,
    /// Another reason, in words.
    Other(String),
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostDiskFull => {
                f.write_str("this computer's disk is full; the machine goes on once there is room")
            }
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Why a machine is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEnd {
    /// The guest switched it off.
    PoweredOff,
    /// The guest asked to start over, which a machine here never does: its kernel panicked, mostly.
    Rebooted,
    /// The guest's kernel said that it panicked.
    Panicked,
    /// [`Vm::kill`] ended it, or its `Vm` was dropped.
    Killed,
    /// Part of the backend ended without being asked to.
    Died {
        /// The part, as the user could find it in a list of processes: `qemu-system-x86_64`.
        part: String,
        /// How it ended, in words: "killed by signal 9".
        how: String,
        /// The last that it said, oldest line first.
        tail: Vec<String>,
    },
}

impl fmt::Display for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest switched the machine off"),
            Self::Rebooted => f.write_str("the guest restarted the machine, as it does after a kernel panic"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::Killed => f.write_str("the machine was ended by force"),
            Self::Died { part, how, tail } => {
                write!(f, "{part} ended unexpectedly ({how})")?;
                tail.last().map_or(Ok(()), |line| write!(f, ": {line}"))
            }
        }
    }
}
