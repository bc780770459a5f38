//! Who opens published ports.

use std::path::PathBuf;

/// Who opens published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publisher {
    /// This system: its own addresses are bound here and bytes are copied to the containers.
    Native,
    /// The host of the machine, asked over this unix socket by `caisson_guest_proto`'s PORTS.
    External(PathBuf),
}
