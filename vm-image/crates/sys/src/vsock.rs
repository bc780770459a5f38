//! Sockets between the host and this machine: `vsock(7)`, for which rustix has no address type.
//!
//! All of them are non-blocking and closed on exec; waiting is the caller's, who has an event loop.
#![expect(unsafe_code, reason = "rustix takes foreign socket addresses through an unsafe trait")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `VMADDR_CID_HOST`: the host's address.
const HOST: u32 = libc::VMADDR_CID_HOST;
/// `VMADDR_CID_ANY`: whatever address this machine has.
const ANY: u32 = libc::VMADDR_CID_ANY;

struct Address {
    cid: u32,
    port: u32,
}

// SAFETY: the closure gets a pointer to a whole sockaddr_vm and its size; both are valid until it returns, which is all that
// the trait asks for.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        // SAFETY: sockaddr_vm is integers and arrays of such; zero is valid.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = self.cid;
        address.svm_port = self.port;
        f((&raw const address).cast(), size_of::<libc::sockaddr_vm>() as SocketAddrLen)
    }
}

fn socket() -> io::Result<OwnedFd> {
    let family = AddressFamily::from_raw(libc::AF_VSOCK as u16);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Listens on a port of this machine.
///
/// # Errors
/// What the kernel says, for instance `EADDRINUSE`, or `EAFNOSUPPORT` without the vsock module.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::bind(&socket, &Address { cid: ANY, port })?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// The next connection that waits; `WouldBlock` when there is none.
///
/// # Errors
/// What `accept4(2)` says.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

/// How long the host may take to accept, in seconds. The kernel's own limit of 2 is short for a busy moment.
const CONNECT_SECS: i64 = 30;

// Options of the level `AF_VSOCK`, of `linux/vm_sockets.h`.
const BUFFER_SIZE: libc::c_int = 0;
const BUFFER_MAX_SIZE: libc::c_int = 2;
const CONNECT_TIMEOUT: libc::c_int = 6;

fn set<T>(socket: impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::AF_VSOCK,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a stream hold so many bytes that the host has sent and nobody has read, and tells the host so. The kernel's default is
/// 256 KiB. Hyper-V's streams have what they were opened with, and stay so.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn hold(stream: impl AsFd, bytes: u64) -> io::Result<()> {
    set(&stream, BUFFER_MAX_SIZE, &bytes)?;
    set(&stream, BUFFER_SIZE, &bytes)
}

/// Begins to connect to a port of the host: the outcome is [`connected`]'s once the socket is writable.
///
/// # Errors
/// What the kernel says at once, for instance `ENODEV` while there is no vsock device.
pub fn connect(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    set(&socket, CONNECT_TIMEOUT, &libc::timeval { tv_sec: CONNECT_SECS, tv_usec: 0 })?;
    match rustix::net::connect(&socket, &Address { cid: HOST, port }) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// What became of a [`connect`] whose socket is writable.
///
/// # Errors
/// Why there is no connection, for instance `ECONNRESET` when nothing listens there.
pub fn connected(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::socket_error(socket)??)
}
