//! What a container's process sees as its file system.
//!
//! All of it happens in the container's own mount namespace, before its program runs: nothing is ever mounted in the engine's, so nothing
//! can be left over there, whatever is killed when.

mod devices;
mod mask;
mod mounts;
mod options;
mod overlay;
mod root;
mod shared_memory;
mod text;
mod tree;
pub mod view;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use caisson_sys::mount_attr::{self, Change, Propagation};
use caisson_sys::userns;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, mkdirat, openat, statx};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{fchdir, pivot_root};
use serde::{Deserialize, Serialize};

use devices::Nodes;
pub(crate) use devices::open_ptmx;
pub(crate) use mask::null_device;
use mounts::Sources;
pub(crate) use mounts::{Surroundings, Unfinished};
use overlay::Overlay;
pub(crate) use root::{Make, Root};
pub(crate) use shared_memory::Donor;
pub(crate) use text::Descriptors;
pub(crate) use tree::Tree;

use crate::failure::{Context, Failure};
use crate::spec::{Linux, Spec};

/// What becomes a container's root directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// Layers, mounted in the container's own mount namespace and nowhere else.
    Overlay {
        /// Read-only layers, topmost first. At least one.
        lower: Vec<PathBuf>,
        /// The container's own writable layer.
        upper: PathBuf,
        /// Overlayfs' work directory, on the file system of `upper`.
        work: PathBuf,
    },
    /// A plain directory, used in place.
    Directory(PathBuf),
}

/// A root directory with everything mounted in it, not yet entered.
pub(crate) struct Prepared {
    pub(crate) root: Root,
    unfinished: Unfinished,
    read_only: bool,
    propagation: Option<MountPropagationFlags>,
}

/// What is made where the host's files and rights are at hand, for a container that will have neither.
#[derive(Debug, Default)]
pub(crate) struct Luggage {
    /// The root directory.
    root: Option<Tree>,
    sources: Sources,
    nodes: Nodes,
}

/// Fetches all that a container in a user namespace cannot have by itself. The caller is in a mount namespace of its own, in which nobody
/// else will be.
pub(crate) fn fetch(
    rootfs: &Rootfs,
    place: &Path,
    spec: &Spec,
    users: BorrowedFd<'_>,
) -> Result<Luggage, Failure> {
    take_place(place, spec)?;
    // Before the layers are shown as the container's: the files beside them must not be shown so twice.
    let sources = Sources::fetch(&spec.mounts, place, users)?;
    let nodes = Nodes::make(place, &spec.linux.devices, users)?;
    // Overlayfs goes on making files as whoever mounts it, and for the host's root there is no place in these layers.
    let (uid, gid) = spec.linux.root();
    userns::make_files_as(uid, gid)?;
    let root = mount_root(rootfs, place, Some(users)).context(|| MOUNTING_ROOT)?;
    userns::make_files_as(0, 0)?;
    // A copy can be put up in the container's own mount namespace, and be its root there.
    let root = Tree::copy(root.directory(), true)?;
    Ok(Luggage { root: Some(root), sources, nodes })
}

/// Puts up the root at `place` (made if missing). The caller is in a mount namespace of its own.
pub(crate) fn stand(
    rootfs: &Rootfs,
    place: &Path,
    spec: &Spec,
    luggage: Option<&Luggage>,
) -> Result<Root, Failure> {
    take_place(place, spec)?;
    match luggage.and_then(|luggage| luggage.root.as_ref()) {
        None => mount_root(rootfs, place, None).context(|| MOUNTING_ROOT),
        Some(tree) => {
            tree.attach(open_directory(place)?.as_fd()).context(|| MOUNTING_ROOT)?;
            Ok(Root::new(open_directory(place)?, place))
        }
    }
}

/// Mounts everything else in the root.
pub(crate) fn furnish(
    root: Root,
    spec: &Spec,
    around: Surroundings,
    shared_memory: Option<&Tree>,
    luggage: Luggage,
) -> Result<Prepared, Failure> {
    let unfinished = mounts::mount_all(&root, &spec.mounts, around, luggage.sources)?;
    if let Some(memory) = shared_memory {
        shared_memory::attach(&root, memory, &spec.mounts)?;
    }
    devices::fill(&root, &spec.mounts, &spec.linux.devices, &luggage.nodes)?;
    let propagation = root_propagation(&spec.linux.rootfs_propagation)?;
    Ok(Prepared { root, unfinished, read_only: spec.root.readonly, propagation })
}

const MOUNTING_ROOT: &str = "error mounting the root filesystem";

/// Sees to it that what is mounted at `place` is seen nowhere else.
fn take_place(place: &Path, spec: &Spec) -> Result<(), Failure> {
    let propagation = root_propagation(&spec.linux.rootfs_propagation)?;
    let from_host = propagation.unwrap_or(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
    mount_change("/", from_host).context(|| "changing the propagation of /")?;
    match mkdirat(CWD, place, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).context(|| format!("mkdir {}", place.display())),
    }
    isolate_parent(place).context(|| "making the root's parent mount private")
}

/// With `users`, its files are shown as those of a user namespace's users: what lies on the disk is root's whoever the container's root
/// is, so that all containers share the layers.
fn mount_root(rootfs: &Rootfs, place: &Path, users: Option<BorrowedFd<'_>>) -> io::Result<Root> {
    let top = match rootfs {
        Rootfs::Overlay { lower, upper, work } => {
            let overlay = Overlay { lower, upper, work };
            if let Some(users) = users {
                overlay.show_as(users)?;
            }
            overlay.mount(place)?
        }
        Rootfs::Directory(directory) => {
            let tree = Tree::copy_path(directory, users.is_none())?;
            users.map_or(Ok(()), |users| tree.map_ids(users))?;
            tree.attach(open_directory(place)?.as_fd())?;
            tree.into_top()
        }
    };
    Ok(Root::new(top, place))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A root that is shared with the host (`rootfsPropagation`) must not show its own mount there.
fn isolate_parent(place: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(CWD, place, flags, Mode::empty())?;
    while !is_mount(directory.as_fd())? {
        directory = openat(&directory, "..", flags, Mode::empty())?;
    }
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    mount_attr::change(directory.as_fd(), private, false)
}

fn is_mount(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let found = statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Prepared {
    /// Hides and freezes the spec's paths. After this no mount may be added.
    pub(crate) fn protect(&self, linux: &Linux) -> Result<(), Failure> {
        mask::make_read_only(&self.root, &linux.readonly_paths)?;
        mask::hide(&self.root, &linux.masked_paths)
    }

    /// Makes it `/`, and leaves the host's file system behind.
    pub(crate) fn enter(self) -> Result<(), Failure> {
        self.unfinished.finish()?;
        if self.read_only {
            let frozen = Change { set: tree::READ_ONLY.set, ..Change::default() };
            mount_attr::change(self.root.directory(), frozen, false)
                .context(|| "making the root read-only")?;
        }
        pivot(self.root.directory()).context(|| "pivot_root")?;
        if let Some(propagation) = self.propagation {
            mount_change("/", propagation).context(|| "changing the propagation of /")?;
        }
        Ok(())
    }
}

/// `pivot_root(".", ".")` puts the old root under the new one's feet, from where it is unmounted: no directory is needed for it.
fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fchdir(root)?;
    pivot_root(".", ".")?;
    fchdir(&old)?;
    // Unmounting must not travel to the host.
    mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn root_propagation(name: &str) -> Result<Option<MountPropagationFlags>, Failure> {
    use MountPropagationFlags as Flags;
    let flags = match name {
        "" => return Ok(None),
        "private" => Flags::PRIVATE,
        "rprivate" => Flags::PRIVATE | Flags::REC,
        "shared" => Flags::SHARED,
        "rshared" => Flags::SHARED | Flags::REC,
        "slave" => Flags::DOWNSTREAM,
        "rslave" => Flags::DOWNSTREAM | Flags::REC,
        "unbindable" => Flags::UNBINDABLE,
        "runbindable" => Flags::UNBINDABLE | Flags::REC,
        other => return Err(Failure::invalid(format!("rootfsPropagation={other} is not supported"))),
    };
    Ok(Some(flags))
}
