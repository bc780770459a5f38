//! The kernel's table, by sysctl(3) (`net.route.0.0.dump`).
#![expect(unsafe_code, reason = "the table is read by a foreign function")]

use super::{Route, message};
use std::{io, ptr};

/// What the table may grow by between the question for its size and that for itself.
const ROOM: usize = 16 << 10;

pub(super) fn routes() -> io::Result<Vec<Route>> {
    let mut dump = vec![0; ask(&mut [])? + ROOM];
    let length = ask(&mut dump)?;
    dump.truncate(length);
    Ok(message::routes(&dump))
}

/// Reads the table into `buffer`, or asks how long it is if that is empty; gives its length in bytes.
fn ask(buffer: &mut [u8]) -> io::Result<usize> {
    let mut name = [libc::CTL_NET, libc::PF_ROUTE, 0, 0, libc::NET_RT_DUMP, 0];
    let mut length = buffer.len();
    let into = if buffer.is_empty() { ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
    // SAFETY: the name has as many parts as is said, and no more than `length` bytes are written to `into`.
    let done = unsafe {
        libc::sysctl(name.as_mut_ptr(), name.len() as libc::c_uint, into, &raw mut length, ptr::null_mut(), 0)
    };
    if done == 0 { Ok(length) } else { Err(io::Error::last_os_error()) }
}
