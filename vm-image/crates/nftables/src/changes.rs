//! Hearing of changes (netlink(7), the group `NFNLGRP_NFTABLES`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, bind, recv};

/// The group's bit.
const GROUP: u32 = 1 << 6;
/// What is heard is not read, so it need not be heard in full.
const BUFFER_BYTES: usize = 64 * 1024;

/// Tells that something changed in the packet filter of a network namespace, whoever did it. Its descriptor is readable
/// when there is something to [take](Changes::take).
#[derive(Debug)]
pub struct Changes {
    socket: OwnedFd,
}

impl Changes {
    /// Begins to listen, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What `socket(2)` and `bind(2)` say: `EPERM` to those who may not administrate the network.
    pub fn open() -> io::Result<Self> {
        let socket = caisson_sys::netfilter::socket(BUFFER_BYTES)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self { socket })
    }

    /// Forgets all changes up to now. Never waits.
    pub fn take(&self) {
        let mut nothing = [0; 1];
        loop {
            match recv(&self.socket, &mut nothing[..], RecvFlags::DONTWAIT) {
                // There were more than it can hold.
                Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
