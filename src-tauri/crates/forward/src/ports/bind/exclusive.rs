//! A port of Windows' for one program only.
//!
//! "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE", Microsoft: without the latter, a port that one program has on one address
//! can be had by another on all of them.
#![expect(unsafe_code, reason = "the option is known to no safe wrapper")]

use socket2::Socket;
use std::{io, os::windows::io::AsRawSocket};
use windows::Win32::Networking::WinSock::{SO_EXCLUSIVEADDRUSE, SOCKET, SOL_SOCKET, setsockopt};

/// Wants the port for this socket alone. To be called before it is bound.
pub(super) fn claim(socket: &Socket) -> io::Result<()> {
    let yes = 1i32.to_ne_bytes();
    let raw = SOCKET(socket.as_raw_socket() as usize);
    // SAFETY: the socket is open for as long as the call takes, and the value outlives it.
    match unsafe { setsockopt(raw, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, Some(&yes)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
