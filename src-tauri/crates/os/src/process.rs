//! Processes: who one is, and how to start one that stays.

use crate::imp;
use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command},
};

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This process.
    Process {
        /// Its short name.
        name: String,
        /// Its number.
        pid: u32,
    },
    /// It cannot be told, for this reason.
    Unknown(&'static str),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { name, pid } => write!(f, "{name} (pid {pid})"),
            Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

/// Who listens on `address`, or so that `address` cannot be listened on. Reads files: not for an async task.
pub fn holder_of_tcp_port(address: SocketAddr) -> Holder {
    imp::holder_of_tcp_port(address)
}

/// Starts a program that is to outlive this one and its terminal. The program must call [`detach_from_terminal`] first thing.
pub fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    imp::spawn_detached(command)
}

/// Leaves the terminal that the parent was started from, so that its end and its Ctrl-C are not ours.
pub fn detach_from_terminal() -> io::Result<()> {
    imp::detach_from_terminal()
}

/// The file of this program: what belongs to it lies beside.
pub fn program() -> io::Result<PathBuf> {
    imp::program()
}

/// Says nothing more on standard output and error, whose readers may be gone.
pub fn silence_output() -> io::Result<()> {
    imp::silence_output()
}

/// Lets this process have `wanted` open files, or as many as the system allows. Gives how many it may have now; none is no
/// limit.
pub fn raise_file_limit(wanted: u64) -> Option<u64> {
    imp::raise_file_limit(wanted)
}

/// The system and the processor, such as `linux/x86_64`.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
