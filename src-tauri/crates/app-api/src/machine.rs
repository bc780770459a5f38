//! The machine as the window and the CLI see it.

use serde::{Deserialize, Serialize};
use specta::Type;

/// Everything there is to know about the machine now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct MachineStatus {
    /// What it is doing.
    pub state: MachineState,
    /// The stages of the present or last boot, in order; all [`StageProgress::Waiting`] before the first one.
    pub stages: Vec<StageStatus>,
    /// What the user should know though nothing failed, such as that there is no hardware acceleration.
    pub notices: Vec<String>,
    /// The backend that powers it: `qemu`, `vz` or `hcs`.
    pub hypervisor: String,
    /// Where Docker clients find the engine, as `DOCKER_HOST` takes it.
    pub docker_host: String,
    /// The docker context that points there.
    pub docker_context: String,
}

/// What the machine is doing. A state carries exactly what exists in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MachineState {
    /// It is off.
    Stopped,
    /// Its disk and its image are made ready.
    Preparing,
    /// It comes up.
    Booting {
        /// The stage that it is in.
        stage: BootStage,
    },
    /// The engine answers.
    Running {
        /// From the start to the engine's first answer, in milliseconds.
        boot_ms: u32,
    },
    /// It goes down, in order.
    Stopping,
    /// It did not come up, or it died.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// The stages of a boot, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum BootStage {
    /// The hypervisor takes the machine and powers it on.
    Hypervisor,
    /// The kernel comes up and the guest connects.
    Kernel,
    /// Guest and host agree on a protocol.
    Agent,
    /// The data disk is checked, made or grown, and mounted.
    Disk,
    /// The engine starts.
    Engine,
    /// The engine answers on the socket.
    Socket,
}

/// One stage of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct StageStatus {
    /// Which.
    pub stage: BootStage,
    /// How far it got.
    pub progress: StageProgress,
    /// What is being done, in a few English words; the window has its own words by `stage`.
    pub text: String,
    /// How long it took, in milliseconds; only once it is over.
    pub took_ms: Option<u32>,
}

/// How far a stage got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum StageProgress {
    /// Not reached.
    Waiting,
    /// Under way.
    Active,
    /// Over, well.
    Done,
    /// Over, badly.
    Failed,
}

/// Why the machine is in [`MachineState::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Failure {
    /// The stage in which it happened; none if the machine was running or had not begun to boot.
    pub stage: Option<BootStage>,
    /// What a screen decides by.
    pub code: FailureCode,
    /// What happened, in English, with its causes.
    pub message: String,
    /// What the user can do about it, in English.
    pub remedy: Option<String>,
    /// The last lines of the machine's console; empty if it never wrote any.
    pub console_tail: String,
}

/// What a machine can fail of, as far as a screen tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The virtual machine's image (kernel, root) is missing or incomplete.
    ImageMissing,
    /// A program or system feature that the backend needs is missing.
    HypervisorMissing,
    /// The backend is there but could not start the machine.
    LaunchFailed,
    /// A stage did not end before its deadline.
    TimedOut,
    /// Guest and host speak different versions.
    ProtocolMismatch,
    /// The data disk could not be made, checked or mounted.
    DiskFailed,
    /// The host's or the machine's disk is full.
    DiskFull,
    /// The engine does not start or stay up.
    EngineFailed,
    /// The virtual machine ended by itself.
    MachineDied,
    /// Anything else; the message says what.
    Internal,
}

/// Which log [`MachineLog`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// The machine's console: kernel, init and engine.
    Console,
    /// The host daemon's own log.
    Daemon,
}

/// Asks for the end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct MachineLog {
    /// Which log.
    pub source: LogSource,
    /// How many lines, at most.
    pub tail: u32,
}

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct MachineLogText {
    /// The file that it is from.
    pub path: String,
    /// Its last lines.
    pub text: String,
}
