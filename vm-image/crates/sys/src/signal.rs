//! Sending a signal that a person chose, by number: rustix has names only, and no real-time signals.
#![expect(unsafe_code, reason = "pidfd_send_signal by number has no safe wrapper in rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Sends a signal to the process of a pidfd.
///
/// # Errors
/// `EINVAL` for a number that is no signal, `ESRCH` if the process has ended.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: integers, and a null pointer that the call documents as "as kill(2) does".
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
