//! The last steps before another program takes over this process.
#![expect(unsafe_code, reason = "execve, close_range and signal dispositions are raw in libc")]

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What `close_range(2)` says (`ENOSYS` before Linux 5.9, `EINVAL` for the flag before 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: plain integers; the flag only marks descriptors, so owners in this process keep theirs.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default action and unblocks all: what a program expects to find. (Rust's runtime ignores `SIGPIPE`.)
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. Signals that cannot be changed (SIGKILL, SIGSTOP, libc's own) fail, and are already right.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigemptyset fills the zeroed set, which outlives both calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Runs another program in this process. Returns only if that failed.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: all three are C strings or null-terminated arrays of them, alive during the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
