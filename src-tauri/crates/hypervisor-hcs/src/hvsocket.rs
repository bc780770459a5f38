//! Sockets between Windows and a Hyper-V guest (AF_HYPERV), which a Linux guest sees as AF_VSOCK.
//!
//! Source: Microsoft's "Make your own integration services"; a vsock port is the first field of a service's GUID.
#![expect(unsafe_code, reason = "Winsock's calls are foreign functions")]

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use windows::Win32::Networking::WinSock::{
    ADDRESS_FAMILY, INVALID_SOCKET, SD_BOTH, SD_SEND, SEND_RECV_FLAGS, SOCK_STREAM, SOCKADDR, SOCKET,
    SOCKET_ERROR, SOMAXCONN, WINSOCK_SHUTDOWN_HOW, WSACleanup, WSADATA, WSAGetLastError, WSAStartup, accept,
    bind, closesocket, connect, listen, recv, send, setsockopt, shutdown, socket,
};
use windows::Win32::System::Hypervisor::{
    HV_GUID_VSOCK_TEMPLATE, HV_PROTOCOL_RAW, HVSOCKET_CONNECT_TIMEOUT, SOCKADDR_HV,
};
use windows::core::GUID;

use crate::pump::Blocking;

/// `AF_HYPERV` (ws2def.h).
const AF_HYPERV: u16 = 34;

/// A socket of ours.
pub(crate) struct HvSocket(SOCKET);

impl HvSocket {
    fn new() -> io::Result<Self> {
        winsock()?;
        // SAFETY: Winsock is started.
        let made = unsafe { socket(i32::from(AF_HYPERV), SOCK_STREAM, HV_PROTOCOL_RAW as i32) };
        Ok(Self(made.map_err(io::Error::from)?))
    }

    /// Connects to a vsock port of the machine's guest. Blocks for at most `limit`.
    pub(crate) fn connect(machine: GUID, port: u32, limit: Duration) -> io::Result<Self> {
        let socket = Self::new()?;
        let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).to_ne_bytes();
        let (level, option) = (HV_PROTOCOL_RAW as i32, HVSOCKET_CONNECT_TIMEOUT as i32);
        // SAFETY: the socket is open and the option's value is a ULONG.
        check(unsafe { setsockopt(socket.0, level, option, Some(&limit)) })?;
        let address = address(machine, port);
        // SAFETY: the address is valid for its length.
        check(unsafe { connect(socket.0, (&raw const address).cast::<SOCKADDR>(), LENGTH) })?;
        Ok(socket)
    }

    /// Listens where the machine's guest connects to a vsock port of the host.
    pub(crate) fn listen(machine: GUID, port: u32) -> io::Result<Self> {
        let socket = Self::new()?;
        let address = address(machine, port);
        // SAFETY: the address is valid for its length.
        check(unsafe { bind(socket.0, (&raw const address).cast::<SOCKADDR>(), LENGTH) })?;
        // SAFETY: the socket is open and bound.
        check(unsafe { listen(socket.0, SOMAXCONN as i32) })?;
        Ok(socket)
    }

    /// The next connection. Blocks until there is one, or [`Blocking::end`] was called.
    pub(crate) fn accept(&self) -> io::Result<Self> {
        // SAFETY: the socket is open; nobody wants the peer's address.
        let accepted = unsafe { accept(self.0, None, None) };
        match accepted {
            Ok(socket) if socket != INVALID_SOCKET => Ok(Self(socket)),
            Ok(_) => Err(last_error()),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes a listening socket, which ends a waiting [`accept`](Self::accept).
    pub(crate) fn close(&self) {
        // SAFETY: closing twice is an error that Winsock tells and nothing else; the number is not used by others
        // before `drop`, since a listening socket is the last that its thread holds.
        let _ = unsafe { closesocket(self.0) };
    }

    fn shut(&self, how: WINSOCK_SHUTDOWN_HOW) -> io::Result<()> {
        // SAFETY: the socket is open.
        check(unsafe { shutdown(self.0, how) })
    }
}

impl Blocking for HvSocket {
    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the socket is open, the buffer is ours.
        let count = unsafe { recv(self.0, into, SEND_RECV_FLAGS(0)) };
        usize::try_from(count).map_err(|_| last_error())
    }

    fn send(&self, from: &[u8]) -> io::Result<usize> {
        // SAFETY: the socket is open.
        let count = unsafe { send(self.0, from, SEND_RECV_FLAGS(0)) };
        usize::try_from(count).map_err(|_| last_error())
    }

    fn end_sending(&self) -> io::Result<()> {
        self.shut(SD_SEND)
    }

    fn end(&self) -> io::Result<()> {
        self.shut(SD_BOTH)
    }
}

impl Drop for HvSocket {
    fn drop(&mut self) {
        // SAFETY: the socket is ours and not used again. A failure leaves nothing to do.
        let _ = unsafe { closesocket(self.0) };
    }
}

const LENGTH: i32 = size_of::<SOCKADDR_HV>() as i32;

fn address(machine: GUID, port: u32) -> SOCKADDR_HV {
    SOCKADDR_HV { Family: ADDRESS_FAMILY(AF_HYPERV), Reserved: 0, VmId: machine, ServiceId: service(port) }
}

/// The service that a vsock port is.
fn service(port: u32) -> GUID {
    GUID { data1: port, ..HV_GUID_VSOCK_TEMPLATE }
}

fn check(result: i32) -> io::Result<()> {
    match result {
        SOCKET_ERROR => Err(last_error()),
        _ => Ok(()),
    }
}

fn last_error() -> io::Error {
    // SAFETY: no preconditions.
    io::Error::from_raw_os_error(unsafe { WSAGetLastError() }.0)
}

/// Starts Winsock, once, for as long as the program runs.
fn winsock() -> io::Result<()> {
    static STARTED: OnceLock<i32> = OnceLock::new();
    const VERSION_2_2: u16 = 0x0202;
    let code = *STARTED.get_or_init(|| {
        let mut data = WSADATA::default();
        // SAFETY: the structure is ours.
        let code = unsafe { WSAStartup(VERSION_2_2, &raw mut data) };
        if code == 0 && data.wVersion != VERSION_2_2 {
            // SAFETY: it was started just now.
            unsafe { WSACleanup() };
            return i32::from(u16::MAX);
        }
        code
    });
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_first_field_of_its_service() {
        assert_eq!(format!("{:?}", service(1024)), "00000400-FACB-11E6-BD58-64006A7986D3");
    }
}
