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

/// Gives every signal its default action and unblocks all: what a program expects to find. (Rust's runtime ignores `SIGPIPE`, and whoever
/// started us may have ignored any.)
///
/// By system call, because the C library refuses to touch the two signals that it uses itself.
pub fn reset_signals() {
    /// `struct kernel_sigaction` of x86-64; elsewhere it is shorter, or as long.
    const DEFAULT_ACTION: [u64; 4] = [libc::SIG_DFL as u64, 0, 0, 0];
    const SET_SIZE: usize = size_of::<u64>();
    let no_signals = 0u64;
    for signal in 1..=64 {
        // SAFETY: the kernel reads an action with SIG_DFL (which runs no code of ours), no flags and an empty mask, and writes nothing.
        // SIGKILL and SIGSTOP fail, and are always right.
        unsafe {
            let nowhere = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT_ACTION.as_ptr(), nowhere, SET_SIZE);
        }
    }
    // SAFETY: the kernel reads a set of `SET_SIZE` bytes and writes nothing.
    unsafe {
        let nowhere = ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const no_signals, nowhere, SET_SIZE);
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
