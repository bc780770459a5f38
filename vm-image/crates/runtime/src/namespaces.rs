//! The namespaces of a spec: which are new, which are joined, which stay the host's.
//!
//! A user namespace is joined only, never made: whoever made the network namespace that belongs to it has made it before.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caisson_sys::clone::namespace;
use caisson_sys::userns;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Context, Failure};
use crate::spec::{Namespace, NamespaceKind};

/// What to do about each kind of namespace; a kind that is in no list stays the host's.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    new: Vec<NamespaceKind>,
    joined: Vec<(NamespaceKind, OwnedFd)>,
    users: Option<OwnedFd>,
}

impl Namespaces {
    /// Opens the ones to join, so that they are there and stay there.
    pub(crate) fn open(listed: &[Namespace]) -> Result<Self, Failure> {
        let mut namespaces = Self::default();
        for entry in listed {
            let kind = entry.kind;
            match entry.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
                None if kind == NamespaceKind::User => {
                    return Err(Failure::invalid("a user namespace can only be joined: it needs a path"));
                }
                None => namespaces.new.push(kind),
                Some(path) => {
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    let opened = openat(CWD, path, flags, Mode::empty())
                        .context(|| format!("open {kind} namespace {}", path.display()))?;
                    if kind == NamespaceKind::User {
                        let users = userns::of(opened.as_fd());
                        let named = || format!("the user namespace of {}", path.display());
                        namespaces.users = Some(users.context(named)?);
                        continue;
                    }
                    namespaces.joined.push((kind, opened));
                }
            }
        }
        if !namespaces.new.contains(&NamespaceKind::Mount) {
            return Err(Failure::invalid("a container needs a mount namespace of its own"));
        }
        Ok(namespaces)
    }

    /// The user namespace that all new ones belong to, if it is not the host's.
    pub(crate) fn users(&self) -> Option<BorrowedFd<'_>> {
        self.users.as_ref().map(AsFd::as_fd)
    }

    /// In the process that will make the container's first: takes on the user namespace, for good.
    pub(crate) fn join_users(&self, users: BorrowedFd<'_>) -> Result<(), Failure> {
        move_into_link_name_space(users, Some(LinkNameSpaceType::User)).context(|| "join user namespace")?;
        self.join_for_children()
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    pub(crate) fn has(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container gets a fresh one.
    pub(crate) fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new.contains(&kind)
    }

    /// The ones that `clone3` makes. The cgroup namespace comes later, see [`caisson_sys::clone::namespace`].
    pub(crate) fn clone_flags(&self) -> u64 {
        self.new.iter().fold(0, |flags, kind| {
            flags
                | match kind {
                    NamespaceKind::Mount => namespace::MOUNT,
                    NamespaceKind::Pid => namespace::PID,
                    NamespaceKind::Network => namespace::NETWORK,
                    NamespaceKind::Ipc => namespace::IPC,
                    NamespaceKind::Uts => namespace::UTS,
                    NamespaceKind::Time => namespace::TIME,
                    NamespaceKind::Cgroup | NamespaceKind::User => 0,
                }
        })
    }

    /// In the parent of the container's process: a pid namespace is joined by the children of who joins it.
    pub(crate) fn join_for_children(&self) -> Result<(), Failure> {
        self.join(|kind| kind == NamespaceKind::Pid)
    }

    /// In the container's process.
    pub(crate) fn join_rest(&self) -> Result<(), Failure> {
        self.join(|kind| kind != NamespaceKind::Pid)
    }

    fn join(&self, which: impl Fn(NamespaceKind) -> bool) -> Result<(), Failure> {
        for (kind, opened) in self.joined.iter().filter(|(kind, _)| which(*kind)) {
            move_into_link_name_space(opened.as_fd(), Some(link_type(*kind)))
                .context(|| format!("join {kind} namespace"))?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn new_of(kinds: &[NamespaceKind]) -> Self {
        Self { new: kinds.to_vec(), ..Self::default() }
    }
}

fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::Network => LinkNameSpaceType::Network,
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::User => LinkNameSpaceType::User,
        NamespaceKind::Time => LinkNameSpaceType::Time,
    }
}
