//! What the window and the CLI say to the host daemon.
//!
//! One list of calls ([`calls`]) makes everything that must agree: the request that travels, the [`Host`] trait that the
//! daemon implements (a call without a handler does not compile), the typed [`Client`], and the TypeScript that the
//! window is written against (`ui/src/host/generated.ts`, written by this crate's tests and committed).
//!
//! ## On the wire
//! A connection is a local stream: a unix socket, or a named pipe on Windows. Each message is one line of JSON.
//! The daemon speaks first (`{"protocol":2,"version":"0.1.0"}`), then the client asks and is answered, one request after
//! the other. A subscription takes the connection over until either side closes it: no request ids, no multiplexing, and
//! a reader that is slow slows only itself. Connecting is so cheap that [`Client`] makes one connection a call, and is
//! therefore never left with a dead one after the daemon restarted.
//!
//! ## What is deliberately not here
//! The types are the wire's own, not the machine's or the engine's: those may change without the window noticing.
//! Nobody is authenticated here: the socket's directory (0700) and the socket itself (0600) do that, and on
//! Windows the pipe's rights.

mod calls;
mod client;
mod connect;
mod containers;
mod error;
mod launch;
mod machine;
mod ports;
mod server;
mod version;
mod wire;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod typescript;

pub use calls::{Call, Host, Subscribe};
pub use client::{Client, Subscription};
pub use containers::{
    ContainerId, ContainerLogs, ContainerPort, ContainerRemove, ContainerState, ContainerSummary, LogChunk,
    LogStream,
};
pub use error::{ApiError, ErrorCode};
pub use launch::{READY, connect_or_start};
pub use machine::{
    Acceleration, BootStage, DiskRoom, EngineState, Failure, FailureCode, LogSource, MachineLog,
    MachineLogText, MachineState, MachineStatus, Notice, NoticeCode, StageProgress, StageStatus,
};
pub use ports::{PortForwardStatus, PortProtocol};
pub use server::{ItemStream, Items, call, serve, subscribe};
pub use version::{EngineVersion, Version};
pub use wire::{Answer, Ask, MAX_LINE_BYTES, PROTOCOL};

use serde::{Deserialize, Serialize};

/// Something that changed, or, right after subscribing, how things are.
///
/// A subscriber first gets one of each kind, so that it never has to ask as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, specta::Type)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Event {
    /// The machine's state, whole.
    Machine(Box<MachineStatus>),
    /// All containers, running or not; `null` while the engine does not answer, which is not the same as none.
    Containers(Option<Vec<ContainerSummary>>),
    /// All published ports, whole.
    Ports(Vec<PortForwardStatus>),
}
