//! Flags of a mount: `mount_setattr(2)`, which rustix does not have yet.
#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper in rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How mounts and unmounts travel between a mount and its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// From the master only.
    Slave,
    /// Not at all, and the mount cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What to change of a mount; the default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// The new propagation.
    pub propagation: Option<Propagation>,
}

/// Changes the mount at `mount`, and with `recursive` all mounts below it, all or none.
///
/// # Errors
/// What `mount_setattr(2)` says, for instance `EINVAL` if the descriptor is not the root of a mount, `ENOSYS` before Linux 5.12.
pub fn change(mount: BorrowedFd<'_>, change: Change, recursive: bool) -> io::Result<()> {
    let attributes = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    set(mount, &attributes, recursive)
}

/// Shows the files of the mount at `mount` as those of the users whom the user namespace `users` maps theirs to: what is 0's on the disk is
/// its root's here, and what its root makes here is 0's there.
///
/// # Errors
/// What `mount_setattr(2)` says of `MOUNT_ATTR_IDMAP`: `EINVAL` for a file system that cannot do it or a mount that others have seen, `EPERM`
/// for one that is mapped already.
pub fn map_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    /// Of `linux/mount.h`.
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    set(mount, &MountAttr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd }, false)
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set(mount: BorrowedFd<'_>, attributes: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel only reads the empty C string and `attributes`, whose layout and size are those of struct mount_attr; both
    // outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
