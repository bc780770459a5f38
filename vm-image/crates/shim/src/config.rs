//! A container's bundle: the directory from which a shim makes one container.
//!
//! | file | written by | holds |
//! |---|---|---|
//! | [`SPEC_FILE`] | engine | the OCI runtime spec; `root.path` is not used, [`ShimConfig::rootfs`] is |
//! | [`CONFIG_FILE`] | engine | [`ShimConfig`] |
//! | [`SOCKET_FILE`] | engine | the listening Unix socket, handed to the shim as [`LISTENER_FD`] |
//! | [`exec_file`] | engine | what a process that is to be added is: an [`ExecProcess`] among whatever the engine keeps there |
//! | [`exec_record`] | shim | how a process that was added ended |
//! | [`LOG_FILE`] | engine | where it sends the shim's stderr: the shim's own troubles, never the container's output |
//!
//! The engine may delete the bundle once the shim has exited.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// The argument with which the shim's program makes namespaces instead, see its `namespaces` module.
pub const NAMESPACES_COMMAND: &str = "--namespaces";

/// The directory in a bundle of the files of added processes. The engine makes it.
pub const EXECS_DIRECTORY: &str = "execs";

/// The file that says what the process of this name is.
pub fn exec_file(bundle: &Path, id: &str) -> PathBuf {
    bundle.join(EXECS_DIRECTORY).join(format!("{id}.json"))
}

/// The file that says how the process of this name ended: an [`ExitRecord`](crate::proto::ExitRecord), written atomically.
pub fn exec_record(bundle: &Path, id: &str) -> PathBuf {
    bundle.join(EXECS_DIRECTORY).join(format!("{id}.exit"))
}

/// What a process that is to be added to a container is: the side that the engine writes of `caisson_runtime::exec::AddedProcess`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecProcess<P, F> {
    /// The OCI spec's `process`.
    pub process: P,
    /// As [`ShimConfig::user`].
    pub user: Option<String>,
    /// As [`ShimConfig::group_add`].
    pub group_add: Vec<String>,
    /// The OCI spec's `seccomp` for this process; the container's, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<F>,
}

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
    /// A mount namespace (`/proc/PID/ns/mnt`) whose `/dev/shm` becomes the container's own: that of the container whose IPC
    /// namespace it shares.
    #[serde(default)]
    pub shared_memory: Option<PathBuf>,
    /// Whether [`Reply::Started`](crate::proto::Reply::Started) tells how long each step took.
    #[serde(default)]
    pub trace: bool,
    /// What the container reads on its standard input (without a terminal).
    pub stdin: Stdin,
    /// Where the output is kept.
    pub log: LogTarget,
    /// Where [`ExitRecord`](crate::proto::ExitRecord) is written, as JSON, atomically: when the process has ended, before the rest of its output
    /// is read and any `Wait` is answered.
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
    /// In files.
    File(LogFile),
    /// Nowhere.
    None,
}

/// A log in files: the newest at `path`, older ones at `path.1`, `path.2` and so on, with `.gz` behind if they are compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// The newest file, appended to, made with mode 0640 (and its directory) if missing.
    pub path: PathBuf,
    /// What entries look like.
    pub format: LogFormat,
    /// A file of this many bytes or more is full; `None` for no bound.
    pub max_bytes: Option<u64>,
    /// How many files are kept, the newest included; at least 1.
    pub max_files: u32,
    /// Whether older files are compressed.
    pub compress: bool,
    /// How many bytes of entries may wait for the file; more are lost, so that the container never waits. `None` lets it wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<u64>,
    /// What every entry carries: labels and variables that the user chose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// What a log's entries look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// dockerd's `json-file`: a line of JSON each.
    Json,
    /// dockerd's `local`: a protobuf message each, between its length and its length again.
    Local,
}
