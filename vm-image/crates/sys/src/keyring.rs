//! Session keyrings: `keyctl(2)`.
#![expect(unsafe_code, reason = "keyctl has no safe wrapper")]

use std::ffi::CStr;
use std::io;

const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Leaves the session keyring of whoever started this process for one of that name (made if missing), so that a container cannot read
/// the keys of its maker.
///
/// # Errors
/// `ENOSYS` if the kernel has no keys; `EDQUOT` if the user has too many.
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel only reads the C string, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
