//! A new process, in new namespaces: `clone3(2)`, `fork(2)`.
//!
//! libc has no wrapper, and a wrapper could not promise more than this: the child is a copy of a **single-threaded** process, so
//! it may run ordinary Rust. [`clone`] proves that at each call instead of being `unsafe`.
#![expect(unsafe_code, reason = "clone3 has no safe wrapper anywhere")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Namespaces that a new process can be born into, as bits of `clone3`'s flags.
///
/// The cgroup namespace is not among them: its root is the cgroup of the *caller*, so a process that is to see its own cgroup as
/// the root must `unshare` after it was placed there.
pub mod namespace {
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// Process ids.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Network.
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    /// System V IPC and POSIX message queues.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// Host and domain name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// Offsets of the monotonic clocks.
    pub const TIME: u64 = 0x80;
}

/// libc's constant is an int, too small for this bit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Who is running after [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// The child, as the parent sees it.
        pid: Pid,
        /// A descriptor of the child, which no other process can take over.
        pidfd: OwnedFd,
    },
}

/// Makes a process in the given new [`namespace`]s, and in the cgroup v2 directory `cgroup` if there is one.
///
/// The child has copies of all descriptors (close-on-exec included) and of the memory, as after `fork`. The parent gets `SIGCHLD` at its end.
///
/// # Errors
/// - `Unsupported` when the calling process has more than one thread: locks held by the others would never be released in the child.
/// - What `clone3(2)` says: `EPERM` without the right to make namespaces, `ENOSYS` before Linux 5.3, and for `cgroup` (5.7) `EBUSY`,
///   `EOPNOTSUPP` or `EACCES` as for a write to its `cgroup.procs`.
pub fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = namespaces | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: clone_args is plain integers, for which zero is the documented default.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    Ok(match clone3(&mut arguments)? {
        None => Cloned::Child,
        Some(pid) => {
            // SAFETY: with CLONE_PIDFD a successful clone3 has put a new descriptor there, which nobody else owns.
            Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }
        }
    })
}

/// Makes a process in the given new [`namespace`]s, and in the cgroup v2 directory `cgroup` if there is one, that is not the caller's child
/// but its parent's, who gets what the kernel sends at its end.
///
/// `Some` is the process, as the caller's pid namespace numbers it; `None` is said in it, which has copies of all descriptors and of the memory.
///
/// # Errors
/// - `Unsupported` when the calling process has more than one thread: locks held by the others would never be released in the child.
/// - What `clone3(2)` says, as for [`clone`]; `EINVAL` also to the first process of a pid namespace.
pub fn sibling(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    // SAFETY: clone_args is plain integers, for which zero is the documented default.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // The signal at its end is the caller's own; clone3 takes no other here.
    arguments.flags = namespaces | libc::CLONE_PARENT as u64 | cgroup.map_or(0, |_| CLONE_INTO_CGROUP);
    arguments.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    clone3(&mut arguments)
}

/// Without `CLONE_VM`, `CLONE_FILES` and the like, which no caller gives. The pid in the parent, nothing in the child.
fn clone3(arguments: &mut libc::clone_args) -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: without CLONE_VM and with a null stack this is fork(): parent and child have memory of their own, and the child goes on
    // with this stack. The process has one thread (checked above), so no lock in the copied memory is held by anybody else. `arguments`
    // and what it points to outlive the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut *arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// Makes a copy of this process, where `clone3(2)` may be forbidden: Docker's filter of system calls does.
///
/// `Some` is the child, as the parent sees it; `None` is said in the child, which has copies of all descriptors and of the memory.
///
/// # Errors
/// - `Unsupported` when the calling process has more than one thread: locks held by the others would never be released in the child.
/// - What `fork(2)` says.
pub fn fork() -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: the process has one thread (checked above), so no lock in the copied memory is held by anybody else.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Leaves the mount, cgroup or other namespaces in `flags` (`CLONE_NEW*`) for new ones.
///
/// # Errors
/// What `unshare(2)` says; `InvalidInput` for a flag that is not a namespace.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS;
    if flags & !NAMESPACES != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace"));
    }
    // SAFETY: only namespaces change; the flag that would be unsafe (CLONE_FILES, which makes descriptors differ between threads) is refused.
    let result = unsafe { libc::unshare(flags) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn refuse_threads() -> io::Result<()> {
    // The link count of a directory of directories is 2 + their number, on procfs too (proc_task_getattr).
    if std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("/proc/self/task")?) == 3 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "a process with several threads cannot be cloned safely"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_is_refused() {
        // The test runner always has a second thread.
        let refused = clone(0, None).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert_eq!(sibling(0, None).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
