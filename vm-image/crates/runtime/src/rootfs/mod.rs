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
mod tree;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use caisson_sys::mount_attr::{self, Change, Propagation};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, mkdirat, openat, statx};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{fchdir, pivot_root};
use serde::{Deserialize, Serialize};

pub(crate) use devices::open_ptmx;
pub(crate) use mask::null_device;
pub(crate) use mounts::{Surroundings, Unfinished};
use overlay::Overlay;
pub(crate) use root::{Make, Root};
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

/// Mounts the root at `place` (made if missing) and everything else in it. The caller is in a mount namespace of its own.
pub(crate) fn prepare(
    rootfs: &Rootfs,
    place: &Path,
    spec: &Spec,
    around: Surroundings,
) -> Result<Prepared, Failure> {
    let propagation = root_propagation(&spec.linux.rootfs_propagation)?;
    let from_host = propagation.unwrap_or(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
    mount_change("/", from_host).context(|| "changing the propagation of /")?;
    match mkdirat(CWD, place, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).context(|| format!("mkdir {}", place.display())),
    }
    isolate_parent(place).context(|| "making the root's parent mount private")?;
    let root = mount_root(rootfs, place).context(|| "error mounting the root filesystem")?;
    let unfinished = mounts::mount_all(&root, &spec.mounts, around)?;
    devices::fill(&root, &spec.mounts, &spec.linux.devices)?;
    Ok(Prepared { root, unfinished, read_only: spec.root.readonly, propagation })
}

fn mount_root(rootfs: &Rootfs, place: &Path) -> io::Result<Root> {
    let top = match rootfs {
        Rootfs::Overlay { lower, upper, work } => Overlay { lower, upper, work }.mount(place)?,
        Rootfs::Directory(directory) => {
            let tree = Tree::copy_path(directory, true)?;
            let place =
                openat(CWD, place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            tree.attach(place.as_fd())?;
            tree.into_top()
        }
    };
    Ok(Root::new(top, place))
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
