//! A socket to the kernel's netfilter, with options for which rustix has no names.
#![expect(unsafe_code, reason = "netlink socket options have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with, sockopt};

/// Opens a netlink socket to netfilter in the calling thread's network namespace, with room for so many bytes each way.
///
/// Refusals carry the kernel's words, and not the refused message.
///
/// # Errors
/// What the kernel says: `EPERM` where this user may not have such buffers.
pub fn socket(buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    sockopt::set_socket_send_buffer_size_force(&socket, buffer_bytes)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, buffer_bytes)?;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        turn_on(&socket, option)?;
    }
    Ok(socket)
}

/// Lets messages that do not fit into a socket's buffer be lost without an error.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn no_overrun_errors(socket: &OwnedFd) -> io::Result<()> {
    turn_on(socket, libc::NETLINK_NO_ENOBUFS)
}

/// Keeps from a socket what the one with this port id does: the kernel tells whoever listens of each change, with its doer.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn ignore_changes_by(socket: &OwnedFd, port_id: u32) -> io::Result<()> {
    /// Where `struct nlmsghdr` has the doer, who is the same for all messages of a datagram.
    const DOER: u32 = 12;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const UNLESS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const TAKE: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    // Filters read numbers as they are on a wire, and netlink writes them as they are in memory.
    let doer = u32::from_be_bytes(port_id.to_ne_bytes());
    let mut steps =
        [step(LOAD, 0, DOER), step(UNLESS_EQUAL, 1, doer), step(TAKE, 0, 0), step(TAKE, 0, u32::MAX)];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live through the call, which copies them; their sizes are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn turn_on(socket: &OwnedFd, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is a c_int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
