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
    pub notices: Vec<Notice>,
    /// The hypervisor's name: `QEMU`, `Virtualization.framework`, `Hyper-V`.
    pub hypervisor: String,
    /// Who runs the machine's instructions; none before the hypervisor was asked for the first time.
    pub acceleration: Option<Acceleration>,
    /// The room on the data disk, once there is too little of it.
    pub disk_full: Option<DiskRoom>,
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
    /// The engine has answered.
    Running {
        /// From the start to the engine's first answer, in milliseconds.
        boot_ms: u32,
        /// How the engine is now.
        engine: EngineState,
    },
    /// It goes down, in order.
    Stopping,
    /// It did not come up, or it died.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// The engine of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EngineState {
    /// It answers.
    Up,
    /// It ended by itself and is started again; containers go on meanwhile.
    Restarting {
        /// How it ended: `exit status 1`.
        status: String,
        /// The last that it said.
        tail: String,
    },
}

/// Something that works, but not as well as the user might expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Notice {
    /// What it is about; the window has its own words by it.
    pub about: NoticeCode,
    /// What is so, in English.
    pub text: String,
    /// What the user could do about it, in English.
    pub remedy: Option<String>,
}

/// What a [`Notice`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NoticeCode {
    /// The processor is emulated, since there is no `/dev/kvm`.
    KvmAbsent,
    /// The processor is emulated, since this user may not open `/dev/kvm`.
    KvmForbidden,
    /// The processor is emulated, since the machine's kernel does not run with KVM.
    KvmBroken {
        /// What the hypervisor said.
        why: String,
    },
    /// The processor is emulated, since with KVM the machine's kernel did not start in time.
    KvmTooSlow {
        /// How long it had, in seconds.
        limit_secs: u32,
    },
    /// The machine stands still, since this computer's own disk is full. It goes on by itself once there is room.
    HostDiskFull,
    /// The machine stands still for another reason.
    Paused {
        /// The hypervisor's words.
        why: String,
    },
}

/// Who runs the machine's instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Acceleration {
    /// The computer's own processor.
    Hardware {
        /// The system's facility: `KVM`, `Hypervisor.framework`, `Hyper-V`.
        by: String,
    },
    /// A program translates them: everything works, 15 to 20 times slower.
    Emulated,
}

/// The room on the machine's data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct DiskRoom {
    /// What is free, in MiB.
    pub free_mib: u32,
    /// The whole, in MiB.
    pub total_mib: u32,
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
    /// The machine's image is absent, incomplete or cannot be read.
    ImageUnusable,
    /// The data disk cannot be made, grown or opened.
    DataDiskUnusable,
    /// This computer's own disk has no room left for the data disk.
    HostDiskFull,
    /// A program that the hypervisor needs is not installed.
    ProgramMissing,
    /// A part of the operating system is absent or switched off.
    FeatureMissing,
    /// The hypervisor did not start the machine.
    HypervisorFailed,
    /// A stage of the boot took longer than it may.
    StageTimedOut,
    /// Guest and host speak different versions.
    ProtocolMismatch,
    /// The guest did not speak as agreed.
    ProtocolBroken,
    /// The guest itself said that it cannot go on.
    GuestFailed,
    /// The engine does not come up.
    EngineFailed,
    /// The guest no longer answers.
    GuestSilent,
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The guest switched itself off without being asked to.
    GuestPoweredOff,
    /// A process of the hypervisor was killed or crashed.
    MachineDied,
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
