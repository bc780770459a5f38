//! Who is who, for `caisson version` and the window's foot.

use serde::{Deserialize, Serialize};
use specta::Type;

/// The versions of the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Version {
    /// The host daemon's.
    pub daemon: String,
    /// The host daemon's process id.
    pub pid: u32,
    /// The system that the daemon runs on, such as `linux/x86_64`.
    pub platform: String,
    /// The engine's; none while it does not answer. Asking does not start the machine.
    pub engine: Option<EngineVersion>,
}

/// The engine's versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct EngineVersion {
    /// The engine's own.
    pub version: String,
    /// The newest Docker Engine API that it speaks.
    pub api_version: String,
    /// The oldest one.
    pub min_api_version: String,
    /// The machine's kernel.
    pub kernel: String,
    /// The machine's architecture, in Go's words: `amd64`, `arm64`.
    pub arch: String,
}
