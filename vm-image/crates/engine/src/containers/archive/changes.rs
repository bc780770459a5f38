//! `docker diff`: what a container changed of its image, read from its own layer.
//!
//! overlayfs copies what is opened for writing, so that a file in the container's layer need not differ: it is compared
//! with the image's, as dockerd compares two mounted trees.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use caisson_docker_api::container::{Change, ChangeKind};
use caisson_runtime::{Rootfs, view};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat, statat};
use rustix::io::Errno;

use super::path;
use crate::containers::{Containers, Handle};
use crate::error::ApiError;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Containers {
    /// What a container changed, by path. Blocks.
    pub(crate) fn changes(&self, handle: &Handle) -> Result<Vec<Change>, ApiError> {
        let failed = |error: &io::Error| ApiError::from_chain("could not read the container's layer", error);
        let Rootfs::Overlay { lower, upper, .. } = self.ground.rootfs(&handle.definition())? else {
            return Err(ApiError::internal("the container has no layers"));
        };
        let upper: OwnedFd = File::open(upper).map_err(|e| failed(&e))?.into();
        let compare = |root: OwnedFd| {
            let mut walk = Walk { image: root, changes: Vec::new() };
            walk.directory(&upper, Path::new("/"), true).map(|()| walk.changes)
        };
        let changes = match lower.as_slice() {
            // One layer is no overlay, and needs none.
            [only] => compare(File::open(only).map_err(|e| failed(&e))?.into()),
            layers => view::layers(layers, &self.ground.view, compare)
                .map_err(|failure| ApiError::internal(failure.message))?,
        };
        let mut changes = changes.map_err(|e| failed(&e))?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

struct Walk {
    image: OwnedFd,
    changes: Vec<Change>,
}

impl Walk {
    fn note(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: path.to_string_lossy().into_owned(), kind });
    }

    /// What the image has at a path; its links are not followed.
    fn in_image(&self, path: &Path) -> io::Result<Option<Stat>> {
        match path::open(&self.image, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(found) => Ok(Some(rustix::fs::fstat(&found)?)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes through a directory of the container's layer. `compared`: the image has a directory there, of which what is
    /// left counts.
    fn directory(&mut self, directory: &OwnedFd, at: &Path, compared: bool) -> io::Result<()> {
        let names = names(directory)?;
        for name in &names {
            let path = at.join(name);
            let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let before = if compared { self.in_image(&path)? } else { None };
            self.entry(directory, name, &path, &found, before.as_ref())?;
        }
        if compared && is_opaque(directory)? {
            self.hidden(at, &names)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &OsString,
        path: &Path,
        found: &Stat,
        before: Option<&Stat>,
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::CharacterDevice && found.st_rdev == 0 {
            if before.is_some() {
                self.note(path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        let count = self.changes.len();
        match before {
            None => self.note(path, ChangeKind::Added),
            Some(before) if differs(before, found) => self.note(path, ChangeKind::Modified),
            Some(_) => {}
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        let was_directory =
            before.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let inner = openat(parent, name.as_os_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        let noted = self.changes.len() > count;
        self.directory(&inner, path, was_directory)?;
        // A directory is changed by what changed in it.
        if !noted && self.changes.len() > count {
            self.note(path, ChangeKind::Modified);
        }
        Ok(())
    }

    /// What the image has in a directory that hides it.
    fn hidden(&mut self, at: &Path, names_now: &[OsString]) -> io::Result<()> {
        let before = match path::open(&self.image, at, DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        for name in names(&before)?.iter().filter(|name| !names_now.contains(name)) {
            self.note(&at.join(name), ChangeKind::Deleted);
        }
        Ok(())
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    let mut value = [0; 8];
    match fgetxattr(directory, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file is another than it was, for what a copy by overlayfs keeps.
fn differs(before: &Stat, now: &Stat) -> bool {
    let is_directory = FileType::from_raw_mode(before.st_mode) == FileType::Directory;
    let owner_and_mode = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let content = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec as i64, stat.st_size);
    owner_and_mode(before) != owner_and_mode(now) || !is_directory && content(before) != content(now)
}
