//! `docker cp`: what is at a place, an archive of it, and an archive unpacked there.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use caisson_docker_api::container::PathStat;
use caisson_docker_api::time::Timestamp;
use caisson_images::files::{Ids, Packed, UnpackOptions, pack, unpack};
use rustix::fs::{FileType, OFlags, Stat, fstat};
use tokio::sync::oneshot;

use super::{file_error, path, user};
use crate::containers::record::Definition;
use crate::containers::{Containers, Handle};
use crate::error::{ApiError, ErrorKind, chain};
use crate::http::reply::ChannelWriter;

/// How to unpack an archive in a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnpackWishes {
    /// The files become the container's user's, in place of whom the archive names.
    pub(crate) as_user: bool,
    /// A directory is never replaced by what is none, nor the other way round.
    pub(crate) keep_kinds: bool,
}

impl Containers {
    /// What is at a place of a container.
    pub(crate) async fn stat_path(
        &self,
        handle: &Handle,
        name: &str,
        path: &str,
    ) -> Result<PathStat, ApiError> {
        let (ground, door) = (self.ground(), handle.door().await?);
        let (name, path) = (name.to_owned(), path.to_owned());
        tokio::task::spawn_blocking(move || {
            ground.look(&door, |root| stat(&root, &name, &path).map(|(stat, _)| stat))
        })
        .await?
    }

    /// Packs what is at a place of a container; what it is is told before the first byte. Returns when all is written, or
    /// nobody reads any more.
    pub(crate) async fn pack_path(
        &self,
        handle: &Handle,
        name: &str,
        path: &str,
        told: oneshot::Sender<Result<PathStat, ApiError>>,
        to: ChannelWriter,
    ) {
        let (ground, handle) = (self.ground(), handle.clone());
        let (name, path) = (name.to_owned(), path.to_owned());
        let mut told = Some(told);
        let mut tell = move |answer| told.take().is_some_and(|told| told.send(answer).is_ok());
        let door = match handle.door().await {
            Ok(door) => door,
            Err(error) => {
                tell(Err(error));
                return;
            }
        };
        let work = move || {
            let ids = ground.ids(&door);
            let packed = ground.look(&door, |root| {
                let (stat, file_type) = stat(&root, &name, &path)?;
                if !tell(Ok(stat)) {
                    return Ok(());
                }
                ground.tell(&door.definition, "archive-path", &[]);
                pack_it(&root, &path::asked(&path), file_type, &ids, to)
                    .map_err(|e| ApiError::from_chain("the archive was cut short", &e))
            });
            if let Err(error) = packed
                && !tell(Err(error.clone()))
            {
                tracing::warn!(%error, "could not pack a container's files");
            }
        };
        // A panic in there ends the stream, which the client sees.
        let _ = tokio::task::spawn_blocking(work).await;
    }

    /// Unpacks an archive in a directory of a container.
    pub(crate) async fn unpack_at(
        &self,
        handle: &Handle,
        name: &str,
        path: &str,
        wishes: UnpackWishes,
        archive: impl Read + Send + 'static,
    ) -> Result<(), ApiError> {
        let (ground, door) = (self.ground(), handle.door().await?);
        let (name, path) = (name.to_owned(), path.to_owned());
        let work = move || {
            let ids = ground.ids(&door);
            let place = (name.as_str(), path.as_str());
            ground.look(&door, |root| {
                unpack_it(root, &door.definition, place, wishes, ids, archive)?;
                ground.tell(&door.definition, "extract-to-dir", &[]);
                Ok(())
            })
        };
        tokio::task::spawn_blocking(work).await?
    }
}

fn stat(root: &OwnedFd, name: &str, path: &str) -> Result<(PathStat, FileType), ApiError> {
    let asked = path::asked(path);
    let failed = |error| file_error(error, path, name);
    let file = path::open(root, &asked, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
    let found = fstat(&file).map_err(|e| failed(e.into()))?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let link_target = match kind {
        FileType::Symlink => path::follow(root, &asked).map_err(failed)?.display().to_string(),
        _ => String::new(),
    };
    let nanos = found.st_mtime.saturating_mul(1_000_000_000).saturating_add(found.st_mtime_nsec as i64);
    let stat = PathStat {
        name: path::base(&asked).to_owned(),
        size: found.st_size,
        mode: go_mode(&found),
        mtime: Timestamp::from_unix_nanos(nanos),
        link_target,
    };
    Ok((stat, kind))
}

/// A mode as Go's `os.FileMode` has it.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = bits.iter().filter(|(bit, _)| stat.st_mode & bit != 0).fold(0, |all, (_, bit)| all | bit);
    kind | special | (stat.st_mode & 0o777)
}

fn pack_it(root: &OwnedFd, asked: &str, kind: FileType, ids: &Ids, to: ChannelWriter) -> std::io::Result<()> {
    let called = path::base(asked);
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    if kind == FileType::Directory {
        let itself = path::open(root, asked, directory)?;
        return pack(itself.as_fd(), OsStr::new("."), called.as_bytes(), Packed::Files, ids, to);
    }
    let parent = Path::new(asked).parent().unwrap_or(Path::new("/"));
    let parent = path::open(root, parent, directory)?;
    pack(parent.as_fd(), OsStr::new(called), called.as_bytes(), Packed::Files, ids, to)
}

fn unpack_it(
    root: OwnedFd,
    definition: &Definition,
    (name, path): (&str, &str),
    wishes: UnpackWishes,
    ids: Ids,
    archive: impl Read + Send,
) -> Result<(), ApiError> {
    let failed = |error| file_error(error, path, name);
    let asked = path::asked(path);
    let place = path::open(&root, &asked, OFlags::PATH).map_err(failed)?;
    if FileType::from_raw_mode(fstat(&place).map_err(|e| failed(e.into()))?.st_mode) != FileType::Directory {
        return Err(ApiError::invalid("extraction point is not a directory"));
    }
    let real = path::follow(&root, &asked).map_err(failed)?;
    check_writable(definition, &real.to_string_lossy())?;
    let owner = if wishes.as_user { user::owner(&root, &definition.config.user)? } else { None };
    let options = UnpackOptions { owner, keep_kinds: wishes.keep_kinds, ids };
    unpack(archive, root, &real, &options).map_err(|error| ApiError::new(ErrorKind::Internal, chain(&error)))
}

/// Whether the container may write there: nobody may put there what it could not.
fn check_writable(definition: &Definition, path: &str) -> Result<(), ApiError> {
    let above = definition.mounts.iter().filter(|mounting| mounting.has(path));
    match above.max_by_key(|mounting| mounting.point.destination.len()) {
        Some(mounting) if mounting.point.rw => Ok(()),
        Some(_) => Err(ApiError::invalid("mounted volume is marked read-only")),
        None if definition.host_config.readonly_rootfs => {
            Err(ApiError::invalid("container rootfs is marked read-only"))
        }
        None => Ok(()),
    }
}
