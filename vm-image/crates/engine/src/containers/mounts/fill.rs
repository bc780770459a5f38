//! What the image has at a place goes into a volume that is mounted there for the first time, and is empty.
//!
//! The image's layers are shown in a view of their own, and what is there is packed by it and unpacked into the volume, as
//! `docker cp` would do it: owners, modes, attributes, links and devices are kept.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use caisson_images::files::{Ids, Packed, UnpackOptions, pack, unpack};
use caisson_runtime::view;
use rustix::fs::{
    CWD, Dir, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, fstat, futimens,
    openat, openat2,
};
use rustix::io::Errno;

use super::Mounting;
use crate::containers::Ground;
use crate::containers::record::Definition;
use crate::error::{ApiError, chain};
use crate::volumes;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Ground {
    /// Fills the empty ones of a new container's volumes. `layers` are its image's, topmost first. Blocks.
    pub(crate) fn fill_volumes(&self, definition: &Definition, layers: &[PathBuf]) -> Result<(), ApiError> {
        let user = format!("{}-fill", definition.id);
        let wanted = definition.mounts.iter().filter(|mounting| {
            let volume = mounting.volume().filter(|_| mounting.copy);
            volume.is_some_and(|name| self.may_need_filling(name, &mounting.point.destination, layers))
        });
        let mut empty = Vec::new();
        let opened = wanted.clone().try_for_each(|mounting| {
            let path = self.volumes.mount(&mounting.point.name, &user).map_err(|e| volumes::error(&e))?;
            empty.extend(
                open_empty(&path, &mounting.subpath).map_err(failed)?.map(|volume| (mounting, volume)),
            );
            Ok(())
        });
        let filled = opened.and_then(|()| self.fill_all(definition, &empty, layers));
        for name in wanted.filter_map(Mounting::volume) {
            if let Err(error) = self.volumes.unmount(name, &user) {
                tracing::warn!(volume = name, error = %chain(&error), "could not unmount a volume");
            }
        }
        filled
    }

    /// Whether the image may have something for a volume. A device is mounted only then: that it cannot be is for the start to
    /// tell, as in dockerd.
    fn may_need_filling(&self, volume: &str, destination: &str, layers: &[PathBuf]) -> bool {
        let has_device = self.volumes.get(volume).is_ok_and(|volume| volume.has_options());
        !has_device || may_be_in(layers, destination)
    }

    fn fill_all(
        &self,
        definition: &Definition,
        empty: &[(&Mounting, OwnedFd)],
        layers: &[PathBuf],
    ) -> Result<(), ApiError> {
        if empty.is_empty() || layers.is_empty() {
            return Ok(());
        }
        let layers: Vec<PathBuf> = std::iter::once(&self.base_layer).chain(layers).cloned().collect();
        let (foreign, remap) = (self.foreign_volumes(definition), self.remap_of(&definition.host_config));
        // What is not shown as the containers' has to be theirs as this system numbers them.
        let ids = |mounting: &Mounting| {
            let remap = remap.filter(|_| foreign.contains(&mounting.point.name));
            remap.map(|remap| remap.ids().clone()).unwrap_or_default()
        };
        let fill = |root: OwnedFd| {
            empty.iter().try_for_each(|(mounting, volume)| fill(&root, mounting, volume, ids(mounting)))
        };
        view::layers(&layers, &self.view, fill)
            .map_err(|e| ApiError::from_chain("failed to populate volume", &e))?
    }
}

/// Whether a path may be in these layers; a link on the way may lead to it.
fn may_be_in(layers: &[PathBuf], path: &str) -> bool {
    let mut at = PathBuf::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        at.push(component);
        let found: Vec<_> =
            layers.iter().filter_map(|layer| layer.join(&at).symlink_metadata().ok()).collect();
        if found.iter().any(std::fs::Metadata::is_symlink) {
            return true;
        }
        if found.is_empty() {
            return false;
        }
    }
    true
}

fn failed(error: io::Error) -> ApiError {
    ApiError::from_chain("failed to populate volume", &error)
}

/// Opens a volume, or the part of it that is mounted, if that is there and empty.
fn open_empty(path: &Path, subpath: &str) -> io::Result<Option<OwnedFd>> {
    let mut volume = openat(CWD, path, DIRECTORY, Mode::empty())?;
    if !subpath.is_empty() {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        volume = match openat2(&volume, subpath, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened?,
        };
    }
    for entry in Dir::read_from(&volume)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(None);
        }
    }
    Ok(Some(volume))
}

/// In the view of the image.
fn fill(root: &OwnedFd, mounting: &Mounting, volume: &OwnedFd, ids: Ids) -> Result<(), ApiError> {
    let destination = &mounting.point.destination;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match openat2(root, destination.as_str(), DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) if mounting.anonymous => {
            return Err(ApiError::internal(format!(
                "cannot mount volume over existing file, file exists {destination}"
            )));
        }
        Err(Errno::NOTDIR) => return Ok(()),
        opened => opened.map_err(|e| failed(e.into()))?,
    };
    copy(&source, volume, ids).map_err(|error| ApiError::from_chain("failed to populate volume", &*error))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn copy(source: &OwnedFd, volume: &OwnedFd, ids: Ids) -> Result<(), Failure> {
    let (reader, writer) = io::pipe()?;
    let root = volume.try_clone()?;
    let found = fstat(source)?;
    let owner = ids.outside(found.st_uid, found.st_gid).ok_or("the directory's owner is nobody's")?;
    let options = UnpackOptions { ids, ..UnpackOptions::default() };
    let unpacked = std::thread::scope(|scope| {
        let unpacked = scope.spawn(|| unpack(reader, root, Path::new("/"), &options));
        let writer = io::BufWriter::with_capacity(64 << 10, writer);
        let packed = pack(source.as_fd(), OsStr::new("."), b"", Packed::Files, &Ids::default(), writer);
        let unpacked = unpacked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If unpacking has failed, the archive had no reader any more: that is the better reason.
        unpacked?;
        Ok::<_, Failure>(packed?)
    });
    unpacked?;
    // The directory itself was not in the archive.
    fchown(volume, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    fchmod(volume, Mode::from_raw_mode(found.st_mode))?;
    let time = Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec as _ };
    Ok(futimens(volume, &Timestamps { last_access: time, last_modification: time })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_for_in_all_layers() {
        let home = tempfile::tempdir().unwrap();
        let layers = ["top", "low"].map(|name| home.path().join(name)).to_vec();
        std::fs::create_dir_all(layers[0].join("a")).unwrap();
        std::fs::create_dir_all(layers[1].join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", layers[1].join("link")).unwrap();
        for (path, expected) in [
            ("/a/b/c", true),
            ("/a/x", false),
            ("/x", false),
            ("/link/y", true),
            ("/", true),
            ("/a/b/c/d", false),
        ] {
            assert_eq!(may_be_in(&layers, path), expected, "{path}");
        }
    }
}
