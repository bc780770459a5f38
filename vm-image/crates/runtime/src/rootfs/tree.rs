//! Mounts that are made complete before anything can see them: the new mount API.
//!
//! A [`Tree`] is a mount that hangs nowhere. It gets its flags there, and is attached to a place that was resolved to a descriptor: at no
//! moment is a read-only mount writable, and no path is resolved twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use caisson_sys::mount_attr::{self, Change, Propagation};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::options::Attributes;

/// A mount, attached or not.
#[derive(Debug)]
pub(crate) struct Tree(OwnedFd);

impl Tree {
    /// A new mount of a file system.
    pub(crate) fn new(
        kind: &str,
        source: &Path,
        data: &[(String, Option<String>)],
        attributes: Attributes,
    ) -> io::Result<Self> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        if !source.as_os_str().is_empty() {
            fsconfig_set_string(&context, "source", source)?;
        }
        for (key, value) in data {
            let set = match value {
                Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
                None => fsconfig_set_flag(&context, key.as_str()),
            };
            set.map_err(|error| describe(&context, error))?;
        }
        Self::create(&context, attributes)
    }

    /// The mount of a configured file system context.
    pub(crate) fn create(context: &OwnedFd, attributes: Attributes) -> io::Result<Self> {
        fsconfig_create(context).map_err(|error| describe(context, error))?;
        // Clearing means nothing for a new mount: it begins with none.
        let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes.set).unwrap_or_default());
        Ok(Self(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?))
    }

    /// A copy of what is at a path, with all mounts below it if `recursive`.
    pub(crate) fn copy_path(source: &Path, recursive: bool) -> io::Result<Self> {
        Ok(Self(open_tree(CWD, source, copy_flags(recursive))?))
    }

    /// A copy of what is at a descriptor.
    pub(crate) fn copy(source: BorrowedFd<'_>, recursive: bool) -> io::Result<Self> {
        Ok(Self(open_tree(source, "", copy_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)?))
    }

    /// Changes flags, of all mounts below too if `recursive`.
    pub(crate) fn set(&self, attributes: Attributes, recursive: bool) -> io::Result<()> {
        if attributes == Attributes::default() {
            return Ok(());
        }
        let change = Change { set: attributes.set, clear: attributes.clear, propagation: None };
        mount_attr::change(self.0.as_fd(), change, recursive)
    }

    pub(crate) fn propagate(&self, propagation: Propagation, recursive: bool) -> io::Result<()> {
        mount_attr::change(
            self.0.as_fd(),
            Change { propagation: Some(propagation), ..Change::default() },
            recursive,
        )
    }

    pub(crate) fn read_only(&self, recursive: bool) -> io::Result<()> {
        self.set(READ_ONLY, recursive)
    }

    /// Shows its files as those of the users of a user namespace. Of a mount that hangs nowhere only.
    pub(crate) fn map_ids(&self, users: BorrowedFd<'_>) -> io::Result<()> {
        mount_attr::map_ids(self.0.as_fd(), users)
    }

    /// Attaches the mount at `place`. It stays usable.
    pub(crate) fn attach(&self, place: BorrowedFd<'_>) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, "", place, "", flags)?)
    }

    /// The mount's root directory (or file).
    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn into_top(self) -> OwnedFd {
        self.0
    }
}

pub(crate) const READ_ONLY: Attributes =
    Attributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64, clear: 0 };

fn copy_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// What the file system itself says of a refusal: a context keeps messages, which are read like a file.
fn describe(context: &OwnedFd, error: Errno) -> io::Error {
    let mut message = [0; 256];
    match rustix::io::read(context, &mut message) {
        Ok(length) if length > 0 => {
            let text = String::from_utf8_lossy(&message[..length]);
            let reason = crate::failure::text(&error.into());
            io::Error::new(io::Error::from(error).kind(), format!("{reason} ({})", text.trim()))
        }
        _ => error.into(),
    }
}
