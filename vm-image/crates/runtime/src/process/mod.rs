//! From a fresh clone of the shim to the container's program, step by step.
//!
//! The order is runc's (`standard_init_linux.go`), and each place in it has a reason: the terminal after the mounts it is in and before the
//! root is entered; kernel parameters before `/proc/sys` becomes read-only; the seccomp filter before the capabilities go when
//! no-new-privileges is off (loading one takes `CAP_SYS_ADMIN` then, so Docker's profile must let the rest of this through), else last; the
//! program looked up as the user who runs it.

mod added;
mod capabilities;
mod identity;
mod person;
mod program;
mod report;
mod settings;
mod terminal;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use caisson_sys::{clone, keyring, loopback};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, setrlimit, setsid, umask,
};

pub(crate) use added::Addition;
pub(crate) use identity::Accounts;
pub(crate) use person::Person;
pub(crate) use program::Own;
pub(crate) use report::{End, Report, channel, listen};
pub use terminal::resize;

use crate::failure::{Context, Failure};
use crate::namespaces::Namespaces;
use crate::rootfs::{self, Descriptors, Donor, Luggage, Prepared, Root, Rootfs, Surroundings, Tree};
use crate::spec::{NamespaceKind, Process, Spec};
use crate::steps::Steps;
use person::Program;

/// Descriptors that become the container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// As they are.
    Streams {
        /// What it reads.
        stdin: OwnedFd,
        /// Where it writes.
        stdout: OwnedFd,
        /// Where it complains.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own.
    Terminal,
}

/// All that a container's process is made from.
pub(crate) struct Birth<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) mount_at: &'a Path,
    pub(crate) shared_memory: Option<&'a Donor>,
    pub(crate) namespaces: &'a Namespaces,
    /// The container's cgroup, if it has one of its own.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether to tell how long each step takes.
    pub(crate) trace: bool,
    /// How many files it may have open unless the spec says otherwise.
    pub(crate) open_files: Rlimit,
    pub(crate) person: Person<'a>,
}

impl Birth<'_> {
    /// Becomes the container's program. Comes back only on failure, which the shim has been told by then.
    pub(crate) fn run(&self, shim: OwnedFd) -> ! {
        let status = match self.prepare(shim.as_fd()) {
            Ok(program) => self.person.execute(&program, shim.as_fd()),
            Err(failure) => {
                report::tell(shim.as_fd(), &failure);
                1
            }
        };
        std::process::exit(status)
    }

    fn prepare(&self, shim: BorrowedFd<'_>) -> Result<Program, Failure> {
        let mut steps = Steps::begin(self.trace);
        begin(shim)?;
        settle_limits(&self.spec.process, self.open_files)?;
        let memory = self.shared_memory.map(Donor::copy).transpose()?;
        let luggage = match self.namespaces.users() {
            None => None,
            Some(users) => Some(self.cross(users, shim)?),
        };
        self.settle_namespaces()?;
        steps.done("settle in the namespaces");
        let root = rootfs::stand(self.rootfs, self.mount_at, self.spec, luggage.as_ref())?;
        if luggage.is_some() {
            // Until here it was the host's root, to whom the way to the container's directory is open.
            person::become_root()?;
        }
        join_keyring(self.id)?;
        steps.done("mount the root");
        let prepared = self.furnish(root, memory.as_ref(), luggage.unwrap_or_default())?;
        steps.done("mount what is in it");
        let own = Descriptors::own().context(|| "open /proc/self/fd")?;
        let accounts = Accounts::read(&prepared.root, &own).context(|| "reading the container's accounts")?;
        let terminal = self.connect(&prepared, shim)?;
        self.name_host()?;
        settings::set_parameters(&prepared.root, &self.spec.linux.sysctl, self.namespaces)?;
        steps.done("find users, name the host");
        prepared.protect(&self.spec.linux)?;
        steps.done("mask paths");
        prepared.enter()?;
        steps.done("enter the root");
        self.person.take_streams(terminal)?;
        person::make_directories(&self.spec.process.cwd)?;
        let program = self.person.become_program(&accounts, shim)?;
        steps.done("become the user");
        if self.trace {
            report::tell_steps(shim, &steps.all());
        }
        Ok(program)
    }

    /// Goes on in the container's user namespace. What only the host's root can have is fetched before; then the process that will be the
    /// container's is made in there, as the shim's child, and this one ends.
    fn cross(&self, users: BorrowedFd<'_>, shim: BorrowedFd<'_>) -> Result<Luggage, Failure> {
        let luggage = rootfs::fetch(self.rootfs, self.mount_at, self.spec, users)?;
        person::give_streams(self.person.stdio, self.spec.linux.root());
        self.namespaces.join_users(users)?;
        if let Some(process) =
            clone::sibling(self.namespaces.clone_flags(), self.cgroup).context(|| "clone3")?
        {
            report::introduce(shim, process).context(|| "telling of the container's process")?;
            std::process::exit(0);
        }
        begin(shim)?;
        Ok(luggage)
    }

    fn settle_namespaces(&self) -> Result<(), Failure> {
        self.namespaces.join_rest()?;
        if self.namespaces.is_new(NamespaceKind::Cgroup) {
            clone::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace")?;
        }
        if self.namespaces.is_new(NamespaceKind::Network) {
            loopback::up().context(|| "bring up the loopback interface")?;
        }
        Ok(())
    }

    fn furnish(&self, root: Root, memory: Option<&Tree>, luggage: Luggage) -> Result<Prepared, Failure> {
        let around = Surroundings { own_cgroup_namespace: self.namespaces.has(NamespaceKind::Cgroup) };
        rootfs::furnish(root, self.spec, around, memory, luggage)
    }

    fn connect(&self, prepared: &Prepared, shim: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
        if !matches!(self.person.stdio, Stdio::Terminal) {
            return Ok(None);
        }
        let (ours, its) = terminal::open(&prepared.root, size(&self.spec.process)).context(|| OPENING)?;
        terminal::show_as_console(&prepared.root, its.as_fd()).context(|| OPENING)?;
        terminal::hand_over(shim, ours.as_fd()).context(|| OPENING)?;
        Ok(Some(its))
    }

    fn name_host(&self) -> Result<(), Failure> {
        if !self.spec.hostname.is_empty() {
            rustix::system::sethostname(self.spec.hostname.as_bytes()).context(|| "sethostname")?;
        }
        if !self.spec.domainname.is_empty() {
            rustix::system::setdomainname(self.spec.domainname.as_bytes()).context(|| "setdomainname")?;
        }
        Ok(())
    }
}

/// What is done first, in every process that is to be a container's.
fn begin(shim: BorrowedFd<'_>) -> Result<(), Failure> {
    die_with(shim)?;
    // Until it is a container's program, nobody in a joined pid namespace may look into it; execve undoes this.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context(|| "prctl(PR_SET_DUMPABLE)")?;
    setsid().context(|| "setsid")?;
    umask(rustix::fs::Mode::empty());
    Ok(())
}

/// The container dies with its shim, by whatever hand.
fn die_with(shim: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context(|| "prctl(PR_SET_PDEATHSIG)")?;
    if report::is_abandoned(shim)? {
        return Err(Failure::other("the shim has died"));
    }
    Ok(())
}

fn join_keyring(id: &str) -> Result<(), Failure> {
    let ring = std::ffi::CString::new(format!("_ses.{id}"));
    let ring = ring.map_err(|_| Failure::other("id with a nul byte"))?;
    match keyring::join_session(&ring) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        joined => joined.context(|| "unable to join session keyring"),
    }
}

/// The shim's own limit of open files is none of the container's.
fn settle_limits(process: &Process, open_files: Rlimit) -> Result<(), Failure> {
    setrlimit(Resource::Nofile, open_files).context(|| "setrlimit")?;
    if let Some(score) = process.oom_score_adj {
        settings::score_out_of_memory(score)?;
    }
    settings::limit(&process.rlimits)
}

const OPENING: &str = "error opening the terminal";

/// How big a process' terminal is at first: lines and columns.
fn size(process: &Process) -> Option<(u16, u16)> {
    let small = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    process.console_size.map(|size| (small(size.height), small(size.width)))
}
