//! Datagrams that were meant for somebody else: sockets behind a `tproxy` rule.
#![expect(unsafe_code, reason = "control messages with original addresses have no safe wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes a socket tell with each datagram where it was to go.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn tell_destinations(socket: &OwnedFd, ipv6: bool) -> io::Result<()> {
    let (level, option) = match ipv6 {
        false => (libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
        true => (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
    };
    let on: libc::c_int = 1;
    // SAFETY: the value is a c_int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for one control message with an address.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Takes a datagram: its length, whence it came and where it was to go. `None` if the kernel did not tell.
///
/// # Errors
/// `WouldBlock` when there is none, and what `recvmsg(2)` says.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr, SocketAddr)>> {
    // SAFETY: sockaddr_storage and msghdr are integers, arrays and pointers; zero is valid for all of them.
    let (mut from, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = Control([0; 128]);
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.0).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: every pointer in the message leads to a live, writable object of the length beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if length == -1 {
        return Err(io::Error::last_os_error());
    }
    let to = destination(&message);
    Ok(address(&from).zip(to).map(|(from, to)| (length as usize, from, to)))
}

fn destination(message: &libc::msghdr) -> Option<SocketAddr> {
    // SAFETY: the kernel has filled in the control buffer of a message that is still whole, and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a header that lies wholly within the control buffer, which
        // is aligned for it.
        let (level, kind, length) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        let wanted = (level == libc::SOL_IP && kind == libc::IP_ORIGDSTADDR)
            || (level == libc::SOL_IPV6 && kind == libc::IPV6_ORIGDSTADDR);
        if wanted {
            // SAFETY: zero is valid, and at most the data of this control message is copied into the storage, which is
            // at least as large as any address.
            return unsafe {
                let mut storage: libc::sockaddr_storage = std::mem::zeroed();
                let data = libc::CMSG_DATA(header);
                let offset = data as usize - header as usize;
                #[expect(clippy::unnecessary_cast, reason = "musl's type for it is another than glibc's")]
                let length = length as usize;
                let bytes = length.saturating_sub(offset).min(size_of::<libc::sockaddr_storage>());
                std::ptr::copy_nonoverlapping(data, (&raw mut storage).cast::<u8>(), bytes);
                address(&storage)
            };
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// An address as Rust has it, without scope and flow label.
fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, for which a sockaddr_storage has room and alignment.
            let address = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, of a sockaddr_in6.
            let address = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(address.sin6_port)))
        }
        _ => None,
    }
}
