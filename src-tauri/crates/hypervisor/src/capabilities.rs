//! What a backend can do on this computer, as data.

use std::fmt;

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

/// Something that works, but not as well as the user might expect, in words made for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What is so: one sentence without a full stop.
    pub text: String,
    /// What the user could do about it, if anything.
    pub remedy: Option<String>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            Some(remedy) => write!(f, "{}: {remedy}", self.text),
            None => f.write_str(&self.text),
        }
    }
}
