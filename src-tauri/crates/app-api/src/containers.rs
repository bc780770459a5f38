//! Containers as the window's list shows them.

use crate::PortProtocol;
use serde::{Deserialize, Serialize};
use specta::Type;

/// One row of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ContainerSummary {
    /// The full id, 64 hex digits.
    pub id: String,
    /// The name, without Docker's leading slash.
    pub name: String,
    /// The image as the user named it.
    pub image: String,
    /// The command line.
    pub command: String,
    /// When it was created, in seconds since 1970.
    pub created: u32,
    /// What it is doing.
    pub state: ContainerState,
    /// The same in the engine's words, with its exit code or health: `Up (healthy)`, `Exited (137)`.
    pub status: String,
    /// Its ports, published or only exposed.
    pub ports: Vec<ContainerPort>,
}

/// What a container is doing, as the engine tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// On its way out.
    Removing,
    /// Its process ended.
    Exited,
    /// It could not be removed whole.
    Dead,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ContainerPort {
    /// The port in the container.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: PortProtocol,
    /// The address on this computer, if it is published.
    pub host_ip: Option<String>,
    /// The port on this computer, if it is published.
    pub host_port: Option<u16>,
}

/// Names a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ContainerId {
    /// An id, the unique beginning of one, or a name.
    pub id: String,
}

/// Removes a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ContainerRemove {
    /// An id, the unique beginning of one, or a name.
    pub id: String,
    /// Ends it first if it runs; else a running container is a conflict.
    pub force: bool,
}

/// Asks for what a container wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ContainerLogs {
    /// An id, the unique beginning of one, or a name.
    pub id: String,
    /// How many lines of the past, at most.
    pub tail: u32,
    /// Goes on with what it writes from now on; else the subscription ends after the past.
    pub follow: bool,
    /// Begins each line with the time at which it was written (RFC 3339, UTC, nanoseconds) and a space.
    pub timestamps: bool,
}

/// A piece of what a container wrote: whole characters, not necessarily whole lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct LogChunk {
    /// Where it wrote it. All is stdout if the container has a terminal.
    pub stream: LogStream,
    /// What it wrote. Bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
