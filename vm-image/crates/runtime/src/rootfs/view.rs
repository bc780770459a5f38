//! A container's file system, as the engine looks at it: to copy from it and into it, to export it, to fill volumes.
//!
//! Each view is a thread that goes to a mount namespace, the container's own or a new one, and ends with the work: a
//! worker of an async runtime is never left in there, and what was mounted for the view is gone with the thread, whatever
//! ends it. What the work gets is a descriptor of the root; it resolves every name with that as the root (`openat2(2)`,
//! `RESOLVE_IN_ROOT`), and uses no path of its own, least of all `/proc`, which may be the container's; see [`read`].

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use caisson_sys::clone::unshare;
use caisson_sys::userns;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::mounts::{Sources, Surroundings, mount_all};
use super::overlay::mount_read_only;
use super::text::Descriptors;
use super::tree::Tree;
use super::{Rootfs, mount_root};
use crate::failure::{Context, Failure};
use crate::spec::Mount;

/// The work may walk deep trees.
const STACK_BYTES: usize = 4 << 20;

thread_local! {
    /// What a view's thread has brought along from where `/proc` is the host's.
    static DESCRIPTORS: OnceCell<Descriptors> = const { OnceCell::new() };
}

/// Something to be mounted in the view of a container that does not run.
#[derive(Debug, Clone)]
pub struct Bind {
    /// `bind`, or `overlay` of layers that its options name.
    pub kind: String,
    /// A directory or file of this system.
    pub source: PathBuf,
    /// Where, in the container.
    pub destination: PathBuf,
    /// How, as a mount's options in an OCI spec.
    pub options: Vec<String>,
}

/// Shows layers (at least two, topmost first) as one directory, which cannot be written.
///
/// `place` is an empty directory; nothing is seen there from outside.
///
/// # Errors
/// What makes the mount fail.
pub fn layers<T: Send>(
    layers: &[PathBuf],
    place: &Path,
    work: impl FnOnce(OwnedFd) -> T + Send,
) -> Result<T, Failure> {
    let enter = || {
        leave_host()?;
        let root = mount_read_only(layers, place).context(|| "error mounting the layers")?;
        Ok(make_root(root)?)
    };
    apart(enter, work)
}

/// Shows a container that does not run, with what would be mounted in it, to be read and written. Nobody else may mount its
/// layers meanwhile.
///
/// # Errors
/// What makes a mount fail.
pub fn stopped<T: Send>(
    rootfs: &Rootfs,
    place: &Path,
    binds: &[Bind],
    work: impl FnOnce(OwnedFd) -> T + Send,
) -> Result<T, Failure> {
    let enter = || {
        leave_host()?;
        let root = mount_root(rootfs, place, None).context(|| "error mounting the root filesystem")?;
        let mounts: Vec<Mount> = binds.iter().map(Mount::bind).collect();
        let around = Surroundings { own_cgroup_namespace: false };
        mount_all(&root, &mounts, around, Sources::default())?;
        Ok(make_root(root.directory().try_clone_to_owned()?)?)
    };
    apart(enter, work)
}

/// Shows a container that runs, by its mount namespace, with all that is mounted in it. What is made there is made as `root`, its root as
/// the host numbers it: of a container in a user namespace there is no other host's user whom its files could be.
///
/// # Errors
/// What makes entering fail.
pub fn running<T: Send>(
    namespace: BorrowedFd<'_>,
    root: (u32, u32),
    work: impl FnOnce(OwnedFd) -> T + Send,
) -> Result<T, Failure> {
    let enter = || {
        let directory = enter(namespace)?;
        if root != (0, 0) {
            userns::make_files_as(root.0, root.1)?;
        }
        Ok(directory)
    };
    apart(enter, work)
}

/// Shows the root file system of a container that runs, without what is mounted in it.
///
/// # Errors
/// What makes entering fail.
pub fn running_bare<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce(OwnedFd) -> T + Send,
) -> Result<T, Failure> {
    let bare = || {
        let root = enter(namespace)?;
        Ok(Tree::copy(root.as_fd(), false)?.into_top())
    };
    apart(bare, work)
}

/// The text of a file that a view's work holds (`O_PATH`): at most 16 MiB of it, and nothing if it is no regular file.
///
/// # Errors
/// If it cannot be opened or read.
pub fn read(held: BorrowedFd<'_>) -> io::Result<String> {
    DESCRIPTORS.with(|brought| match brought.get() {
        Some(own) => own.read(held),
        // Where there is no view, `/proc` is the host's.
        None => Descriptors::own()?.read(held),
    })
}

fn apart<T: Send>(
    enter: impl FnOnce() -> Result<OwnedFd, Failure> + Send,
    work: impl FnOnce(OwnedFd) -> T + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("view".into()).stack_size(STACK_BYTES);
        let enter = || {
            let own = Descriptors::own()?;
            DESCRIPTORS.with(|brought| {
                brought.get_or_init(|| own);
            });
            enter()
        };
        let thread = thread.spawn_scoped(scope, || enter().map(work))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Goes to a mount namespace of the thread's own, from which nothing travels to the host's.
fn leave_host() -> Result<(), Failure> {
    unshare(libc::CLONE_NEWNS).context(|| "leaving the host's mount namespace")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context(|| "making the view private")
}

/// Makes it the thread's root directory too, so that even a link that is followed by mistake ends in it.
fn make_root(root: OwnedFd) -> io::Result<OwnedFd> {
    fchdir(&root)?;
    chroot(".")?;
    Ok(root)
}

fn enter(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    // The thread must not share its root and working directory with the others, which `unshare` sees to.
    unshare(libc::CLONE_NEWNS).context(|| "leaving the host's mount namespace")?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
        .context(|| "entering the container's mount namespace")?;
    Ok(openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
