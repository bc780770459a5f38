//! What a backend can do on this computer, as data.

use std::time::Duration;

use serde::Serialize;

/// What a backend can do on this computer, asked once a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Whether the processor runs the guest itself.
    pub acceleration: Acceleration,
    /// The most virtual processors a machine can have.
    pub max_cpus: u32,
    /// What the user should know before relying on this machine; empty when all is as it should be.
    pub notices: Vec<Notice>,
}

/// Who runs the guest's instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Acceleration {
    /// The computer's own processor.
    Hardware {
        /// The system's facility: "KVM", "Hypervisor.framework", "Hyper-V".
        by: String,
    },
    /// A program translates them: everything works, 15 to 20 times slower.
    Emulated,
}

/// Something that works, but not as well as the user might expect. [`text`](Self::text) and [`remedy`](Self::remedy) are
/// English; who speaks another language has words of their own for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Notice {
    /// The processor is emulated, since the system has no KVM.
    KvmAbsent,
    /// The processor is emulated, since this user may not use KVM.
    KvmForbidden,
    /// The processor is emulated, since the guest's kernel does not run with KVM.
    KvmBroken {
        /// What QEMU said.
        why: String,
    },
    /// The processor is emulated, since with KVM the guest's kernel did not start in time.
    KvmTooSlow {
        /// How long it had.
        limit: Duration,
    },
}

impl Notice {
    /// What is so: one sentence without a full stop.
    #[must_use]
    pub fn text(&self) -> String {
        let why = match self {
            Self::KvmAbsent => "there is no /dev/kvm".to_owned(),
            Self::KvmForbidden => "you may not open /dev/kvm".to_owned(),
            Self::KvmBroken { why } => {
                format!("/dev/kvm is there but cannot run the machine's kernel ({why})")
            }
            Self::KvmTooSlow { limit } => {
                format!("with /dev/kvm the machine's kernel did not start within {} s", limit.as_secs())
            }
        };
        format!("the processor is emulated, which is 15 to 20 times slower: {why}")
    }

    /// What the user could do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::KvmAbsent => {
                "enable virtualization in the firmware (or nested virtualization, if this is a virtual machine) and load kvm_intel or kvm_amd"
            }
            Self::KvmForbidden => "sudo usermod -aG kvm $USER, then log in again",
            Self::KvmBroken { .. } => "if this is a virtual machine, look at its nested virtualization",
            Self::KvmTooSlow { .. } => {
                "it is tried again at a start ten minutes from now; let this computer be less busy then"
            }
        }
    }
}
