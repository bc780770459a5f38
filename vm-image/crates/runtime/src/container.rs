//! Making a container, as its shim sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use caisson_sys::clone::{Cloned, clone, namespace};
use rustix::process::{Pid, PidfdFlags, Rlimit, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::cgroup::Cgroup;
use crate::failure::{Context, Failure};
use crate::namespaces::Namespaces;
use crate::process::{self, Birth, End, Own, Person, Stdio};
use crate::rootfs::{Donor, Rootfs};
use crate::seccomp;
use crate::spec::{Mount, NamespaceKind, Spec};
use crate::steps::{Step, Steps};

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
    /// A mount namespace whose `/dev/shm` becomes the container's, unless the spec mounts something there.
    pub shared_memory: Option<&'a Path>,
    /// Whether to note how long each step takes.
    pub trace: bool,
    /// How many files its processes may have open unless the spec says otherwise, whatever the limit of the calling process.
    pub open_files: Rlimit,
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
    /// How long each step took, if that was to be noted.
    pub steps: Vec<Step>,
    /// Whether something keeps its processes from using the devices that they make.
    pub(crate) may_make_devices: bool,
    /// How many files its processes may have open.
    pub(crate) open_files: Rlimit,
}

/// A process that has become the container's program.
struct Born {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    steps: Vec<Step>,
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
        let mut steps = Steps::begin(self.trace);
        self.spec.refuse_unsupported()?;
        let (linux, own) = (&self.spec.linux, Own::program()?);
        let namespaces = Namespaces::open(&linux.namespaces)?;
        let donor = self.shared_memory.map(Donor::open).transpose()?;
        let filter = linux.seccomp.as_ref().map(seccomp::compile).transpose();
        let filter = filter.map_err(|error| Failure::invalid(error.to_string()))?;
        steps.done("compile the filter");
        let cgroup = Cgroup::create(linux.cgroups_path.as_deref(), &linux.resources)?;
        if let Some(cgroup) =
            cgroup.as_ref().filter(|_| namespaces.users().is_some() && self.arranges_cgroups())
        {
            let (uid, gid) = linux.root();
            cgroup.give(uid, gid)?;
        }
        let devices_confined = Cgroup::confine(cgroup.as_ref(), &linux.resources.devices)?;
        steps.done("make the cgroup");
        // In a user namespace nobody can.
        let may_make_devices = devices_confined || namespaces.users().is_some();
        let directory = cgroup.as_ref().map(Cgroup::open).transpose().context(|| "opening the cgroup")?;
        let birth = Birth {
            id: self.id,
            spec: self.spec,
            rootfs: self.rootfs,
            mount_at: self.mount_at,
            shared_memory: donor.as_ref(),
            namespaces: &namespaces,
            cgroup: directory.as_ref().map(AsFd::as_fd),
            trace: self.trace,
            open_files: self.open_files,
            person: Person {
                process: &self.spec.process,
                user: self.user,
                group_add: self.group_add,
                stdio: &stdio,
                filter: filter.as_ref(),
                may_make_devices,
                own,
            },
        };
        match bear(&birth, &mut steps) {
            Ok(born) => Ok(Running {
                pid: born.pid,
                pidfd: born.pidfd,
                cgroup,
                terminal: born.terminal,
                steps: steps.all().into_iter().chain(born.steps).collect(),
                owns_its_processes: namespaces.is_new(NamespaceKind::Pid),
                may_make_devices,
                open_files: self.open_files,
            }),
            Err(failure) => {
                let killed = cgroup.as_ref().map_or(0, Cgroup::oom_kills);
                // What matters to the user is why it failed; a cgroup that stays is removed when the name is used again.
                let _ = cgroup.map(|cgroup| cgroup.remove());
                Err(unless_out_of_memory(failure, killed))
            }
        }
    }
}

impl Container<'_> {
    /// Whether it may write to its cgroup.
    fn arranges_cgroups(&self) -> bool {
        let is_cgroup = |mount: &&Mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2");
        self.spec
            .mounts
            .iter()
            .filter(is_cgroup)
            .any(|mount| !mount.options.iter().any(|option| option == "ro"))
    }
}

fn bear(birth: &Birth<'_>, steps: &mut Steps) -> Result<Born, Failure> {
    let (ours, its) = process::channel().context(|| "socketpair")?;
    let (namespaces, cgroup) = match birth.namespaces.users() {
        None => {
            birth.namespaces.join_for_children()?;
            (birth.namespaces.clone_flags(), birth.cgroup)
        }
        // This one is a usher: it makes the mounts that take the host's rights, and then the container's process. It is none of those to
        // which the container is limited.
        Some(_) => (namespace::MOUNT, None),
    };
    match clone(namespaces, cgroup).context(|| "clone3")? {
        Cloned::Child => {
            drop(ours);
            birth.run(its)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(its);
            steps.done("clone");
            let outcome = process::listen(&ours).context(|| "waiting for the container's process")?;
            let (pid, pidfd) = match outcome.introduced {
                None => (pid, pidfd),
                Some(pid) => {
                    reap(&pidfd);
                    (pid, pidfd_open(pid, PidfdFlags::empty()).context(|| "pidfd_open")?)
                }
            };
            expect_program(outcome.end, &pidfd)?;
            Ok(Born { pid, pidfd, terminal: outcome.terminal, steps: outcome.steps })
        }
    }
}

/// A process that does not run its program is reaped: it has ended, or is about to.
pub(crate) fn expect_program(end: End, process: &OwnedFd) -> Result<(), Failure> {
    match end {
        End::Runs => Ok(()),
        End::Failed(failure) => {
            reap(process);
            Err(failure)
        }
        End::Untold => {
            let how = reap(process);
            Err(Failure::other(format!("container init exited prematurely: {how}")))
        }
    }
}

/// Where the kernel has killed for want of memory, that is why, whatever else was told: runc's rule, in its words.
fn unless_out_of_memory(failure: Failure, oom_kills: u64) -> Failure {
    if oom_kills == 0 {
        return failure;
    }
    Failure::other(
        "runc create failed: unable to start container process: container init was OOM-killed (memory limit too low?)",
    )
}

/// Waits for the end, and says what it was.
fn reap(pidfd: &OwnedFd) -> String {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return format!("waitid: {error}"),
            Ok(status) => {
                let signal = status.as_ref().and_then(|status| status.terminating_signal());
                let code = status.as_ref().and_then(|status| status.exit_status());
                return match (signal, code) {
                    (Some(signal), _) => format!("killed by signal {signal}"),
                    (None, code) => format!("exit status {}", code.unwrap_or(-1)),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_the_reason_whatever_was_told() {
        let told = Failure::other("exit status 1");
        assert_eq!(unless_out_of_memory(told.clone(), 0), told);
        let reason = unless_out_of_memory(told, 1).message;
        assert!(reason.ends_with(": container init was OOM-killed (memory limit too low?)"), "{reason}");
    }
}
