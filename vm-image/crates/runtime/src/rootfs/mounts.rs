//! The mounts of a spec, one after the other, into the container's root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, fstatfs};
use rustix::io::Errno;

use super::open_directory;
use super::options::Options;
use super::overlay::{copy_layers, open_in};
use super::root::{Make, Root, file_type};
use super::tree::Tree;
use crate::cgroup;
use crate::failure::{Context, Failure};
use crate::spec::Mount;

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// The option that names a layer of an `overlay`, topmost first.
const LAYER: &str = "lowerdir+";

/// Files in `/proc` that may be mounted over, as runc allows them: what lxcfs fakes.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Mounts that become read-only when everything is in place, because later mounts need places in them.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(Vec<Tree>);

impl Unfinished {
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.0.iter().try_for_each(|tree| tree.read_only(false)).context(|| "making a tmpfs read-only")
    }
}

/// What of the host a mount may depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Whether the container has a cgroup namespace of its own.
    pub(crate) own_cgroup_namespace: bool,
}

/// Copies of what is to be bound, made where the host's files can be reached: one for each mount of a spec, `None` for those that are no
/// binds.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Option<Tree>>);

impl Sources {
    /// `place` is a directory where nothing is looked for meanwhile.
    pub(crate) fn fetch(mounts: &[Mount], place: &Path, users: BorrowedFd<'_>) -> Result<Self, Failure> {
        let fetch = |mount: &Mount| -> Result<Option<Tree>, Failure> {
            let options = Options::parse(&mount.options)?;
            if !is_copy(mount, &options) {
                return Ok(None);
            }
            source(mount, &options, place, options.id_mapped.then_some(users)).map(Some)
        };
        mounts.iter().map(|mount| fetch(mount).context(|| named(mount))).collect::<Result<_, _>>().map(Self)
    }

    /// The copy for the mount at this place in the spec.
    fn take(&mut self, index: usize) -> Option<Tree> {
        self.0.get_mut(index)?.take()
    }
}

/// Mounts everything.
pub(crate) fn mount_all(
    root: &Root,
    mounts: &[Mount],
    around: Surroundings,
    mut sources: Sources,
) -> Result<Unfinished, Failure> {
    let mut unfinished = Unfinished::default();
    for (index, mount) in mounts.iter().enumerate() {
        let options = Options::parse(&mount.options)?;
        let later = mount_one(root, mount, options, around, sources.take(index));
        unfinished.0.extend(later.context(|| named(mount))?);
    }
    Ok(unfinished)
}

fn named(mount: &Mount) -> String {
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    format!("error mounting {source:?} to rootfs at {:?}", mount.destination)
}

/// Whether it is a copy of something that is there: a bind, or an image.
fn is_copy(mount: &Mount, options: &Options) -> bool {
    options.bind || matches!(mount.kind.as_str(), "bind" | "overlay")
}

fn mount_one(
    root: &Root,
    mount: &Mount,
    options: Options,
    around: Surroundings,
    fetched: Option<Tree>,
) -> Result<Option<Tree>, Failure> {
    let kind = mount.kind.as_str();
    if is_copy(mount, &options) {
        return bind(root, mount, &options, fetched).map(|()| None);
    }
    match kind {
        "cgroup" | "cgroup2" => mount_cgroup(root, mount, &options, around).map(|()| None),
        "tmpfs" => mount_tmpfs(root, mount, options),
        "proc" | "sysfs" => {
            let tree = new_tree(mount, kind, &options)?;
            let place = root.make(&mount.destination, Make::Directory)?;
            refuse_diverted(root, place.as_fd(), &mount.destination, kind)?;
            attach(&tree, place.as_fd(), &options).map(|()| None)
        }
        _ => {
            let tree = new_tree(mount, kind, &options)?;
            let place = place_for(root, &mount.destination, Make::Directory)?;
            attach(&tree, place.as_fd(), &options).map(|()| None)
        }
    }
}

fn new_tree(mount: &Mount, kind: &str, options: &Options) -> io::Result<Tree> {
    let source = mount.source.as_deref().unwrap_or(Path::new(kind));
    Tree::new(kind, source, &options.data, options.own)
}

/// Read-only only at the end: mounts that follow need places in it.
fn mount_tmpfs(root: &Root, mount: &Mount, mut options: Options) -> Result<Option<Tree>, Failure> {
    let read_only = options.own.set & super::tree::READ_ONLY.set != 0;
    options.own.set &= !super::tree::READ_ONLY.set;
    let tree = new_tree(mount, "tmpfs", &options)?;
    let place = place_for(root, &mount.destination, Make::Directory)?;
    attach(&tree, place.as_fd(), &options)?;
    Ok(read_only.then_some(tree))
}

/// The container's own cgroup as the root of what it sees, or the host's mount as it is.
///
/// Mounting anew from the host's own cgroup namespace would reset the mount options of the one and only hierarchy.
fn mount_cgroup(root: &Root, mount: &Mount, options: &Options, around: Surroundings) -> Result<(), Failure> {
    let Some(host) = cgroup::mount_point() else { return Ok(()) };
    let tree = if around.own_cgroup_namespace {
        Tree::new("cgroup2", Path::new("cgroup"), &[], options.own)?
    } else {
        let tree = Tree::copy_path(&host, false)?;
        tree.set(options.own, false)?;
        tree
    };
    let place = place_for(root, &mount.destination, Make::Directory)?;
    attach(&tree, place.as_fd(), options)
}

/// A copy of what is to be bound, or of an image's layers; with `users`, its files are shown as those of a user namespace's users. `place` is
/// a directory where nothing is looked for meanwhile.
fn source(
    mount: &Mount,
    options: &Options,
    place: &Path,
    users: Option<BorrowedFd<'_>>,
) -> Result<Tree, Failure> {
    const SHOWING: &str = "showing its files as the container's";
    let subpath = options.subpath.as_deref();
    if mount.kind == "overlay" {
        let layers = options.data.iter().filter(|(key, _)| key == LAYER);
        let layers: Vec<PathBuf> =
            layers.filter_map(|(_, layer)| layer.as_ref()).map(PathBuf::from).collect();
        return Ok(copy_layers(&layers, subpath, place, users)?);
    }
    let source = mount.source.as_deref().ok_or_else(|| Failure::other("bind mount without a source"))?;
    let tree = match subpath {
        None => Tree::copy_path(source, options.recursive_bind)?,
        Some(subpath) => {
            let inside = open_in(open_directory(source)?.as_fd(), subpath)?;
            Tree::copy(inside.as_fd(), options.recursive_bind)?
        }
    };
    users.map_or(Ok(()), |users| tree.map_ids(users)).context(|| SHOWING)?;
    Ok(tree)
}

fn bind(root: &Root, mount: &Mount, options: &Options, fetched: Option<Tree>) -> Result<(), Failure> {
    let tree = match fetched {
        Some(tree) => tree,
        None if options.id_mapped => {
            return Err(Failure::invalid("mount option \"idmap\" takes a user namespace"));
        }
        None => source(mount, options, root.path(), None)?,
    };
    let make = match file_type(tree.top())? {
        FileType::Directory => Make::Directory,
        _ => Make::File,
    };
    let place = place_for(root, &mount.destination, make)?;
    tree.set(options.own, false)?;
    attach(&tree, place.as_fd(), options)
}

fn attach(tree: &Tree, place: BorrowedFd<'_>, options: &Options) -> Result<(), Failure> {
    let is_directory = |place| Ok::<_, io::Error>(file_type(place)? == FileType::Directory);
    if is_directory(tree.top())? != is_directory(place)? {
        return Err(Failure::other(
            "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? \
             Check if the specified host path exists and is the expected type",
        ));
    }
    tree.set(options.recursive, true)?;
    tree.attach(place)?;
    for (propagation, recursive) in &options.propagation {
        tree.propagate(*propagation, *recursive)?;
    }
    Ok(())
}

/// Where to mount: made if missing; not in `/proc`, where a mount could fake what the kernel says of the container.
fn place_for(root: &Root, destination: &Path, make: Make) -> Result<std::os::fd::OwnedFd, Failure> {
    let place = root.make(destination, make)?;
    if fstatfs(&place)?.f_type == PROC_SUPER_MAGIC {
        let real = root.locate(place.as_fd())?;
        if !PROC_FILES.iter().any(|allowed| real == Path::new(allowed)) {
            return Err(Failure::other(format!("{real:?} cannot be mounted because it is inside /proc")));
        }
    }
    Ok(place)
}

/// An image in which `/proc` is a link would put the kernel's files somewhere else, and the masks nowhere (CVE-2019-19921).
fn refuse_diverted(
    root: &Root,
    place: BorrowedFd<'_>,
    destination: &Path,
    kind: &str,
) -> Result<(), Failure> {
    if root.locate(place)? == destination {
        return Ok(());
    }
    Err(Failure::other(format!("filesystem {kind:?} must be mounted on ordinary directory")))
}

/// Opens what exists for something to be mounted on; `None` if it does not exist.
pub(crate) fn existing(root: &Root, path: &Path) -> io::Result<Option<std::os::fd::OwnedFd>> {
    match root.get(path, OFlags::PATH) {
        Ok(place) => Ok(Some(place)),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}
