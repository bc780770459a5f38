//! A container's bundle: the directory from which a shim makes one container.
//!
//! | file | written by | holds |
//! |---|---|---|
//! | [`SPEC_FILE`] | engine | the OCI runtime spec; `root.path` is not used, [`ShimConfig::rootfs`] is |
//! | [`CONFIG_FILE`] | engine | [`ShimConfig`] |
//! | [`SOCKET_FILE`] | engine | the listening Unix socket, handed to the shim as [`LISTENER_FD`] |
//! | [`LOG_FILE`] | engine | where it sends the shim's stderr: the shim's own troubles, never the container's output |
//!
//! The engine may delete the bundle once the shim has exited.

use std::path::PathBuf;

pub use caisson_runtime::Rootfs;
use serde::{Deserialize, Serialize};

/// The OCI runtime spec's file name in a bundle.
pub const SPEC_FILE: &str = "config.json";
/// [`ShimConfig`]'s file name in a bundle.
pub const CONFIG_FILE: &str = "shim.json";
/// The shim's socket in a bundle. A later engine finds a running container by it.
pub const SOCKET_FILE: &str = "shim.sock";
/// Where the engine sends the shim's stderr.
pub const LOG_FILE: &str = "shim.log";
/// The descriptor on which the shim expects its listening socket.
pub const LISTENER_FD: i32 = 3;

/// What the shim must know beyond the OCI spec.
///
/// The engine sets the terminal (`process.terminal`, `process.consoleSize`), namespaces, mounts, cgroup path and all else
/// in the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// The container's full id; only for messages and the process title.
    pub id: String,
    /// What becomes `/`.
    pub rootfs: Rootfs,
    /// `Config.User` as the client gave it (`name`, `uid`, `name:group`, `uid:gid` …).
    ///
    /// Looked up in the container's own `/etc/passwd` and `/etc/group`, which only the shim sees mounted. When set it
    /// replaces `process.user` in the spec but for the groups that are in `additionalGids`, and a user who is not root
    /// loses the effective and permitted capabilities, as in dockerd. `None` takes the spec as it is; an empty string is root
    /// with root's groups, as dockerd has it.
    #[serde(default)]
    pub user: Option<String>,
    /// `HostConfig.GroupAdd`: names or numbers, looked up in the container's `/etc/group`.
    #[serde(default)]
    pub group_add: Vec<String>,
    /// What the container reads on its standard input (without a terminal).
    pub stdin: Stdin,
    /// Where the output is kept.
    pub log: LogTarget,
    /// Where [`ExitRecord`](crate::proto::ExitRecord) is written, as JSON, atomically, before any `Wait` is answered.
    ///
    /// Outside the bundle, so that it outlives it. An older file at this path is replaced.
    pub exit_record: PathBuf,
}

/// What the container reads on its standard input. With a terminal only `closed`/`open` matter, and neither ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// `OpenStdin: false`: `/dev/null`.
    Closed,
    /// `OpenStdin: true, StdinOnce: false`: stays open when an attached client's input ends.
    Open,
    /// `OpenStdin: true, StdinOnce: true`: closed when the first attached client's input ends.
    Once,
}

/// Where a container's output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    /// dockerd's `json-file` format, appended to.
    JsonFile {
        /// The file, made with mode 0640 if missing.
        path: PathBuf,
    },
    /// Nowhere.
    None,
}
