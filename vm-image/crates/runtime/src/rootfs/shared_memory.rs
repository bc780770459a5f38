//! The shared memory of another container, for one that shares its IPC namespace.
//!
//! `/dev/shm` of a container is mounted in its own mount namespace and nowhere else, so that is where it has to be fetched from: a copy of a
//! mount can only be made in the namespace that has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::root::Root;
use super::{Make, Tree};
use crate::failure::{Context, Failure};
use crate::spec::Mount;

const SHARED_MEMORY: &str = "/dev/shm";

/// Another container's mount namespace.
#[derive(Debug)]
pub(crate) struct Donor(OwnedFd);

impl Donor {
    /// Opens it by its path, so that it is there and stays there.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        opened.map(Self).context(|| format!("open mount namespace {}", path.display()))
    }

    /// A copy of what is mounted there. The calling process has one thread, and is where it was when this returns; only its working
    /// directory is lost.
    pub(crate) fn copy(&self) -> Result<Tree, Failure> {
        let own = openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let enter = |namespace: &OwnedFd| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        };
        enter(&self.0).context(|| "join mount namespace")?;
        let copied = copy_here();
        enter(&own).context(|| "return to the own mount namespace")?;
        copied.context(|| "the shared memory of the container whose IPC namespace is joined")
    }
}

/// A magic link in the donor's `/dev` could lead to what this process has open.
fn copy_here() -> io::Result<Tree> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(CWD, SHARED_MEMORY, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    Tree::copy(directory.as_fd(), false)
}

/// Puts it in its place, unless the spec has something else for that.
pub(super) fn attach(root: &Root, memory: &Tree, mounts: &[Mount]) -> Result<(), Failure> {
    if mounts.iter().any(|mount| mount.destination == Path::new(SHARED_MEMORY)) {
        return Ok(());
    }
    let place = root.make(Path::new(SHARED_MEMORY), Make::Directory)?;
    memory.attach(place.as_fd()).context(|| "mounting the shared memory")
}
