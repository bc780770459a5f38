//! `/dev`: the devices of every container, the ones a spec adds, and the usual links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::open_directory;
use super::options::Attributes;
use super::root::{Make, Root};
use super::tree::Tree;
use crate::failure::{Context, Failure};
use crate::spec::{Device, Mount};

/// A device node to be made.
struct Node<'a> {
    path: &'a Path,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: (u32, u32),
}

/// The OCI spec's default devices. `console` comes with a terminal, `ptmx` is a link.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// All nodes of a container, the usual ones first.
fn all(devices: &[Device]) -> impl Iterator<Item = Result<Node<'_>, Failure>> {
    let usual = DEFAULTS.iter().map(|(path, major, minor)| {
        Ok(Node {
            path: Path::new(path),
            kind: FileType::CharacterDevice,
            major: *major,
            minor: *minor,
            mode: 0o666,
            owner: (0, 0),
        })
    });
    usual.chain(devices.iter().map(asked_for))
}

/// Nodes made with the host's rights, for a container in a user namespace, which can only have them bound. There are none for any other.
#[derive(Debug, Default)]
pub(crate) struct Nodes(Vec<Tree>);

impl Nodes {
    /// Makes them on a file system of their own, which is mounted at `place` meanwhile.
    pub(crate) fn make(place: &Path, devices: &[Device], users: BorrowedFd<'_>) -> Result<Self, Failure> {
        let tree = Tree::new("tmpfs", Path::new("tmpfs"), &[], Attributes::default())?;
        tree.attach(open_directory(place)?.as_fd())?;
        let directory = open_directory(place)?;
        let mut nodes = Vec::new();
        for (number, node) in all(devices).enumerate() {
            let node = node?;
            let made = make_in(&directory, OsStr::new(&number.to_string()), &node, users);
            nodes.push(made.context(|| creating(node.path))?);
        }
        unmount(place, UnmountFlags::DETACH).context(|| "unmounting the device nodes")?;
        Ok(Self(nodes))
    }
}

fn make_in(directory: &OwnedFd, name: &OsStr, node: &Node<'_>, users: BorrowedFd<'_>) -> io::Result<Tree> {
    mknodat(directory, name, node.kind, Mode::from_raw_mode(node.mode), makedev(node.major, node.minor))?;
    own(directory, name, node)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = Tree::copy(openat(directory, name, flags, Mode::empty())?.as_fd(), false)?;
    match tree.map_ids(users) {
        // Before Linux 6.3 a tmpfs cannot show its files as others': they are nobody's then, for everybody's use or none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        mapped => mapped?,
    }
    Ok(tree)
}

fn creating(path: &Path) -> String {
    format!("error creating device nodes: {path:?}")
}

/// Fills `/dev`, unless a spec binds one of its own over it, which is then complete.
pub(crate) fn fill(root: &Root, mounts: &[Mount], devices: &[Device], ready: &Nodes) -> Result<(), Failure> {
    let bound = |mount: &Mount| {
        let bind = |option: &String| option == "bind" || option == "rbind";
        mount.destination == Path::new("/dev") && mount.options.iter().any(bind)
    };
    if mounts.iter().any(bound) {
        return Ok(());
    }
    let mut ready = ready.0.iter();
    for node in all(devices) {
        let node = node?;
        let placed = match ready.next() {
            Some(tree) => bind(root, node.path, tree),
            None => make(root, &node),
        };
        placed.context(|| creating(node.path))?;
    }
    link_all(root).context(|| "error setting up /dev symlinks")
}

fn asked_for(device: &Device) -> Result<Node<'_>, Failure> {
    let kind = match device.kind.as_str() {
        "b" => FileType::BlockDevice,
        "c" | "u" => FileType::CharacterDevice,
        "p" => FileType::Fifo,
        other => return Err(Failure::invalid(format!("device {:?}: type {other:?}", device.path))),
    };
    let number = |number: i64| {
        u32::try_from(number)
            .map_err(|_| Failure::invalid(format!("device {:?}: number {number}", device.path)))
    };
    Ok(Node {
        path: &device.path,
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666),
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
    })
}

fn make(root: &Root, node: &Node<'_>) -> Result<(), Failure> {
    let (directory, name) = root.parent(node.path)?;
    let mode = Mode::from_raw_mode(node.mode);
    match mknodat(&directory, name, node.kind, mode, makedev(node.major, node.minor)) {
        Ok(()) => Ok(own(&directory, name, node)?),
        Err(Errno::EXIST) => Ok(()),
        // Without the right to make device nodes (this system is itself in a user namespace), the host's node is shown instead.
        Err(Errno::PERM) => bind(root, node.path, &Tree::copy_path(node.path, false)?),
        Err(error) => Err(error.into()),
    }
}

fn own(directory: &OwnedFd, name: &OsStr, node: &Node<'_>) -> io::Result<()> {
    let (user, group) = node.owner;
    if (user, group) == (0, 0) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    Ok(chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn bind(root: &Root, path: &Path, node: &Tree) -> Result<(), Failure> {
    let place = root.make(path, Make::File)?;
    Ok(node.attach(place.as_fd())?)
}

fn link_all(root: &Root) -> io::Result<()> {
    for (target, path) in LINKS {
        link(root, target, Path::new(path))?;
    }
    if Path::new("/proc/kcore").exists() {
        link(root, "/proc/kcore", Path::new("/dev/core"))?;
    }
    let (directory, name) = root.parent(Path::new("/dev/ptmx"))?;
    replace(&directory, name, "pts/ptmx")
}

fn link(root: &Root, target: &str, path: &Path) -> io::Result<()> {
    let (directory, name) = root.parent(path)?;
    match symlinkat(target, &directory, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The image's own `/dev/ptmx` would be a multiplexer of other pseudo-terminals.
fn replace(directory: &OwnedFd, name: &OsStr, target: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(symlinkat(target, directory, name)?)
}

/// Opens the container's own pseudo-terminal multiplexer.
pub(crate) fn open_ptmx(root: &Root) -> io::Result<OwnedFd> {
    root.get(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)
}
