//! Paths that a container may not read, or not write.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};

use rustix::mount::MountAttrFlags;

use super::mounts::existing;
use super::options::Attributes;
use super::root::{Root, file_type};
use super::tree::{READ_ONLY, Tree};
use crate::failure::{Context, Failure};

/// The host's `/dev` may have neither.
const HARMLESS: Attributes = Attributes {
    set: (MountAttrFlags::MOUNT_ATTR_NOSUID.bits() | MountAttrFlags::MOUNT_ATTR_NOEXEC.bits()) as u64,
    clear: 0,
};

/// Makes the paths that exist read-only, each with what is mounted below.
pub(crate) fn make_read_only(root: &Root, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let Some(place) =
            existing(root, Path::new(path)).context(|| format!("can't make {path:?} read-only"))?
        else {
            continue;
        };
        freeze(&place).context(|| format!("can't make {path:?} read-only"))?;
    }
    Ok(())
}

fn freeze(place: &OwnedFd) -> std::io::Result<()> {
    use std::os::fd::AsFd;
    let tree = Tree::copy(place.as_fd(), true)?;
    tree.read_only(true)?;
    tree.attach(place.as_fd())
}

/// Hides the paths that exist: a file behind `/dev/null`, a directory behind an empty read-only one.
pub(crate) fn hide(root: &Root, paths: &[String]) -> Result<(), Failure> {
    let mut empty = None;
    for path in paths {
        hide_one(root, Path::new(path), &mut empty).context(|| format!("can't mask path {path:?}"))?;
    }
    Ok(())
}

/// `empty` is the first directory's cover, of which the others get copies: one tmpfs for all.
fn hide_one(root: &Root, path: &Path, empty: &mut Option<Tree>) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let Some(place) = existing(root, path)? else { return Ok(()) };
    if file_type(place.as_fd())? != FileType::Directory {
        let null = null_device()?;
        let cover = Tree::copy(null.as_fd(), false)?;
        cover.set(HARMLESS, false)?;
        return Ok(cover.attach(place.as_fd())?);
    }
    match empty {
        Some(cover) => Tree::copy(cover.top(), false)?.attach(place.as_fd())?,
        None => {
            let data =
                [("nr_inodes".to_owned(), Some("1".to_owned())), ("size".to_owned(), Some("4k".to_owned()))];
            let cover = Tree::new("tmpfs", Path::new("tmpfs"), &data, Attributes { ..READ_ONLY })?;
            cover.attach(place.as_fd())?;
            *empty = Some(cover);
        }
    }
    Ok(())
}

/// The host's `/dev/null`, which no container has had its hands on (CVE-2025-31133); checked all the same.
pub(crate) fn null_device() -> Result<OwnedFd, Failure> {
    let null = openat(CWD, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&null)?;
    let device = (major(found.st_rdev), minor(found.st_rdev));
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || device != (1, 3) {
        return Err(Failure::other("/dev/null of this system is not the null device"));
    }
    Ok(null)
}
