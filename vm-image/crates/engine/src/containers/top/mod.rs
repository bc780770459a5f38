//! The processes of a container: `docker top`.
//!
//! dockerd runs the host's `ps` with whatever arguments the client gives, and picks the container's lines. The machine has no `ps`, so the
//! common arguments ([`arguments`]) are understood here and the columns ([`columns`]) read from `/proc`, with `ps`' own titles, and its
//! complaints for what is not understood.

mod arguments;
mod columns;
mod process;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::Top;
use caisson_runtime::cgroup::Cgroup;

use self::process::{Host, Process};
use super::spec::cgroup_path;
use super::{Containers, Handle};
use crate::error::ApiError;

impl Containers {
    /// The processes of a container that runs, as `ps` with these arguments shows them. Blocks for as long as reading them takes.
    pub(crate) fn top(&self, container: &Handle, arguments: &str) -> Result<Top, ApiError> {
        let arguments = if arguments.is_empty() { "-ef" } else { arguments };
        refuse_renamed_pid(arguments)?;
        let state = container.state();
        let first = state.expect_running(&container.id)?.pid;
        if state.describe().restarting {
            return Err(ApiError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let asked = arguments::parse(arguments).map_err(|why| ApiError::internal(format!("ps: {why}")))?;
        if !asked.columns.iter().any(|(title, _)| title == "PID") {
            return Err(ApiError::internal("Couldn't find PID field in ps output"));
        }
        let host = Host::read();
        let pids = pids(&cgroup_path(&container.definition()), first);
        let mut lines: Vec<Process> = if asked.threads {
            pids.into_iter().flat_map(Process::threads_of).collect()
        } else {
            pids.into_iter().filter_map(Process::read).collect()
        };
        lines.sort_by(|one, other| {
            let compared = asked.sort.iter().map(|(key, down)| {
                let order = key.compare(&host, one, other);
                if *down { order.reverse() } else { order }
            });
            compared.fold(Ordering::Equal, Ordering::then)
        });
        let row = |line: &Process| asked.columns.iter().map(|(_, column)| column.show(line, &host)).collect();
        let rows = lines.iter().map(row).collect();
        self.ground.tell(&container.definition(), "top", &[]);
        Ok(Top { processes: rows, titles: asked.columns.into_iter().map(|(title, _)| title).collect() })
    }
}

/// As dockerd: a client must not be able to call something else `PID`.
fn refuse_renamed_pid(arguments: &str) -> Result<(), ApiError> {
    for (before, after) in arguments.match_indices('=').map(|(at, _)| arguments.split_at(at)) {
        let name = before.rsplit(char::is_whitespace).next().unwrap_or_default();
        let spaced = name.len() < before.len();
        let title = after[1..].trim_start().split(char::is_whitespace).next().unwrap_or_default();
        if spaced && title.starts_with("PID") && name != "pid" {
            return Err(ApiError::internal(format!("specifying \"{name}={title}\" is not allowed")));
        }
    }
    Ok(())
}

/// Those in the container's cgroup and below it; where there is none, those in the pid namespace of its first process.
fn pids(cgroup: &Path, first: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    if let Some(cgroup) = Cgroup::of(Some(cgroup)) {
        collect(cgroup.directory(), &mut found);
    }
    if found.is_empty() {
        found = in_namespace_of(first);
    }
    found
}

fn collect(directory: &Path, into: &mut BTreeSet<u32>) {
    let listed = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    into.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    let below = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&entry.path(), into);
    }
}

fn in_namespace_of(first: u32) -> BTreeSet<u32> {
    let namespace = |pid: u32| {
        let path = PathBuf::from(format!("/proc/{pid}/ns/pid"));
        std::fs::metadata(path).map(|found| found.ino()).ok()
    };
    let (Some(wanted), Ok(all)) = (namespace(first), std::fs::read_dir("/proc")) else {
        return BTreeSet::from([first]);
    };
    if namespace(std::process::id()) == Some(wanted) {
        // Shared with the host: its own cannot be told from others.
        return BTreeSet::from([first]);
    }
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| namespace(*pid) == Some(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_called_pid() {
        assert!(refuse_renamed_pid("-o pid=PID -o comm").is_ok());
        let refused = refuse_renamed_pid("-o uid=PID").unwrap_err().message;
        assert_eq!(refused, r#"specifying "uid=PID" is not allowed"#);
    }
}
