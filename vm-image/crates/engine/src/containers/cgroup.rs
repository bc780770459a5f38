//! Where a container's cgroup is, and what a killed shim leaves of it.
//!
//! A shim removes the cgroup that it made. One that was killed cannot, and its container dies with it; here the rest is done:
//! whatever still runs in the cgroup is killed, and the cgroup removed.

use std::path::{Path, PathBuf};

use caisson_runtime::cgroup::Cgroup;
use tracing::warn;

use super::record::Definition;
use super::spec::cgroup_path;

/// Where a container's cgroup is while it runs; `None` on a system that has no version 2.
pub(super) fn directory(definition: &Definition) -> Option<PathBuf> {
    Cgroup::of(Some(&cgroup_path(definition))).map(|cgroup| cgroup.directory().to_owned())
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
    let Some(cgroup) = Cgroup::of(Some(&cgroup_path(definition))) else { return };
    let directory = cgroup.directory().to_owned();
    if !directory.exists() {
        return;
    }
    let removed =
        tokio::task::spawn_blocking(move || cgroup.remove()).await.unwrap_or_else(|e| Err(e.into()));
    if let Err(error) = removed {
        warn!(cgroup = %directory.display(), %error, "could not remove the cgroup of a killed shim");
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::History;
    use super::super::testing::{Home, definition, empty_cgroup, running};
    use super::*;

    #[tokio::test]
    async fn what_a_killed_shim_left_goes_though_it_said_how_its_container_ended() {
        let home = Home::new().await;
        let definition = definition(&format!("left{}", std::process::id()));
        let Some(cgroup) = empty_cgroup(&definition) else { return };
        home.lay_out(&definition);
        let directory = home.containers.directory(&definition.id);
        std::fs::write(directory.exit_record(), r#"{"code":3,"finished_at":1,"oom_killed":false}"#).unwrap();
        let handle = home.containers.adopt(definition, running(1), History::default());
        handle.ended_after(0).await;
        assert_eq!(handle.state().describe().exit_code, 3);
        assert!(!cgroup.directory().exists());
    }

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
