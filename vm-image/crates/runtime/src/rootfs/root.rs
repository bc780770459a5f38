//! Paths inside a container's root directory, resolved so that no symbolic link leads out of it.
//!
//! The image decides what is in the directory, and a volume that another container writes to may change under our eyes. So a path is never
//! checked first and used later: it is resolved once, by the kernel (`openat2`, `RESOLVE_IN_ROOT`) or step by step from descriptor to
//! descriptor, and what comes out is a descriptor.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::text::Descriptors;

/// The kernel's own limit on links in one path.
const MAX_LINKS: usize = 40;

/// What to make of a path that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A container's root directory.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// Where it is mounted, for `/proc/self/fd` to be compared with.
    path: PathBuf,
}

impl Root {
    /// `directory` is what is mounted at `path`.
    pub(crate) fn new(directory: OwnedFd, path: &Path) -> Self {
        Self { directory, path: path.to_owned() }
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens what exists. `flags` may be `PATH`, for a place to mount on.
    pub(crate) fn get(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.directory, relative(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// The text of a file, as [`Descriptors::read`]; nothing if it does not exist.
    pub(crate) fn read(&self, path: &Path, own: &Descriptors) -> io::Result<String> {
        match self.get(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            held => own.read(held?.as_fd()),
        }
    }

    /// Opens (`O_PATH`) what exists, or makes it with all that leads there, as root's and for all to read. A dangling link is made to lead
    /// somewhere, as dockerd does for `/etc/resolv.conf`.
    pub(crate) fn make(&self, path: &Path, make: Make) -> io::Result<OwnedFd> {
        match self.get(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.walk(path, make),
            found => found,
        }
    }

    fn walk(&self, path: &Path, make: Make) -> io::Result<OwnedFd> {
        let mut here = vec![self.directory.try_clone()?];
        let mut names: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let directory = here.last().expect("the root is never popped");
            if name == OsStr::new("..") {
                if here.len() > 1 {
                    here.pop();
                }
                continue;
            }
            let kind = if names.is_empty() { make } else { Make::Directory };
            let found = enter(directory.as_fd(), &name, kind)?;
            if file_type(found.as_fd())? != FileType::Symlink {
                here.push(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(found, c"", Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                here.truncate(1);
            }
            for name in parts(Path::new(OsStr::from_bytes(&target))).collect::<Vec<_>>().into_iter().rev() {
                names.push_front(name);
            }
        }
        Ok(here.pop().expect("the root is never popped"))
    }

    /// The directory that `path` is in (made if missing) and its last name, for what `openat2` cannot make: devices and links.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.make(path.parent().unwrap_or(Path::new("/")), Make::Directory)?, name))
    }

    /// Where in the container `place` really is.
    pub(crate) fn locate(&self, place: BorrowedFd<'_>) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        let inside = link.strip_prefix(&self.path).map_err(|_| {
            io::Error::other(format!("{} is not under {}", link.display(), self.path.display()))
        })?;
        Ok(Path::new("/").join(inside))
    }
}

/// Opens a name in a directory without following it, or makes it first.
fn enter(directory: BorrowedFd<'_>, name: &OsStr, make: Make) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    match make {
        Make::Directory => mkdirat(directory, name, Mode::from_raw_mode(0o755))?,
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            drop(openat(directory, name, flags, Mode::from_raw_mode(0o644))?);
        }
    }
    Ok(openat(directory, name, flags, Mode::empty())?)
}

pub(crate) fn file_type(place: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(place)?.st_mode))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from_vec(b"..".to_vec())),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// `openat2` takes `/` for the root as well, but an empty path for nothing.
fn relative(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new("/") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("root");
        std::fs::create_dir(&path).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root::new(openat(CWD, &path, flags, Mode::empty()).unwrap(), &path);
        (directory, root)
    }

    fn made(root: &Root, path: &str, make: Make) -> PathBuf {
        let place = root.make(Path::new(path), make).unwrap();
        root.locate(place.as_fd()).unwrap()
    }

    #[test]
    fn what_is_missing_is_made() {
        let (_keep, root) = root();
        assert_eq!(made(&root, "/a/b/../c/file", Make::File), Path::new("/a/c/file"));
        assert!(root.path.join("a/b").is_dir() && root.path.join("a/c/file").is_file());
        assert_eq!(made(&root, "/a/c", Make::Directory), Path::new("/a/c"));
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let (outside, root) = root();
        symlink("../../../../etc", root.path.join("up")).unwrap();
        symlink("/srv", root.path.join("absolute")).unwrap();
        assert_eq!(made(&root, "/up/new", Make::File), Path::new("/etc/new"));
        assert_eq!(made(&root, "/absolute/new", Make::Directory), Path::new("/srv/new"));
        assert_eq!(made(&root, "/../../x", Make::Directory), Path::new("/x"));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "only the root itself");
    }

    #[test]
    fn a_dangling_link_is_made_to_lead_somewhere() {
        let (_keep, root) = root();
        std::fs::create_dir(root.path.join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", root.path.join("etc/resolv.conf")).unwrap();
        assert_eq!(made(&root, "/etc/resolv.conf", Make::File), Path::new("/run/resolve/stub.conf"));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (_keep, root) = root();
        symlink("b", root.path.join("a")).unwrap();
        symlink("a", root.path.join("b")).unwrap();
        let refused = root.make(Path::new("/a"), Make::File).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        let walked = root.walk(Path::new("/a"), Make::File).unwrap_err();
        assert_eq!(walked.raw_os_error(), Some(libc::ELOOP));
    }
}
