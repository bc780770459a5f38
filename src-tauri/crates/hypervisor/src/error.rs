//! What can go wrong, said so that the user can do something about it.

use std::{io, path::PathBuf, time::Duration};

use caisson_guest_proto::GuestVsockPort;

use crate::VmEnd;

/// Why a machine was not powered on. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A program that the backend runs is not installed.
    #[error("{program}, which {purpose}, is not installed")]
    ProgramMissing {
        /// Its name.
        program: String,
        /// What it is for, to go on after "which": "runs the machine".
        purpose: &'static str,
        /// What installs it, as a sentence or a command.
        install: String,
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// A part of the system that the backend needs is absent or switched off.
    #[error("{feature} is not available on this computer")]
    FeatureMissing {
        /// The system's name for it: "Hyper-V", "Virtualization.framework".
        feature: &'static str,
        /// How to get or enable it.
        remedy: String,
    },
    /// Something that the machine consists of is not there or cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: "open the kernel".
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A part of the backend would not start, or ended before the machine ran.
    #[error("{part} refused to start the machine ({how}){}", last_words(tail))]
    Refused {
        /// The part.
        part: String,
        /// How it ended or answered.
        how: String,
        /// The last that it said, oldest line first.
        tail: Vec<String>,
    },
    /// A part of the backend did nothing for too long.
    #[error("{part} did not {expected} within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The part.
        part: String,
        /// What was expected of it: "open its control socket".
        expected: &'static str,
        /// How long it had.
        limit: Duration,
    },
}

impl LaunchError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { install, .. } => Some(install.clone()),
            Self::FeatureMissing { remedy, .. } => Some(remedy.clone()),
            Self::File { .. } | Self::Refused { .. } | Self::TimedOut { .. } => None,
        }
    }
}

/// The last line that a program said, to go on an error's message.
fn last_words(tail: &[String]) -> String {
    tail.last().map(|line| format!(": {line}")).unwrap_or_default()
}

/// Why a stream into the guest was not opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing in the guest listens there (yet).
    #[error("nothing in the guest listens on vsock port {}", .0.0)]
    Refused(GuestVsockPort),
    /// The guest neither accepted nor refused.
    #[error("the guest did not answer on vsock port {} within {} s", port.0, limit.as_secs_f32())]
    TimedOut {
        /// The port.
        port: GuestVsockPort,
        /// How long it had.
        limit: Duration,
    },
    /// The machine is gone.
    #[error("{0}")]
    Ended(VmEnd),
    /// The backend's own part of the way is broken.
    #[error("cannot reach the guest's vsock")]
    Io(#[from] io::Error),
}

/// Why the power button could not be pressed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The machine is gone already.
    #[error("{0}")]
    Ended(VmEnd),
    /// The backend did not take the request.
    #[error("the hypervisor did not pass the request on to the guest: {0}")]
    NotDelivered(String),
}
