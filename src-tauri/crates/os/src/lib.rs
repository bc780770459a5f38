//! What differs from one operating system to the next, behind one face: where files belong, who a process is, how one is
//! started that outlives the terminal, where the docker CLI looks for contexts and its user's settings of registries are, and
//! what the system knows of the networks around it: name servers, routes, proxies, and whom to trust there.
//!
//! Each system has one file (`linux.rs`, `macos.rs`, `windows.rs`) with the same functions; what the first two share
//! is in `unix.rs`. Nothing else in the host asks which system it runs on, but for the listeners of `caisson-forward`
//! and the one place that chooses a hypervisor.

mod authorities;
mod dirs;
mod docker_context;
mod lock;
mod network;
mod pauses;
#[cfg(unix)]
mod printed;
mod process;
mod proxies;
mod registries;
mod replace;
mod routes;
mod sparse;
mod tail;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod imp;
#[cfg(unix)]
mod unix;

pub use authorities::{Authorities, authorities};
pub use dirs::{Dirs, DirsError, Endpoint};
pub use docker_context::{ContextError, DockerContexts};
pub use lock::{LockError, ProcessLock};
pub use network::name_servers;
pub use pauses::Pauses;
pub use process::{
    Holder, detach_from_terminal, holder_of_tcp_port, platform, program, raise_file_limit, silence_output,
    spawn_detached,
};
pub use proxies::{Proxies, proxies};
pub use registries::{
    RegistryCertificates, RegistryFile, RegistrySettings, RegistrySettingsError, UserRegistries,
};
pub use replace::replace_file;
pub use routes::{Route, routes};
pub use sparse::make_sparse;
pub use tail::{Follow, tail_lines};
