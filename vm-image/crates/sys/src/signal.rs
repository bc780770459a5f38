//! Signals by number: sending one that a person chose, and taking those that come. rustix has names only, and no real-time signals.
#![expect(
    unsafe_code,
    reason = "pidfd_send_signal by number, sigprocmask and sigwaitinfo have no safe wrapper in rustix"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Signals that wait to be taken, in place of what they would do to this thread.
#[derive(Debug)]
pub struct Queue(libc::sigset_t);

impl Queue {
    /// Every signal from now on, but those that tell of a mistake in this program itself. They stay blocked in what this thread makes,
    /// until [`crate::exec::reset_signals`].
    ///
    /// # Errors
    /// What `sigprocmask(2)` says.
    pub fn of_all() -> io::Result<Self> {
        const MISTAKES: [i32; 7] = [
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGABRT,
            libc::SIGTRAP,
            libc::SIGSYS,
        ];
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the set; the other calls read and change it, which is alive. A null old set is allowed.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for mistake in MISTAKES {
                libc::sigdelset(set.as_mut_ptr(), mistake);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(set.assume_init()))
        }
    }

    /// Waits for the next one and takes it.
    ///
    /// # Errors
    /// What `sigwaitinfo(2)` says.
    pub fn take(&mut self) -> io::Result<i32> {
        loop {
            // SAFETY: the set is initialised; a null information is allowed.
            match unsafe { libc::sigwaitinfo(&self.0, ptr::null_mut()) } {
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Err(io::Error::last_os_error()),
                number => return Ok(number),
            }
        }
    }
}

/// Sends a signal to the process of a pidfd.
///
/// # Errors
/// `EINVAL` for a number that is no signal, `ESRCH` if the process has ended.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: integers, and a null pointer that the call documents as "as kill(2) does".
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
