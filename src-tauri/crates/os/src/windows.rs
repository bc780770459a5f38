//! Windows.

use crate::{Endpoint, Holder};
use directories::ProjectDirs;
use std::{
    fs, io,
    net::SocketAddr,
    os::windows::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// `DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP`: no console, and none of the parent's Ctrl-C.
const DETACHED: u32 = 0x8 | 0x200;

pub(crate) fn logs_dir(project: &ProjectDirs) -> PathBuf {
    project.data_local_dir().join("logs")
}

pub(crate) fn runtime_dir(project: &ProjectDirs) -> PathBuf {
    project.data_local_dir().join("run")
}

/// What lies below the user's profile is the user's by inheritance.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

pub(crate) fn is_private(dir: &Path) -> io::Result<bool> {
    Ok(fs::metadata(dir)?.is_dir())
}

pub(crate) fn docker_endpoint(runtime: &Path) -> Endpoint {
    pipe("docker", runtime)
}

pub(crate) fn daemon_endpoint(runtime: &Path) -> Endpoint {
    pipe("host", runtime)
}

/// Pipes have names, not paths, and these are the whole computer's: the user's profile makes each the user's own.
fn pipe(purpose: &str, runtime: &Path) -> Endpoint {
    let owner: String = runtime
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    Endpoint::new(format!(r"\\.\pipe\caisson-{purpose}-{owner}"))
}

pub(crate) fn docker_host(path: &Path) -> String {
    format!("npipe://{}", path.to_string_lossy().replace('\\', "/"))
}

pub(crate) fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    command.creation_flags(DETACHED).spawn()
}

/// Done by the parent already.
pub(crate) fn detach_from_terminal() -> io::Result<()> {
    Ok(())
}

/// This program's file; not canonicalised, which would give it a `\\?\` that nobody wants to read.
pub(crate) fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// A write to a pipe that nobody reads fails and does no more.
pub(crate) fn silence_output() -> io::Result<()> {
    Ok(())
}

/// Windows has no such limit.
pub(crate) fn raise_file_limit(_wanted: u64) -> Option<u64> {
    None
}

/// `GetExtendedTcpTable` would tell the process id; not worth its `unsafe` for a nicer message.
pub(crate) fn holder_of_tcp_port(_address: SocketAddr) -> Holder {
    Holder::Unknown("`netstat -abno` as administrator says which program it is")
}

/// Windows keeps them per adapter and changes them with each VPN; its own resolver call, which does the rest of the work,
/// follows that.
pub(crate) fn name_servers() -> Vec<SocketAddr> {
    Vec::new()
}
