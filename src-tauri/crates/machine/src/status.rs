//! What others may know about the machine: a plain picture of its state, made for showing and sending.
//!
//! It is made from the real state (`state.rs`) and kept apart from it, so that what travels to windows and terminals
//! can stay the same while the machine's inside changes.

use std::fmt;

use caisson_hypervisor::{Acceleration, Notice, PauseReason};
use serde::Serialize;

/// One step of a boot. Each has its own deadline, its own text and its own errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The hypervisor is asked for a machine.
    Hypervisor,
    /// The guest's kernel starts, until our agent is its first process and has reached us.
    Kernel,
    /// The agent sets the guest up.
    Agent,
    /// The agent makes, checks or grows the data disk's file system and mounts it.
    Disk,
    /// The container engine starts.
    Engine,
    /// The first answer of the engine comes through the whole way.
    Socket,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 6] =
        [Self::Hypervisor, Self::Kernel, Self::Agent, Self::Disk, Self::Engine, Self::Socket];

    /// Its name in messages: "hypervisor".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hypervisor => "hypervisor",
            Self::Kernel => "kernel",
            Self::Agent => "agent",
            Self::Disk => "disk",
            Self::Engine => "engine",
            Self::Socket => "socket",
        }
    }

    /// What happens in it, for people, in English.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Hypervisor => "Powering the machine on",
            Self::Kernel => "Starting the Linux kernel",
            Self::Agent => "Setting up the guest",
            Self::Disk => "Checking the data disk",
            Self::Engine => "Starting the container engine",
            Self::Socket => "Waiting for the engine's first answer",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum MachineState {
    /// It is off.
    Stopped,
    /// Its image and its data disk are looked at.
    Preparing,
    /// It boots.
    Booting {
        /// The stage that it is in.
        stage: Stage,
    },
    /// The engine answered `GET /_ping`.
    Running,
    /// It shuts down.
    Stopping,
    /// It is off because something went wrong; [`MachineStatus::failure`] says what.
    Failed,
}

/// How far one stage of the boot at hand, or of the last one, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Not yet begun.
    Waiting,
    /// At it.
    Active,
    /// Done.
    Done,
    /// It ended the boot.
    Failed,
}

/// One stage of the boot at hand, or of the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Which.
    pub stage: Stage,
    /// How far it has come.
    pub progress: Progress,
    /// What happens in it; the guest's own words where it gave some ("checking the file system").
    pub text: String,
    /// How long it took, in milliseconds, once it is done or failed.
    pub took_ms: Option<u64>,
}

/// The engine in the running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "engine")]
pub enum EngineStatus {
    /// The machine does not run, so neither does the engine.
    Off,
    /// It runs.
    Up,
    /// It ended by itself; the agent starts it again. Containers go on meanwhile.
    Restarting {
        /// How it ended: "exit status 1".
        status: String,
        /// The last that it said, oldest line first.
        tail: Vec<String>,
    },
}

/// Why the machine failed, for programs (the code) and people (the rest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The boot stage that failed; none if it failed before the first stage or after the last.
    pub stage: Option<Stage>,
    /// What went wrong, for programs.
    pub code: FailureCode,
    /// What went wrong, for people: one line.
    pub message: String,
    /// What can be done about it: one line.
    pub remedy: String,
    /// The last lines of the guest's console, oldest first; empty if it never ran.
    pub console_tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Some(stage) => write!(f, "the machine failed in the stage {stage}: {}", self.message),
            None => write!(f, "the machine failed: {}", self.message),
        }
    }
}

impl std::error::Error for Failure {}

/// What went wrong, for programs. The name in snake case is part of the contract with window and CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The machine's image is absent, incomplete or cannot be read.
    ImageUnusable,
    /// The data disk cannot be made, grown or opened.
    DataDiskUnusable,
    /// The computer's own disk has no room left for the data disk.
    HostDiskFull,
    /// A program that the hypervisor needs is not installed.
    ProgramMissing,
    /// A part of the operating system is absent or switched off.
    FeatureMissing,
    /// The hypervisor did not start the machine.
    HypervisorFailed,
    /// A stage of the boot took longer than it may.
    StageTimedOut,
    /// The guest's agent speaks another version of our protocol.
    ProtocolMismatch,
    /// The guest's agent broke the protocol.
    ProtocolBroken,
    /// The guest itself said that it cannot go on.
    GuestFailed,
    /// The container engine does not stay up.
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

impl FailureCode {
    /// The code as it travels: "protocol_mismatch".
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImageUnusable => "image_unusable",
            Self::DataDiskUnusable => "data_disk_unusable",
            Self::HostDiskFull => "host_disk_full",
            Self::ProgramMissing => "program_missing",
            Self::FeatureMissing => "feature_missing",
            Self::HypervisorFailed => "hypervisor_failed",
            Self::StageTimedOut => "stage_timed_out",
            Self::ProtocolMismatch => "protocol_mismatch",
            Self::ProtocolBroken => "protocol_broken",
            Self::GuestFailed => "guest_failed",
            Self::EngineFailed => "engine_failed",
            Self::GuestSilent => "guest_silent",
            Self::GuestPanicked => "guest_panicked",
            Self::GuestPoweredOff => "guest_powered_off",
            Self::MachineDied => "machine_died",
        }
    }
}

/// The guest that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuestInfo {
    /// The version of the agent.
    pub version: String,
    /// The kernel's name for this boot: another one means that it was started anew.
    pub boot_id: String,
}

/// The room on the guest's data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskRoom {
    /// Bytes that are free.
    pub free: u64,
    /// The size of its file system in bytes.
    pub total: u64,
}

/// All that others may know about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineStatus {
    /// Where it is in its life.
    pub state: MachineState,
    /// Every stage of the boot at hand or of the last one, in order; always all six.
    pub stages: Vec<StageStatus>,
    /// Why it failed, in [`MachineState::Failed`].
    pub failure: Option<Failure>,
    /// The engine in the guest.
    pub engine: EngineStatus,
    /// The hypervisor's name: "QEMU".
    pub hypervisor: &'static str,
    /// Who runs the guest's instructions, once the hypervisor was asked.
    pub acceleration: Option<Acceleration>,
    /// What the user should know about this machine, once the hypervisor was asked.
    pub notices: Vec<Notice>,
    /// Why its processors stand still, while they do: this computer's disk is full, mostly.
    pub paused: Option<PauseReason>,
    /// The guest, once it said hello.
    pub guest: Option<GuestInfo>,
    /// The room left on the data disk, once the guest said that there is too little.
    pub disk_full: Option<DiskRoom>,
    /// How long the last boot took from the wish to the engine's first answer, in milliseconds.
    pub boot_ms: Option<u64>,
}

impl MachineStatus {
    /// A machine that is off and has never run.
    #[must_use]
    pub fn new(hypervisor: &'static str) -> Self {
        let waiting = |stage: Stage| StageStatus {
            stage,
            progress: Progress::Waiting,
            text: stage.text().into(),
            took_ms: None,
        };
        Self {
            state: MachineState::Stopped,
            stages: Stage::ALL.map(waiting).into(),
            failure: None,
            engine: EngineStatus::Off,
            hypervisor,
            acceleration: None,
            notices: Vec::new(),
            paused: None,
            guest: None,
            disk_full: None,
            boot_ms: None,
        }
    }

    /// There is no guest any more, so what was so of it is not.
    pub(crate) fn forget_the_guest(&mut self) {
        self.engine = EngineStatus::Off;
        self.paused = None;
        self.disk_full = None;
    }
}
