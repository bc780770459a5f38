//! Where a container's cgroup is, and what a killed shim leaves of it.
//!
//! A shim removes the cgroup that it made. One that was killed cannot, and its container dies with it; here the rest is done:
//! whatever still runs in the cgroup is killed, and the cgroup removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::record::Definition;
use super::spec::cgroup_path;

const ROOT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to bury what was killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);
/// The kernel tells of an empty cgroup only to who has opened its `cgroup.events`; asking again is simpler, and rare.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Where a container's cgroup is while it runs.
pub(super) fn directory(definition: &Definition) -> PathBuf {
    let path = cgroup_path(definition);
    Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(&path))
}

/// The first process of a container whose shim does not tell: the oldest in its cgroup, and in those that it has made in there.
pub(super) fn first_process(directory: &Path) -> Option<u32> {
    let mut oldest = None;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let processes = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        let processes = processes.lines().filter_map(|line| line.parse().ok());
        let aged = processes.filter_map(|pid: u32| Some((began(pid)?, pid)));
        oldest = oldest.into_iter().chain(aged).min();
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    oldest.map(|(_, pid)| pid)
}

/// When a process began, in ticks: field 22 of proc_pid_stat(5).
fn began(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name, in which there may be anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Removes a container's cgroup, if there is one.
pub(super) async fn remove(definition: &Definition) {
    let directory = directory(definition);
    if !directory.exists() {
        return;
    }
    if tokio::time::timeout(EMPTY_WITHIN, bury(&directory)).await.is_err() {
        warn!(cgroup = %directory.display(), "could not remove the cgroup of a killed shim");
    }
}

async fn bury(directory: &Path) {
    loop {
        // Fails on kernels before 5.14: there the shim's own end must do.
        let _ = std::fs::write(directory.join("cgroup.kill"), "1");
        match remove_tree(directory) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// Removes a tree of cgroups: their files go with them.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_the_oldest_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(first_process(root.path()), None);
        // Process 1 is older than this one, whose number may be anything.
        std::fs::write(root.path().join("cgroup.procs"), std::process::id().to_string()).unwrap();
        assert_eq!(first_process(root.path()), Some(std::process::id()));
        let below = root.path().join("init.scope");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), "1\n").unwrap();
        assert_eq!(first_process(root.path()), Some(1));
    }
}
