//! A pseudo-terminal of the container's own devpts, so that `tty` and `/dev/console` name something that exists in there.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::report::TERMINAL;
use crate::rootfs::{Make, Root, Tree, open_ptmx};

/// Makes the terminal: its controlling side and the container's.
pub(crate) fn open(root: &Root, size: Option<(u16, u16)>) -> io::Result<(OwnedFd, OwnedFd)> {
    let controlling = open_ptmx(root)?;
    unlockpt(&controlling)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(&controlling, flags)?;
    if let Some((rows, columns)) = size {
        resize(controlling.as_fd(), rows, columns)?;
    }
    Ok((controlling, terminal))
}

/// Mounts the terminal at `/dev/console`.
pub(crate) fn show_as_console(root: &Root, terminal: BorrowedFd<'_>) -> io::Result<()> {
    let place = root.make(Path::new("/dev/console"), Make::File)?;
    Tree::copy(terminal, false)?.attach(place.as_fd())
}

/// Sets a terminal's size; its foreground process gets `SIGWINCH`.
///
/// # Errors
/// If it is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Gives the controlling side to the shim.
pub(crate) fn hand_over(shim: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(shim, &[io::IoSlice::new(&[TERMINAL])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
