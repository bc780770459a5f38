//! What can end a machine against our will, and what each means for people and programs.

use std::time::Duration;

use caisson_guest_proto::BootStage;
use caisson_hypervisor::{LaunchError, VmEnd};

use crate::{
    Failure, FailureCode, Stage,
    disk::DiskError,
    image::{ImageError, OTHER_VERSION},
};

/// Why the machine failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("cannot make the directory {} for the machine's {what}", path.display())]
    Directory {
        what: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the stage {stage} took longer than {} s ({})", limit.as_secs(), stage.text().to_lowercase())]
    TimedOut { stage: Stage, limit: Duration },
    #[error("the machine speaks protocol {guest}, this program speaks {host}")]
    ProtocolMismatch { guest: u32, host: u32 },
    #[error("the machine's agent broke the protocol: {0}")]
    ProtocolBroken(String),
    #[error("the machine cannot go on ({}): {error}", stage_of(*stage).text().to_lowercase())]
    Guest { stage: BootStage, error: String },
    #[error("the container engine does not stay up ({status}){}", last(tail))]
    EngineDown { status: String, tail: Vec<String> },
    #[error("the engine does not answer: {0}")]
    NoAnswer(String),
    #[error("the machine's agent has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("{0}")]
    Ended(VmEnd),
    #[error("a part of this program ended unexpectedly: {0}")]
    Bug(String),
}

fn last(tail: &[String]) -> String {
    tail.last().map(|line| format!(": {line}")).unwrap_or_default()
}

/// The guest's stages are some of ours.
pub(crate) const fn stage_of(stage: BootStage) -> Stage {
    match stage {
        BootStage::Agent => Stage::Agent,
        BootStage::Disk => Stage::Disk,
        BootStage::Engine => Stage::Engine,
    }
}

impl BootError {
    /// What goes into the status.
    pub(crate) fn failure(&self, stage: Option<Stage>, console_tail: Vec<String>) -> Failure {
        Failure { stage, code: self.code(), message: chain(self), remedy: self.remedy(), console_tail }
    }

    fn code(&self) -> FailureCode {
        match self {
            Self::Image(ImageError::Protocol(_)) | Self::ProtocolMismatch { .. } => {
                FailureCode::ProtocolMismatch
            }
            Self::Image(_) => FailureCode::ImageUnusable,
            Self::Disk(DiskError::HostFull { .. }) => FailureCode::HostDiskFull,
            Self::Disk(_) => FailureCode::DataDiskUnusable,
            Self::Launch(LaunchError::ProgramMissing { .. }) => FailureCode::ProgramMissing,
            Self::Launch(LaunchError::FeatureMissing { .. }) => FailureCode::FeatureMissing,
            Self::Launch(_) | Self::Directory { .. } | Self::Bug(_) => FailureCode::HypervisorFailed,
            Self::TimedOut { .. } | Self::NoAnswer(_) => FailureCode::StageTimedOut,
            Self::ProtocolBroken(_) => FailureCode::ProtocolBroken,
            Self::Guest { .. } => FailureCode::GuestFailed,
            Self::EngineDown { .. } => FailureCode::EngineFailed,
            Self::Silent(_) => FailureCode::GuestSilent,
            Self::Ended(VmEnd::PoweredOff) => FailureCode::GuestPoweredOff,
            Self::Ended(VmEnd::Panicked | VmEnd::Rebooted) => FailureCode::GuestPanicked,
            Self::Ended(VmEnd::Killed | VmEnd::Died { .. }) => FailureCode::MachineDied,
        }
    }

    fn remedy(&self) -> String {
        if let Self::Launch(error) = self
            && let Some(remedy) = error.remedy()
        {
            return remedy;
        }
        if let Self::Image(error) = self {
            return error.remedy();
        }
        match self.code() {
            FailureCode::ImageUnusable | FailureCode::ProtocolMismatch => OTHER_VERSION,
            FailureCode::DataDiskUnusable => "see that the data disk's directory exists and that you may write there",
            FailureCode::HostDiskFull => "free some room on this computer's disk, then start the machine again",
            FailureCode::GuestFailed | FailureCode::EngineFailed => "read the machine's log: caisson logs; your data is untouched",
            FailureCode::StageTimedOut => "start the machine again when this computer is less busy; if it fails again, read: caisson logs",
            FailureCode::GuestSilent | FailureCode::GuestPoweredOff | FailureCode::MachineDied => {
                "start the machine again: caisson start"
            }
            FailureCode::GuestPanicked => "start the machine again; if it fails again, read the end of its console: caisson logs",
            FailureCode::ProgramMissing
            | FailureCode::FeatureMissing
            | FailureCode::HypervisorFailed
            | FailureCode::ProtocolBroken => "read the machine's log: caisson logs",
        }
        .into()
    }
}

/// The error and what caused it, once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_keeps_its_own_remedy() {
        let error = BootError::Launch(LaunchError::ProgramMissing {
            program: "qemu".into(),
            purpose: "runs the machine",
            install: "apt-get install qemu".into(),
            looked_in: vec![],
        });
        let failure = error.failure(Some(Stage::Hypervisor), vec![]);
        assert_eq!(failure.code, FailureCode::ProgramMissing);
        assert_eq!(failure.remedy, "apt-get install qemu");
        assert_eq!(
            failure.to_string(),
            "the machine failed in the stage hypervisor: qemu, which runs the machine, is not installed"
        );
    }

    #[test]
    fn the_cause_is_part_of_the_message_once() {
        let error = BootError::Disk(DiskError::File {
            action: "open",
            path: "/data".into(),
            source: std::io::Error::other("it is cursed"),
        });
        let failure = error.failure(None, vec![]);
        assert_eq!(failure.message, "cannot open the data disk /data: it is cursed");
        assert_eq!(failure.code, FailureCode::DataDiskUnusable);
    }

    #[test]
    fn how_a_machine_ended_tells_what_to_do() {
        let code = |end| BootError::Ended(end).code();
        assert_eq!(code(VmEnd::Rebooted), FailureCode::GuestPanicked);
        assert_eq!(code(VmEnd::PoweredOff), FailureCode::GuestPoweredOff);
        let died = VmEnd::Died { part: "qemu".into(), how: "killed by signal 9".into(), tail: vec![] };
        let failure = BootError::Ended(died).failure(None, vec![]);
        assert_eq!(failure.code, FailureCode::MachineDied);
        assert_eq!(failure.message, "qemu ended unexpectedly (killed by signal 9)");
        assert!(failure.remedy.contains("caisson start"));
    }
}
