//! The machine's own types as the window and the CLI know them.

use caisson_app_api as api;
use caisson_forward::PortStatus;
use caisson_guest_proto::PortProtocol;
use caisson_hypervisor as hypervisor;
use caisson_machine as machine;

use crate::run::CONTEXT;

/// The machine's status as it travels.
pub(crate) fn status(status: &machine::MachineStatus, docker_host: &str) -> api::MachineStatus {
    api::MachineStatus {
        state: state(status),
        stages: status.stages.iter().map(stage_status).collect(),
        notices: notices(status),
        hypervisor: status.hypervisor.to_owned(),
        acceleration: status.acceleration.as_ref().map(acceleration),
        disk_full: status
            .disk_full
            .map(|room| api::DiskRoom { free_mib: mib(room.free), total_mib: mib(room.total) }),
        docker_host: docker_host.to_owned(),
        docker_context: CONTEXT.to_owned(),
    }
}

fn state(status: &machine::MachineStatus) -> api::MachineState {
    match status.state {
        machine::MachineState::Stopped => api::MachineState::Stopped,
        machine::MachineState::Preparing => api::MachineState::Preparing,
        machine::MachineState::Booting { stage: at } => api::MachineState::Booting { stage: stage(at) },
        machine::MachineState::Running => api::MachineState::Running {
            boot_ms: ms(status.boot_ms.unwrap_or_default()),
            engine: engine(&status.engine),
        },
        machine::MachineState::Stopping => api::MachineState::Stopping,
        machine::MachineState::Failed => {
            api::MachineState::Failed { failure: failure(status.failure.as_ref()) }
        }
    }
}

fn engine(engine: &machine::EngineStatus) -> api::EngineState {
    match engine {
        machine::EngineStatus::Off | machine::EngineStatus::Up => api::EngineState::Up,
        machine::EngineStatus::Restarting { status, tail } => {
            api::EngineState::Restarting { status: status.clone(), tail: tail.join("\n") }
        }
    }
}

fn failure(failure: Option<&machine::Failure>) -> api::Failure {
    let Some(failure) = failure else {
        return api::Failure {
            stage: None,
            code: api::FailureCode::MachineDied,
            message: "the machine is not there".to_owned(),
            remedy: None,
            console_tail: String::new(),
        };
    };
    api::Failure {
        stage: failure.stage.map(stage),
        code: failure_code(failure.code),
        message: failure.message.clone(),
        remedy: Some(failure.remedy.clone()).filter(|remedy| !remedy.is_empty()),
        console_tail: failure.console_tail.join("\n"),
    }
}

fn stage(stage: machine::Stage) -> api::BootStage {
    match stage {
        machine::Stage::Hypervisor => api::BootStage::Hypervisor,
        machine::Stage::Kernel => api::BootStage::Kernel,
        machine::Stage::Agent => api::BootStage::Agent,
        machine::Stage::Disk => api::BootStage::Disk,
        machine::Stage::Engine => api::BootStage::Engine,
        machine::Stage::Socket => api::BootStage::Socket,
    }
}

fn stage_status(status: &machine::StageStatus) -> api::StageStatus {
    let progress = match status.progress {
        machine::Progress::Waiting => api::StageProgress::Waiting,
        machine::Progress::Active => api::StageProgress::Active,
        machine::Progress::Done => api::StageProgress::Done,
        machine::Progress::Failed => api::StageProgress::Failed,
    };
    api::StageStatus {
        stage: stage(status.stage),
        progress,
        text: status.text.clone(),
        took_ms: status.took_ms.map(ms),
    }
}

/// What the user should know; first of all why nothing moves, if nothing does.
fn notices(status: &machine::MachineStatus) -> Vec<api::Notice> {
    status.paused.iter().map(paused).chain(status.notices.iter().map(notice)).collect()
}

fn paused(reason: &hypervisor::PauseReason) -> api::Notice {
    use hypervisor::PauseReason as P;
    let about = match reason {
        P::HostDiskFull => api::NoticeCode::HostDiskFull,
        P::Other(why) => api::NoticeCode::Paused { why: why.clone() },
    };
    api::Notice { about, text: reason.to_string(), remedy: None }
}

fn notice(notice: &hypervisor::Notice) -> api::Notice {
    use hypervisor::Notice as N;
    let about = match notice {
        N::KvmAbsent => api::NoticeCode::KvmAbsent,
        N::KvmForbidden => api::NoticeCode::KvmForbidden,
        N::KvmBroken { why } => api::NoticeCode::KvmBroken { why: why.clone() },
        N::KvmTooSlow { limit } => {
            api::NoticeCode::KvmTooSlow { limit_secs: u32::try_from(limit.as_secs()).unwrap_or(u32::MAX) }
        }
    };
    api::Notice { about, text: notice.text(), remedy: Some(notice.remedy().to_owned()) }
}

fn acceleration(acceleration: &hypervisor::Acceleration) -> api::Acceleration {
    match acceleration {
        hypervisor::Acceleration::Hardware { by } => api::Acceleration::Hardware { by: by.clone() },
        hypervisor::Acceleration::Emulated => api::Acceleration::Emulated,
    }
}

fn failure_code(code: machine::FailureCode) -> api::FailureCode {
    use machine::FailureCode as M;
    match code {
        M::ImageUnusable => api::FailureCode::ImageUnusable,
        M::DataDiskUnusable => api::FailureCode::DataDiskUnusable,
        M::HostDiskFull => api::FailureCode::HostDiskFull,
        M::ProgramMissing => api::FailureCode::ProgramMissing,
        M::FeatureMissing => api::FailureCode::FeatureMissing,
        M::HypervisorFailed => api::FailureCode::HypervisorFailed,
        M::StageTimedOut => api::FailureCode::StageTimedOut,
        M::ProtocolMismatch => api::FailureCode::ProtocolMismatch,
        M::ProtocolBroken => api::FailureCode::ProtocolBroken,
        M::GuestFailed => api::FailureCode::GuestFailed,
        M::EngineFailed => api::FailureCode::EngineFailed,
        M::GuestSilent => api::FailureCode::GuestSilent,
        M::GuestPanicked => api::FailureCode::GuestPanicked,
        M::GuestPoweredOff => api::FailureCode::GuestPoweredOff,
        M::MachineDied => api::FailureCode::MachineDied,
    }
}

/// A published port as it travels.
pub(crate) fn port(port: &PortStatus) -> api::PortForwardStatus {
    let forward = &port.forward;
    let container_id = forward.key.split_once('/').map_or(forward.key.as_str(), |(id, _)| id);
    api::PortForwardStatus {
        key: forward.key.clone(),
        container_id: container_id.to_owned(),
        host_ip: forward.host_ip.to_string(),
        host_port: forward.host_port,
        protocol: match forward.protocol {
            PortProtocol::Tcp => api::PortProtocol::Tcp,
            PortProtocol::Udp => api::PortProtocol::Udp,
        },
        target: forward.target.to_string(),
        connections: port.connections,
    }
}

/// Milliseconds, up to seven weeks.
fn ms(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caisson_guest_proto::PortForward;

    #[test]
    fn a_port_is_told_with_its_container_and_what_it_speaks() {
        let published = |protocol| PortStatus {
            forward: PortForward {
                key: "c0ffee/1".into(),
                host_ip: [127, 0, 0, 1].into(),
                host_port: 5353,
                protocol,
                target: ([172, 17, 0, 2], 53).into(),
            },
            connections: 3,
        };
        assert_eq!(port(&published(PortProtocol::Udp)).protocol, api::PortProtocol::Udp);
        let told = port(&published(PortProtocol::Tcp));
        assert_eq!((told.protocol, told.container_id.as_str()), (api::PortProtocol::Tcp, "c0ffee"));
    }

    #[test]
    fn why_nothing_moves_comes_before_what_is_only_slow() {
        let mut status = machine::MachineStatus {
            notices: vec![hypervisor::Notice::KvmForbidden],
            paused: Some(hypervisor::PauseReason::HostDiskFull),
            ..machine::MachineStatus::new("QEMU")
        };
        let about = |status: &machine::MachineStatus| -> Vec<api::NoticeCode> {
            notices(status).into_iter().map(|notice| notice.about).collect()
        };
        assert_eq!(about(&status), [api::NoticeCode::HostDiskFull, api::NoticeCode::KvmForbidden]);
        status.paused = None;
        assert_eq!(about(&status), [api::NoticeCode::KvmForbidden]);
    }
}
