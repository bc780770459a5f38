//! What a container shares with another one: `--pid container:NAME`, `--ipc container:NAME`, `--network container:NAME`.
//!
//! A container keeps the other's id (`container:ID`), so that a change of its name makes no difference. Who that is and whether it
//! runs is asked at each start; what is joined then are the namespaces of its first process.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::HostConfig;

use super::record::Directory;
use super::task::Task;
use super::validate::shared_with;
use super::{Containers, Handle, Register};
use crate::error::{ApiError, ErrorKind};

/// Processes whose namespaces are joined, and whose files are shared.
#[derive(Debug, Default, Clone)]
pub(super) struct Shared {
    pid: Option<u32>,
    ipc: Option<u32>,
    /// The directory of the container whose network this one lives in.
    network: Option<Directory>,
}

/// The network namespace of a process; `None` if that is this system's own.
pub(super) fn network_namespace(pid: u32) -> io::Result<Option<PathBuf>> {
    let path = network_namespace_path(pid);
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    Ok((identity(&path)? != identity("/proc/self/ns/net".as_ref())?).then_some(path))
}

/// Where a process has its network namespace, whichever it is.
pub(super) fn network_namespace_path(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

impl Shared {
    /// One of them, whose user namespace is to be the container's too: who shares one must share the other.
    pub(super) fn process(&self) -> Option<u32> {
        self.pid.or(self.ipc)
    }

    /// The pid namespace to join.
    pub(super) fn pid_namespace(&self) -> Option<PathBuf> {
        self.pid.map(|pid| format!("/proc/{pid}/ns/pid").into())
    }

    /// The IPC namespace to join.
    pub(super) fn ipc_namespace(&self) -> Option<PathBuf> {
        self.ipc.map(|pid| format!("/proc/{pid}/ns/ipc").into())
    }

    /// The container whose `/etc/hosts` and the like are this one's, too.
    pub(super) fn files(&self) -> Option<&Directory> {
        self.network.as_ref()
    }

    /// The mount namespace that has the shared memory that goes with the IPC namespace.
    pub(super) fn shared_memory(&self) -> Option<PathBuf> {
        self.ipc.map(|pid| format!("/proc/{pid}/ns/mnt").into())
    }
}

impl Containers {
    /// Puts ids in the place of names in a new container's modes.
    ///
    /// # Errors
    /// dockerd's for a container that is not there: it would take its labels.
    pub(super) fn resolve_shared(&self, host: &mut HostConfig) -> Result<(), ApiError> {
        for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
            let Some(name) = shared_with(mode).filter(|name| !name.is_empty()) else { continue };
            match self.find(name) {
                Ok(handle) => *mode = format!("container:{}", handle.definition().id),
                // It is found missing at the start, as under dockerd.
                Err(_) if host.privileged => {}
                Err(error) => return Err(ApiError::invalid(error.message)),
            }
        }
        Ok(())
    }
}

impl Register {
    /// The container of this id.
    pub(super) fn get(&self, id: &str) -> Result<Handle, ApiError> {
        let found = self.entries().handles.get(id).cloned();
        found.ok_or_else(|| ApiError::not_found(format!("No such container: {id}")))
    }
}

impl Task {
    /// The processes whose namespaces this container joins, which must run.
    pub(super) fn find_shared(&self, host: &HostConfig) -> Result<Shared, ApiError> {
        let ipc = shared_with(&host.ipc_mode).map(|id| self.ipc_donor(id)).transpose();
        let ipc = ipc.map_err(|error| error.within("failed to join IPC namespace"))?;
        let pid = shared_with(&host.pid_mode).map(|id| self.donor(id).map(|(_, pid)| pid)).transpose();
        // What dockerd finds while it composes the spec is its own error, whatever it is.
        let pid =
            pid.map_err(|error| ApiError::internal(error.within("failed to join PID namespace").message))?;
        let network = shared_with(&host.network_mode).map(|name| self.register.find(name)).transpose()?;
        let network = network.map(|other| self.ground.directory(&other.id));
        Ok(Shared { pid, ipc, network })
    }

    fn donor(&self, id: &str) -> Result<(Handle, u32), ApiError> {
        let handle =
            self.register.get(id).map_err(|e| ApiError::new(ErrorKind::InvalidParameter, e.message))?;
        let running = handle.state().running().map(|running| running.pid);
        let pid = running.ok_or_else(|| ApiError::conflict(format!("container {id} is not running")))?;
        Ok((handle, pid))
    }

    fn ipc_donor(&self, id: &str) -> Result<u32, ApiError> {
        let (handle, pid) = self.donor(id)?;
        let mode = handle.definition().host_config.ipc_mode.clone();
        if matches!(mode.as_str(), "private" | "none") {
            return Err(ApiError::invalid(format!(
                "container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )));
        }
        Ok(pid)
    }
}

#[cfg(test)]
mod tests {
    use caisson_sys::netns;

    use super::*;

    #[test]
    fn only_this_system_s_own_network_is_none() {
        assert_eq!(network_namespace(std::process::id()).unwrap(), None);
        assert!(network_namespace(0).is_err(), "what is not known is not this system's");
        netns::isolated(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            assert_eq!(network_namespace(thread).unwrap(), Some(network_namespace_path(thread)));
        });
    }
}
