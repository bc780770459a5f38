//! From a fresh clone of the shim to one more process of a container that runs: runc's `setns_init_linux.go`.
//!
//! What it is to be is read here, in the new process, so that the shim, which waits for years, never holds it.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Rlimit;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::de::DeserializeOwned;

use super::{
    OPENING, Own, Person, Stdio, begin, join_keyring, person, report, settle_limits, size, terminal,
};
use crate::exec::AddedProcess;
use crate::failure::{Context, Failure};
use crate::process::identity::Accounts;
use crate::rootfs::{Descriptors, Root};
use crate::seccomp;
use crate::spec::{ConsoleSize, NamespaceKind, Spec};

/// All that an added process is made from.
pub(crate) struct Addition<'a> {
    /// The container's id.
    pub(crate) id: &'a str,
    /// The container's spec, as JSON.
    pub(crate) spec: &'a Path,
    /// The [`AddedProcess`], as JSON.
    pub(crate) process: &'a Path,
    /// The container's first process.
    pub(crate) first: BorrowedFd<'a>,
    pub(crate) stdio: &'a Stdio,
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) may_make_devices: bool,
    pub(crate) open_files: Rlimit,
}

impl Addition<'_> {
    /// Becomes the program. Comes back only on failure, which the shim has been told by then.
    pub(crate) fn run(&self, shim: OwnedFd) -> ! {
        let status = self.become_it(shim.as_fd()).unwrap_or_else(|failure| {
            report::tell(shim.as_fd(), &failure);
            1
        });
        std::process::exit(status)
    }

    fn become_it(&self, shim: BorrowedFd<'_>) -> Result<i32, Failure> {
        begin(shim)?;
        let spec: Spec = read(self.spec)?;
        let AddedProcess { mut process, user, group_add, filter } = read(self.process)?;
        if let Some((rows, columns)) = self.size {
            process.console_size = Some(ConsoleSize { height: rows.into(), width: columns.into() });
        }
        let filter = filter.as_ref().or(spec.linux.seccomp.as_ref()).map(seccomp::compile).transpose();
        let filter = filter.map_err(|error| Failure::invalid(error.to_string()))?;
        settle_limits(&process, self.open_files)?;
        // From here on `/proc` is the container's.
        let (descriptors, own) = (Descriptors::own().context(|| "open /proc/self/fd")?, Own::program()?);
        let has_users = spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User);
        if has_users {
            person::give_streams(self.stdio, spec.linux.root());
        }
        self.join(&spec)?;
        if has_users {
            person::become_root()?;
        }
        join_keyring(self.id)?;
        let root = root()?;
        let accounts = Accounts::read(&root, &descriptors).context(|| "reading the container's accounts")?;
        let person = Person {
            process: &process,
            user: user.as_deref(),
            group_add: &group_add,
            stdio: self.stdio,
            filter: filter.as_ref(),
            may_make_devices: self.may_make_devices,
            own,
        };
        let terminal = match self.stdio {
            Stdio::Streams { .. } => None,
            Stdio::Terminal => {
                let (ours, its) = terminal::open(&root, size(&process)).context(|| OPENING)?;
                terminal::hand_over(shim, ours.as_fd()).context(|| OPENING)?;
                Some(its)
            }
        };
        person.take_streams(terminal)?;
        let program = person.become_program(&accounts, shim)?;
        Ok(person.execute(&program, shim))
    }

    /// Enters every namespace of the container's that is not the host's; it was born into that of the process ids.
    fn join(&self, spec: &Spec) -> Result<(), Failure> {
        let listed = spec.linux.namespaces.iter().filter_map(|namespace| match namespace.kind {
            NamespaceKind::Mount => Some(ThreadNameSpaceType::MOUNT),
            NamespaceKind::Network => Some(ThreadNameSpaceType::NETWORK),
            NamespaceKind::Ipc => Some(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
            NamespaceKind::Uts => Some(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
            NamespaceKind::User => Some(ThreadNameSpaceType::USER),
            NamespaceKind::Cgroup => Some(ThreadNameSpaceType::CONTROL_GROUP),
            NamespaceKind::Time => Some(ThreadNameSpaceType::TIME),
            NamespaceKind::Pid => None,
        });
        let all = listed.fold(ThreadNameSpaceType::empty(), |all, one| all | one);
        move_into_thread_name_spaces(self.first, all).context(|| "join the container's namespaces")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read(path).context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| Failure::other(format!("{}: {error}", path.display())))
}

/// The root directory, which is the container's by now.
fn root() -> Result<Root, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, "/", flags, Mode::empty()).context(|| "open /")?;
    Ok(Root::new(directory, Path::new("/")))
}
