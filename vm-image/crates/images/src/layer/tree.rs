//! A directory that nothing can leave: every name is resolved by the kernel with this directory as its root
//! (`openat2(2)`, `RESOLVE_IN_ROOT`), so that absolute links, `..` and links to links end up inside; the last
//! component of a name is never followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::path::LayerPath;
use crate::tar::{Device, Time};

/// The attribute by which overlayfs knows a directory that hides all below.
pub(crate) const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The mode of directories that an archive does not mention.
const IMPLIED_MODE: u32 = 0o755;

/// How often a name is resolved again when the kernel saw something being renamed meanwhile (`openat2(2)`, `EAGAIN`).
const RESOLVE_TRIES: usize = 100;

/// A directory that nothing can leave.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory of the last name, since members of one directory come together.
    last: Option<(LayerPath, Rc<OwnedFd>)>,
}

/// A place in a tree: an open directory and a name in it, which may or may not be there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) parent: Rc<OwnedFd>,
    pub(crate) name: Vec<u8>,
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Directory,
    /// A character device 0:0, which is what overlayfs knows as a whiteout.
    Whiteout,
    Other,
}

impl Tree {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::below(fs::open(root, flags, Mode::empty())?))
    }

    /// The tree below a directory.
    pub(crate) fn below(root: OwnedFd) -> Self {
        Self { root, last: None }
    }

    /// The place of a name, its directories made if they are missing. Nothing for the root.
    pub(crate) fn place(&mut self, path: &LayerPath) -> io::Result<Option<Place>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        Ok(Some(Place { parent: self.directory(&parent)?, name: name.to_vec() }))
    }

    /// The place of a name, if its directory is there.
    pub(crate) fn existing_place(&self, path: &LayerPath) -> io::Result<Option<Place>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        Ok(Some(Place { parent: Rc::new(self.resolve(&parent, OFlags::empty())?), name: name.to_vec() }))
    }

    /// An open directory, made with all above it if it is missing.
    pub(crate) fn directory(&mut self, path: &LayerPath) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match self.resolve(path, OFlags::empty()) {
            Ok(directory) => Rc::new(directory),
            Err(error) if is_missing(&error) => self.make_directory(path)?,
            Err(error) => return Err(error),
        };
        self.last = Some((path.clone(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Makes a directory that the archive has things in but does not mention.
    fn make_directory(&mut self, path: &LayerPath) -> io::Result<Rc<OwnedFd>> {
        let (parent, name) = path.split().ok_or(Errno::NOENT)?;
        let place = Place { parent: self.directory(&parent)?, name: name.to_vec() };
        let found = place.found()?;
        if found == Found::Whiteout {
            place.remove()?;
        }
        if matches!(found, Found::Nothing | Found::Whiteout) {
            place.make_directory()?;
            place.set_mode(IMPLIED_MODE)?;
        }
        // A file in the way, or a link that leads nowhere, cannot be opened so, and that is the error.
        let directory = place.open_directory()?;
        if found == Found::Whiteout {
            set_xattr(&directory, OVERLAY_OPAQUE, b"y")?;
        }
        Ok(Rc::new(directory))
    }

    /// Opens a directory, following links, as if the tree were the whole file system.
    pub(crate) fn resolve(&self, path: &LayerPath, extra: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = OsStr::from_bytes(path.as_bytes());
        let mut tries = 0;
        loop {
            match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
                opened => return Ok(opened?),
            }
        }
    }

    /// Forgets the last directory: something was removed, and it may have been that.
    pub(crate) fn forget_last(&mut self) {
        self.last = None;
    }
}

impl Place {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// A path for calls that have none relative to a directory. It does not follow the name itself.
    fn by_proc(&self) -> PathBuf {
        by_proc(&self.parent).join(self.name())
    }

    pub(crate) fn found(&self) -> io::Result<Found> {
        let stat = match fs::statat(&self.parent, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
            _ => Found::Other,
        })
    }

    /// Removes what is there, with all that is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::unlinkat(&self.parent, self.name(), AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR) => remove_directory(&self.parent, self.name()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn make_directory(&self) -> io::Result<()> {
        Ok(fs::mkdirat(&self.parent, self.name(), Mode::RWXU)?)
    }

    pub(crate) fn open_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.parent, self.name(), flags, Mode::empty())?)
    }

    pub(crate) fn make_file(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.parent, self.name(), flags, Mode::RUSR | Mode::WUSR)?)
    }

    pub(crate) fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(fs::symlinkat(OsStr::from_bytes(target), &self.parent, self.name())?)
    }

    pub(crate) fn make_hard_link(&self, target: &Self) -> io::Result<()> {
        Ok(fs::linkat(&target.parent, target.name(), &self.parent, self.name(), AtFlags::empty())?)
    }

    /// Makes a device or a pipe that nobody may use yet; overlayfs' own whiteouts stay so.
    pub(crate) fn make_node(&self, kind: FileType, device: Device) -> io::Result<()> {
        let number = fs::makedev(device.major, device.minor);
        Ok(fs::mknodat(&self.parent, self.name(), kind, Mode::empty(), number)?)
    }

    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(fs::chownat(&self.parent, self.name(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Only for what is no symbolic link, which the caller has just made.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::chmodat(&self.parent, self.name(), Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    pub(crate) fn set_times(&self, mtime: Time) -> io::Result<()> {
        Ok(fs::utimensat(&self.parent, self.name(), &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(fs::lsetxattr(self.by_proc(), OsStr::from_bytes(name), value, XattrFlags::empty())?)
    }
}

pub(crate) fn set_owner(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

pub(crate) fn set_times(file: impl AsFd, mtime: Time) -> io::Result<()> {
    Ok(fs::futimens(file, &timestamps(mtime))?)
}

pub(crate) fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?)
}

/// Removes a directory with all that is in it, from descriptor to descriptor: no link is followed, and no path needed.
fn remove_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |parent: &OwnedFd, name: &OsStr| fs::openat(parent, name, flags, Mode::empty());
    let mut levels = vec![(open(parent, name)?, name.to_owned())];
    while let Some((directory, _)) = levels.last() {
        let inner = remove_names(directory)?;
        match inner {
            Some(inner) => {
                let opened = open(directory, &inner)?;
                levels.push((opened, inner));
            }
            None => {
                let (_, name) = levels.pop().expect("it was looked at");
                let above = levels.last().map_or(parent, |(above, _)| above);
                fs::unlinkat(above, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

/// Removes what is no directory, and empty directories; the name of the first directory that is not empty.
fn remove_names(directory: &OwnedFd) -> io::Result<Option<std::ffi::OsString>> {
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match fs::unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => return Ok(Some(name.to_owned())),
                removed => removed?,
            },
            removed => removed?,
        }
    }
    Ok(None)
}

/// Something is not there, or a whiteout is there.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn by_proc(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn timestamps(mtime: Time) -> Timestamps {
    let time = fs::Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
