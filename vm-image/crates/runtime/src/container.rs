//! Making a container, as its shim sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use caisson_sys::clone::{Cloned, clone};
use rustix::process::Pid;

use crate::cgroup::Cgroup;
use crate::failure::{Context, Failure};
use crate::namespaces::Namespaces;
use crate::process::{self, Birth, Stdio};
use crate::rootfs::Rootfs;
use crate::seccomp;
use crate::spec::{NamespaceKind, Spec};

/// A container that is to be made.
#[derive(Debug)]
pub struct Container<'a> {
    /// Its full id.
    pub id: &'a str,
    /// What it is.
    pub spec: &'a Spec,
    /// What becomes its `/`; `spec.root.path` is not used.
    pub rootfs: &'a Rootfs,
    /// A directory (made if missing) on which its root is mounted before it is entered, in its own mount namespace.
    pub mount_at: &'a Path,
    /// A user by name or number, looked up in the container, in place of the one in the spec.
    pub user: Option<&'a str>,
    /// More groups, by name or number, looked up in the container.
    pub group_add: &'a [String],
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub pid: Pid,
    /// The same, as a descriptor that becomes readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its cgroup, if it has one of its own. To be removed by whoever reaps the process.
    pub cgroup: Option<Cgroup>,
    /// The controlling side of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Whether its first process is the first of a pid namespace, so that all others end with it.
    pub owns_its_processes: bool,
}

impl Container<'_> {
    /// Makes the container and runs its program. Returns when the program is executing, or has been found not to be executable; then
    /// nothing of it is left.
    ///
    /// The calling process must have one thread, and is the container's parent: the container is killed when it ends.
    ///
    /// # Errors
    /// With the words that the user is to see.
    pub fn start(&self, stdio: Stdio) -> Result<Running, Failure> {
        self.spec.refuse_unsupported()?;
        let linux = &self.spec.linux;
        let namespaces = Namespaces::open(&linux.namespaces)?;
        let filter = linux.seccomp.as_ref().map(seccomp::compile).transpose();
        let filter = filter.map_err(|error| Failure::invalid(error.to_string()))?;
        let cgroup = Cgroup::create(linux.cgroups_path.as_deref(), &linux.resources)?;
        let devices_confined = Cgroup::confine(cgroup.as_ref(), &linux.resources.devices)?;
        let birth = Birth {
            may_make_devices: devices_confined,
            id: self.id,
            spec: self.spec,
            rootfs: self.rootfs,
            mount_at: self.mount_at,
            user: self.user,
            group_add: self.group_add,
            stdio: &stdio,
            namespaces: &namespaces,
            filter: filter.as_ref(),
        };
        match bear(&birth, cgroup.as_ref()) {
            Ok((pid, pidfd, terminal)) => Ok(Running {
                pid,
                pidfd,
                cgroup,
                terminal,
                owns_its_processes: namespaces.is_new(NamespaceKind::Pid),
            }),
            Err(failure) => {
                // What matters to the user is why it failed; a cgroup that stays is removed when the name is used again.
                let _ = cgroup.map(|cgroup| cgroup.remove());
                Err(failure)
            }
        }
    }
}

fn bear(birth: &Birth<'_>, cgroup: Option<&Cgroup>) -> Result<(Pid, OwnedFd, Option<OwnedFd>), Failure> {
    let (ours, its) = process::channel().context(|| "socketpair")?;
    birth.namespaces.join_for_children()?;
    let directory = cgroup.map(Cgroup::open).transpose().context(|| "opening the cgroup")?;
    let cloned = clone(birth.namespaces.clone_flags(), directory.as_ref().map(AsFd::as_fd));
    match cloned.context(|| "clone3")? {
        Cloned::Child => {
            drop(ours);
            birth.run(its)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(its);
            let outcome = process::listen(&ours).context(|| "waiting for the container's process")?;
            match outcome.failure {
                None => Ok((pid, pidfd, outcome.terminal)),
                Some(failure) => {
                    reap(&pidfd);
                    Err(failure)
                }
            }
        }
    }
}

/// The process has said that it fails, and exits.
fn reap(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}
