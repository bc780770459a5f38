//! Names in a container, resolved from descriptor to descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;

use crate::containers::mounts::parse::clean;

/// Go's limit on links in one name.
const MAX_LINKS: usize = 255;

/// How often a name is resolved again when the kernel saw something being renamed meanwhile (`openat2(2)`, `EAGAIN`).
const TRIES: usize = 100;

/// A name as a client gave it: absolute and clean, but for a slash or a dot at its end, which say that a directory is meant.
pub(super) fn asked(path: &str) -> String {
    let cleaned = clean(path);
    match path {
        _ if cleaned == "/" => cleaned,
        path if path.ends_with("/.") || path == "." => cleaned + "/.",
        path if path.ends_with('/') => cleaned + "/",
        _ => cleaned,
    }
}

/// Go's `filepath.Base`.
pub(super) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or("/") }
}

/// Opens a name with the container's root as the root.
pub(super) fn open(root: &OwnedFd, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            opened => return Ok(opened?),
        }
    }
}

/// Where a name leads, links followed as far as there is something: for a person to read, and to compare with the
/// container's mounts. Whoever uses it opens it anew, so that it need not stay true.
pub(super) fn follow(root: &OwnedFd, path: &str) -> io::Result<PathBuf> {
    let mut names: Vec<Vec<u8>> = parts(path.as_bytes());
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == b".." {
            here.pop();
            continue;
        }
        let next = here.join(OsStr::from_bytes(&name));
        let found = match open(root, &next, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                here = next;
                continue;
            }
            found => found?,
        };
        match readlinkat(&found, c"", Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = target.into_bytes();
                if target.starts_with(b"/") {
                    here = PathBuf::from("/");
                }
                names.extend(parts(&target));
            }
            // It is no link.
            Err(Errno::NOENT | Errno::INVAL) => here = next,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(here)
}

/// The names of a path, the first one last.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn names_keep_what_asks_for_a_directory() {
        for (path, kept, last) in [
            ("etc/passwd", "/etc/passwd", "passwd"),
            ("/etc/../a/", "/a/", "a"),
            ("/a/.", "/a/.", "."),
            ("", "/", "/"),
            (".", "/", "/"),
            ("/..", "/", "/"),
        ] {
            assert_eq!((asked(path).as_str(), base(&asked(path))), (kept, last), "{path:?}");
        }
    }

    #[test]
    fn links_are_followed_inside_and_as_far_as_there_is_something() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        symlink("/usr/lib", at("lib")).unwrap();
        symlink("../../../../lib/x", at("usr/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = rustix::fs::openat(CWD, directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .unwrap();
        for (path, leads) in [
            ("/lib/a", "/usr/lib/a"),
            ("/usr/up", "/usr/lib/x"),
            ("/usr/up/more", "/usr/lib/x/more"),
            ("/none/../usr", "/usr"),
            ("/", "/"),
        ] {
            assert_eq!(follow(&root, path).unwrap(), Path::new(leads), "{path:?}");
        }
        assert_eq!(
            follow(&root, "/loop").unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::LOOP.raw_os_error())
        );
    }
}
