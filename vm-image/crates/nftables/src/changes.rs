//! Hearing of what others change (netlink(7), the group `NFNLGRP_NFTABLES`).
//!
//! The kernel tells each change, with the port id of its doer, and after those of a transaction the name of its program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, bind, recv};

use crate::attr;
use crate::batch::SUBSYSTEM;
use crate::kernel::{Kernel, messages};
use crate::table::Family;

/// The group's bit.
const GROUP: u32 = 1 << 6;
/// Room for what is not taken yet, as much as the largest change of ours has. What does not fit is lost, and that it was is
/// told.
const BUFFER_BYTES: usize = 16 << 20;
/// The kernel puts no more into one datagram (`NLMSG_GOODSIZE`), unless a single change is larger.
const RECEIVE_BYTES: usize = 64 * 1024;

/// `NFT_MSG_NEWGEN`, the end of a transaction, and `NFTA_GEN_PROC_NAME`.
const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
const PROGRAM: u16 = 3;
/// What all messages of what is in a table have first: `struct nlmsghdr`, `struct nfgenmsg`, and the table's name.
const HEADERS: usize = 16 + 4;
const FAMILY: usize = 16;
const TABLE: u16 = 1;

/// Tells what others change in a table, of a network namespace. Its descriptor is readable when others have changed
/// something, whatever it is: [take](Changes::take) it.
#[derive(Debug)]
pub struct Changes {
    socket: OwnedFd,
    family: Family,
    table: String,
}

/// What others have done to a table, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody else has changed it, or what is in it.
    Made {
        /// The name of the program that did so last, if that is known yet.
        by: Option<String>,
    },
    /// There was more than could be heard, of this table or of others.
    Unheard,
}

impl Changes {
    /// Begins to listen, in the calling thread's network namespace, to all but what `own` does for as long as it lives.
    ///
    /// # Errors
    /// What `socket(2)` and `bind(2)` say: `EPERM` to those who may not administrate the network.
    pub fn of_others(own: &Kernel, family: Family, table: impl Into<String>) -> io::Result<Self> {
        let socket = caisson_sys::netfilter::socket(BUFFER_BYTES)?;
        caisson_sys::netfilter::ignore_changes_by(&socket, own.port_id()?)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self { socket, family, table: table.into() })
    }

    /// Whether any of the changes up to now was one of the table. Never waits.
    pub fn take(&self) -> Option<Change> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut heard = Heard::default();
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    messages(&buffer[..length]).for_each(|message| heard.hear(self, message));
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => heard.lose(),
                Err(_) => return heard.change,
            }
        }
    }

    fn is_of_table(&self, message: &[u8]) -> bool {
        let name = message.get(HEADERS..).and_then(|attributes| attr::find(attributes, TABLE));
        message.get(FAMILY) == Some(&self.family.number())
            && name.is_some_and(|name| attr::text(name) == self.table)
    }
}

/// What was heard so far.
#[derive(Default)]
struct Heard {
    change: Option<Change>,
    /// Whether the transaction that is being told has changed the table.
    is_of_table: bool,
}

impl Heard {
    fn hear(&mut self, changes: &Changes, message: &[u8]) {
        match kind(message) {
            Some(NEW_GENERATION) => {
                if self.is_of_table {
                    let program =
                        message.get(HEADERS..).and_then(|attributes| attr::find(attributes, PROGRAM));
                    self.change = Some(Change::Made { by: program.map(attr::text) });
                }
                self.is_of_table = false;
            }
            Some(_) if changes.is_of_table(message) => self.of_table(),
            _ => {}
        }
    }

    fn of_table(&mut self) {
        if !matches!(self.change, Some(Change::Made { .. })) {
            self.change = Some(Change::Made { by: None });
        }
        self.is_of_table = true;
    }

    /// The end of a transaction may be among what is lost, so the next end may be another's.
    fn lose(&mut self) {
        self.change.get_or_insert(Change::Unheard);
        self.is_of_table = false;
    }
}

fn kind(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*message.get(4..)?.first_chunk()?))
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
