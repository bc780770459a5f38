//! Sockets between Windows and a Hyper-V guest (AF_HYPERV), which a Linux guest sees as AF_VSOCK.
//!
//! Source: Microsoft's "Make your own integration services"; a vsock port is the first field of a service's GUID.
#![expect(unsafe_code, reason = "Winsock's calls are foreign functions")]

use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use windows::Win32::Foundation::HANDLE;
use windows::Win32::Networking::WinSock::{
    ADDRESS_FAMILY, INVALID_SOCKET, SD_BOTH, SD_SEND, SEND_RECV_FLAGS, SOCK_STREAM, SOCKADDR, SOCKET,
    SOCKET_ERROR, SOMAXCONN, WSACleanup, WSADATA, WSAGetLastError, WSAStartup, accept, bind, closesocket,
    connect, listen, recv, send, setsockopt, shutdown, socket,
};
use windows::Win32::System::Hypervisor::{
    HV_GUID_VSOCK_TEMPLATE, HV_PROTOCOL_RAW, HVSOCKET_CONNECT_TIMEOUT, SOCKADDR_HV,
};
use windows::Win32::System::IO::CancelIoEx;
use windows::core::GUID;

use crate::pump::Blocking;

/// `AF_HYPERV` (ws2def.h).
const AF_HYPERV: u16 = 34;

/// A socket of ours.
pub(crate) struct HvSocket(SOCKET);

/// A socket that waits for the guest, until it is closed.
pub(crate) struct Listener {
    socket: SOCKET,
    /// The number may be another socket's as soon as it is given back, so that happens once.
    closed: AtomicBool,
}

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
}

impl Listener {
    /// Listens where the machine's guest connects to a vsock port of the host.
    pub(crate) fn new(machine: GUID, port: u32) -> io::Result<Self> {
        // Closes the socket if it cannot listen.
        let made = HvSocket::new()?;
        let address = address(machine, port);
        // SAFETY: the address is valid for its length.
        check(unsafe { bind(made.0, (&raw const address).cast::<SOCKADDR>(), LENGTH) })?;
        // SAFETY: the socket is open and bound.
        check(unsafe { listen(made.0, SOMAXCONN as i32) })?;
        let socket = ManuallyDrop::new(made).0;
        Ok(Self { socket, closed: AtomicBool::new(false) })
    }

    /// The next connection. Blocks until there is one; nothing once [`close`](Self::close) was called.
    pub(crate) fn accept(&self) -> Option<io::Result<HvSocket>> {
        if self.is_closed() {
            return None;
        }
        // SAFETY: the socket is open: should it be closed between the look above and here, the call fails, or at worst
        // (its number is another listener's by then) takes a connection that is closed below. Nobody wants the address.
        let accepted = match unsafe { accept(self.socket, None, None) } {
            Ok(socket) if socket != INVALID_SOCKET => Ok(HvSocket(socket)),
            Ok(_) => Err(last_error()),
            Err(error) => Err(error.into()),
        };
        (!self.is_closed()).then_some(accepted)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes it, which ends a waiting [`accept`](Self::accept).
    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // SAFETY: the socket is open, and this is the only time that it is closed. A failure leaves nothing to do.
            let _ = unsafe { closesocket(self.socket) };
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
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
        // SAFETY: the socket is open.
        check(unsafe { shutdown(self.0, SD_SEND) })
    }

    fn end(&self) -> io::Result<()> {
        end(self.0)
    }
}

impl Drop for HvSocket {
    fn drop(&mut self) {
        // SAFETY: the socket is ours and not used again. A failure leaves nothing to do.
        let _ = unsafe { closesocket(self.0) };
    }
}

/// Ends both directions of an open socket: for calls to come by shutting it down, and for those that wait already, which
/// a shutdown need not wake, by cancelling them.
pub(crate) fn end(socket: SOCKET) -> io::Result<()> {
    // SAFETY: at worst the number is no socket, which is an error.
    let shut = check(unsafe { shutdown(socket, SD_BOTH) });
    // SAFETY: a socket is a handle; only calls on this one are cancelled. That none waits is an error that does no harm.
    let _ = unsafe { CancelIoEx(HANDLE(socket.0 as *mut c_void), None) };
    shut
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
