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

/// macOS refuses more than the kernel lets any process have (`kern.maxfilesperproc`) rather than cut it down to that; what it
/// promises is `OPEN_MAX` (setrlimit(2)).
const OPEN_MAX: u64 = 10_240;

pub(crate) fn raise_file_limit(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    let wanted = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = [wanted, wanted.min(OPEN_MAX)]
        .into_iter()
        .filter(|limit| *limit > current)
        .find(|limit| setrlimit(Resource::Nofile, Rlimit { current: Some(*limit), maximum }).is_ok());
    Some(raised.unwrap_or(current))
}

/// What `/etc/resolv.conf` names (resolv.conf(5)); macOS keeps one up to date, too.
pub(crate) fn name_servers() -> Vec<std::net::SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    name_servers_in(&text)
}

fn name_servers_in(text: &str) -> Vec<std::net::SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(std::net::SocketAddr::new(address.parse().ok()?, 53))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::raise_file_limit;

    #[test]
    fn the_limit_of_open_files_is_told_as_it_is_and_never_lowered() {
        let now = raise_file_limit(0).unwrap();
        assert_eq!(raise_file_limit(1), Some(now));
        let raised = raise_file_limit(now + 1).unwrap();
        assert!(raised == now || raised == now + 1, "{raised}");
        assert_eq!(raise_file_limit(0), Some(raised));
    }

    #[test]
    fn name_servers_are_read_and_the_rest_is_passed_over() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53 # local\n nameserver\t::1\nnameserver x\n";
        let servers: Vec<std::net::SocketAddr> =
            vec!["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(super::name_servers_in(text), servers);
    }
}
