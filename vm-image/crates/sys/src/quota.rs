//! Project quotas: how much a tree of files may take of its file system, whoever the files belong to.
#![expect(
    unsafe_code,
    reason = "neither quotactl_fd nor the ioctls of extended attributes have a safe wrapper"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    padding: [u8; 8],
}

/// `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`: `_IOR('X', 31, …)` and `_IOW('X', 32, …)`.
// On musl the type is signed, and this number is negative there.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory is of its project too.
const INHERIT: u32 = 0x200;

/// `struct if_dqblk` of `linux/quota.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Limits {
    /// In kibibytes, like the soft one.
    hard_blocks: u64,
    soft_blocks: u64,
    used_bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    used_inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

impl Limits {
    /// Whether nothing is used and nothing limited.
    fn are_none(&self) -> bool {
        let Self { hard_blocks, soft_blocks, used_bytes, hard_inodes, soft_inodes, used_inodes, .. } = self;
        [hard_blocks, soft_blocks, used_bytes, hard_inodes, soft_inodes, used_inodes]
            .into_iter()
            .all(|count| *count == 0)
    }
}

/// `QIF_BLIMITS`.
const BLOCK_LIMITS: u32 = 1;
/// `struct fs_quota_stat` of `linux/dqblk_xfs.h`, of which only the flags matter here.
#[repr(C, align(8))]
#[derive(Default)]
struct Status {
    version: i8,
    flags: u16,
    rest: [u64; 9],
}

/// `Q_XGETQSTAT`, which despite its name every file system with quotas answers.
const GET_STATUS: u32 = 0x5805;
/// `FS_QUOTA_PDQ_ENFD`. That projects are counted is another flag: ext4 counts with the feature, and holds to limits only with the mount option.
const ENFORCED: u16 = 1 << 5;
const GET_LIMITS: u32 = 0x80_0007;
const SET_LIMITS: u32 = 0x80_0008;

/// `QCMD(command, PRJQUOTA)`.
fn of_projects(command: u32) -> u32 {
    command << 8 | 2
}

/// Whether the file system of an open file holds projects to their limits.
pub fn is_on(file: BorrowedFd<'_>) -> bool {
    let mut status = Status::default();
    // SAFETY: the kernel writes a struct fs_quota_stat, which `status` is as long as, and which outlives the call.
    let told = unsafe { quotactl(file, GET_STATUS, 0, &raw mut status) };
    told.is_ok() && status.flags & ENFORCED != 0
}

/// Makes a directory, and all that will be made in it, part of a project.
///
/// # Errors
/// What `ioctl(2)` says, `ENOTTY` or `EOPNOTSUPP` where the file system has no projects.
pub fn join(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the kernel reads a struct fsxattr, which `attributes` is, and which outlives the call.
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes) })
}

/// The project that a file is part of; 0 is none.
///
/// # Errors
/// As [`join`].
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes a struct fsxattr, which `attributes` is, and which outlives the call.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) })?;
    Ok(attributes)
}

/// Lets a project take so many bytes, rounded up to whole kibibytes, of the file system of `file`. 0 is no limit.
///
/// # Errors
/// What `quotactl(2)` says, `ESRCH` where [`is_on`] says no.
pub fn limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let mut limits = Limits { hard_blocks: bytes.div_ceil(1024), valid: BLOCK_LIMITS, ..Limits::default() };
    // SAFETY: the kernel reads a struct if_dqblk, which `limits` is, and which outlives the call.
    unsafe { quotactl(file, SET_LIMITS, project, &raw mut limits) }
}

/// Whether no file of the file system of `file` is part of a project, and nothing limits it.
///
/// # Errors
/// As [`limit`].
pub fn is_free(file: BorrowedFd<'_>, project: u32) -> io::Result<bool> {
    let mut limits = Limits::default();
    // SAFETY: the kernel writes a struct if_dqblk, which `limits` is, and which outlives the call.
    match unsafe { quotactl(file, GET_LIMITS, project, &raw mut limits) } {
        Ok(()) => Ok(limits.are_none()),
        // xfs knows none that never was; ext4 tells of nothing but zeros.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// `quotactl_fd(2)`, since Linux 5.14.
///
/// # Safety
/// `data` is valid for what the command reads and writes.
unsafe fn quotactl<T>(file: BorrowedFd<'_>, command: u32, id: u32, data: *mut T) -> io::Result<()> {
    // SAFETY: the caller answers for `data`; the rest is plain integers.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), of_projects(command), id, data) };
    checked(libc::c_int::try_from(result).unwrap_or(-1))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernel_s() {
        assert_eq!((size_of::<Attributes>(), size_of::<Status>(), size_of::<Limits>()), (28, 80, 72));
    }

    #[test]
    fn proc_has_no_quota() {
        let file = std::fs::File::open("/proc/self").unwrap();
        assert!(!is_on(file.as_fd()));
        assert!(limit(file.as_fd(), 1, 4096).is_err() && project(file.as_fd()).is_err());
        assert!(is_free(file.as_fd(), 1).is_err());
    }

    #[test]
    fn a_limit_and_a_file_each_make_a_project_one_that_is_used() {
        let none = Limits { valid: BLOCK_LIMITS, ..Limits::default() };
        assert!(none.are_none());
        assert!(!Limits { hard_blocks: 1, ..none }.are_none());
        assert!(!Limits { used_inodes: 1, ..none }.are_none());
    }
}
