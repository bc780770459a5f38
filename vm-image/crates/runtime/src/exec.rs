//! Adding a process to a container that runs, as its shim sees it: `docker exec`.
//!
//! The new process is a clone of the shim, born into the container's pid namespace and cgroup; it enters the other namespaces itself, by the
//! container's first process and all at once (`setns` with a pidfd). The shim waits for nothing: what the process says of itself comes when
//! [`Starting::descriptor`] is readable, which may be never for a container that is frozen.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use caisson_sys::clone::{Cloned, clone};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use rustix::thread::{move_into_link_name_space, move_into_thread_name_spaces};
use serde::Deserialize;

use crate::cgroup::{Cgroup, mount_point};
use crate::container::{Running, expect_program};
use crate::failure::{Context, Failure};
use crate::process::{Accounts, Addition, End, Report, Stdio, channel};
use crate::rootfs::{Descriptors, Root};
use crate::spec::{Process, Seccomp};

/// What an added process is.
#[derive(Debug, Deserialize)]
pub struct AddedProcess {
    /// As in a spec.
    pub process: Process,
    /// A user by name or number, looked up in the container, in place of the one in `process`.
    pub user: Option<String>,
    /// More groups, by name or number, looked up in the container.
    #[serde(default)]
    pub group_add: Vec<String>,
    /// In place of the container's filter.
    #[serde(default)]
    pub filter: Option<Seccomp>,
}

/// A process that is to be added.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The file of the container's spec.
    pub spec: &'a Path,
    /// The file of the [`AddedProcess`].
    pub process: &'a Path,
    /// Lines and columns of its terminal, in place of what the file says.
    pub size: Option<(u16, u16)>,
}

/// A process on its way to its program.
#[derive(Debug)]
pub struct Starting {
    /// The process, as the shim sees it.
    pub pid: Pid,
    /// The same, as a descriptor that becomes readable when it has ended.
    pub pidfd: OwnedFd,
    channel: OwnedFd,
    report: Report,
    /// Where it is limited, if anywhere.
    cgroup: Option<Cgroup>,
}

/// A process whose program runs.
#[derive(Debug)]
pub struct Added {
    /// The controlling side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Exec<'_> {
    /// Begins the process. The calling process must have one thread.
    ///
    /// # Errors
    /// If no process could be made; what else may be wrong is told by [`Starting::listen`].
    pub fn start(&self, container: &Running, stdio: &Stdio) -> Result<Starting, Failure> {
        let (ours, its) = channel().context(|| "socketpair")?;
        let addition = Addition {
            id: self.id,
            spec: self.spec,
            process: self.process,
            first: container.pidfd.as_fd(),
            stdio,
            size: self.size,
            may_make_devices: container.may_make_devices,
            open_files: container.open_files,
        };
        match born_inside(container)? {
            Cloned::Child => {
                drop(ours);
                addition.run(its)
            }
            Cloned::Parent { pid, pidfd } => {
                let cgroup = container.cgroup.clone();
                Ok(Starting { pid, pidfd, channel: ours, report: Report::default(), cgroup })
            }
        }
    }
}

impl Starting {
    /// Readable when there is something to [`listen`](Self::listen) to.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Takes what the process has said. `None` as long as it is on its way.
    ///
    /// # Errors
    /// Why its program does not run. The process is reaped then.
    pub fn listen(&mut self) -> Result<Option<Added>, Failure> {
        let told = self.report.listen(&self.channel).context(|| "waiting for the process")?;
        let Some(outcome) = told else { return Ok(None) };
        let untold = outcome.end == End::Untold;
        match expect_program(outcome.end, &self.pidfd) {
            Ok(()) => Ok(Some(Added { terminal: outcome.terminal })),
            // runc's words: that the kernel has killed here does not say whom.
            Err(mut failure)
                if untold && self.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills() > 0) =>
            {
                failure.message.push_str(" (possibly OOM-killed)");
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Clones this process into the container's pid namespace and cgroup. Later children are again born where this process lives.
fn born_inside(container: &Running) -> Result<Cloned, Failure> {
    let own = open("/proc/self/ns/pid".as_ref(), OFlags::RDONLY).context(|| "open the pid namespace")?;
    move_into_thread_name_spaces(container.pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .context(|| "join the container's pid namespace")?;
    let born = born_in_cgroup(container);
    if !matches!(born, Ok(Cloned::Child)) {
        let home = Some(LinkNameSpaceType::ProcessID);
        move_into_link_name_space(own.as_fd(), home).context(|| "leave the container's pid namespace")?;
    }
    born.context(|| "clone3")
}

fn born_in_cgroup(container: &Running) -> io::Result<Cloned> {
    let Some(cgroup) = &container.cgroup else { return clone(0, None) };
    let directory = cgroup.open()?;
    match clone(0, Some(directory.as_fd())) {
        // The container's own init has made cgroups below it, and only leaves have processes: join that init, as runc does.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let below = cgroup_of(container.pid)?;
            clone(0, Some(below.as_fd()))
        }
        born => born,
    }
}

fn cgroup_of(pid: Pid) -> io::Result<OwnedFd> {
    let listed = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    let inside = listed.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(mounted), Some(inside)) = (mount_point(), inside) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    open(&mounted.join(inside), OFlags::RDONLY | OFlags::DIRECTORY)
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Finds a user by name or number, as an added process would. `root` is the container's root directory, for instance `/proc/PID/root`.
///
/// # Errors
/// In the words of `moby/sys/user`.
pub fn check_user(root: &Path, user: &str) -> Result<(), Failure> {
    let directory = open(root, OFlags::PATH | OFlags::DIRECTORY).context(|| "open the container's root")?;
    let own = Descriptors::own().context(|| "open /proc/self/fd")?;
    Accounts::read(&Root::new(directory, root), &own)?.identify(user).map(|_| ())
}
