//! `/dev`: the devices of every container, the ones a spec adds, and the usual links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mknodat, symlinkat, unlinkat};
use rustix::io::Errno;

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

/// Fills `/dev`, unless a spec binds one of its own over it, which is then complete.
pub(crate) fn fill(root: &Root, mounts: &[Mount], devices: &[Device]) -> Result<(), Failure> {
    let bound = |mount: &Mount| {
        let bind = |option: &String| option == "bind" || option == "rbind";
        mount.destination == Path::new("/dev") && mount.options.iter().any(bind)
    };
    if mounts.iter().any(bound) {
        return Ok(());
    }
    for (path, major, minor) in DEFAULTS {
        let node = Node {
            path: Path::new(path),
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            owner: (0, 0),
        };
        make(root, &node).context(|| format!("error creating device nodes: {path:?}"))?;
    }
    for device in devices {
        let path = &device.path;
        make(root, &asked_for(device)?).context(|| format!("error creating device nodes: {path:?}"))?;
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
        Ok(()) if node.owner == (0, 0) => Ok(()),
        Ok(()) => {
            let (user, group) = node.owner;
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            Ok(chownat(&directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::PERM) => bind_hosts(root, node.path),
        Err(error) => Err(error.into()),
    }
}

/// Without the right to make device nodes (a user namespace), the host's node is shown instead.
fn bind_hosts(root: &Root, path: &Path) -> Result<(), Failure> {
    let place = root.make(path, Make::File)?;
    Ok(Tree::copy_path(path, false)?.attach(place.as_fd())?)
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
