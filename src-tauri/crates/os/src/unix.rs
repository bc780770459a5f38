//! What Linux and macOS share.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// Makes the directory and its parents where missing, 0700.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Whether the directory belongs to this user; takes others' rights from it.
pub(crate) fn is_private(dir: &Path) -> io::Result<bool> {
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(true)
}

pub(crate) fn docker_host(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Nothing to add: the child leaves the terminal by itself, see [`detach_from_terminal`].
pub(crate) fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

/// Begins a session of its own. Not done by the parent, between fork and exec: that would take `unsafe`.
pub(crate) fn detach_from_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// This program's file, with links resolved: what belongs to it lies beside the file, not beside the link.
pub(crate) fn program() -> io::Result<PathBuf> {
    std::env::current_exe()?.canonicalize()
}

/// Leads standard output and error nowhere.
pub(crate) fn silence_output() -> io::Result<()> {
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

pub(crate) fn raise_file_limit(wanted: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
    }
    Ok(())
}
