//! Starting a helper program that outlives its parent: `posix_spawn`.
//!
//! `std::process::Command` cannot hand a descriptor over under a chosen number without `pre_exec`, and with it falls back to
//! `fork`, which copies the page tables of a big, multi-threaded parent. glibc's `posix_spawn` is a `vfork` that cannot
//! hang on other threads' locks, and takes the descriptors as data.
#![expect(unsafe_code, reason = "posix_spawn has no safe wrapper that keeps descriptors")]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::Pid;

/// A program to start in a session of its own, with no other descriptors than those named.
#[derive(Debug)]
pub struct Detached<'a> {
    /// The program's path; it is not looked up in `PATH`.
    pub program: &'a Path,
    /// Its arguments, without the program's name.
    pub arguments: &'a [&'a OsStr],
    /// Its descriptors: each becomes the one of the given number. Those not named are whatever the parent leaves open
    /// over `exec`, which for Rust programs is 0, 1 and 2.
    pub descriptors: &'a [(BorrowedFd<'a>, i32)],
}

/// Starts it, with this process' environment. Signals are as after login: nothing is blocked or ignored.
///
/// The caller reaps it, for example by `waitid` on a pidfd.
///
/// # Errors
/// What `posix_spawn` says: the program is missing or cannot be executed, or resources are short.
pub fn detached(what: &Detached<'_>) -> io::Result<Pid> {
    let program = c_string(what.program.as_os_str())?;
    let words: Vec<CString> = what.arguments.iter().map(|word| c_string(word)).collect::<io::Result<_>>()?;
    let environment = environment()?;
    let arguments = pointers(std::iter::once(&program).chain(&words));
    let environment = pointers(&environment);
    let mut actions = Actions::new()?;
    for (from, to) in what.descriptors {
        actions.duplicate(*from, *to)?;
    }
    let attributes = Attributes::new()?;
    let mut pid = 0;
    // SAFETY: every pointer is to a live, terminated string or a null-terminated list of such, and the actions and
    // attributes are initialised; all of them outlive the call, which keeps none.
    let error = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    checked(error)?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no process"))
}

fn environment() -> io::Result<Vec<CString>> {
    std::env::vars_os()
        .map(|(name, value)| {
            let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
            CString::new(entry).map_err(io::Error::other)
        })
        .collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn pointers<'a>(strings: impl IntoIterator<Item = &'a CString>) -> Vec<*mut libc::c_char> {
    strings.into_iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
}

fn checked(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer is to, or says that it could not.
        unsafe {
            checked(libc::posix_spawn_file_actions_init(raw.as_mut_ptr()))?;
            Ok(Self(raw.assume_init()))
        }
    }

    fn duplicate(&mut self, from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
        // SAFETY: the actions are initialised.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from.as_raw_fd(), to) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// glibc's `POSIX_SPAWN_SETSID` (`spawn.h`), as wide as the other flags.
const SETSID: libc::c_int = 0x80;

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = std::mem::MaybeUninit::uninit();
        let mut signals = std::mem::MaybeUninit::uninit();
        let flags =
            libc::c_short::try_from(SETSID | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF)
                .expect("the flags are below bit 15");
        // SAFETY: each value is initialised by its own call before it is used.
        unsafe {
            checked(libc::posix_spawnattr_init(raw.as_mut_ptr()))?;
            let mut attributes = Self(raw.assume_init());
            libc::sigemptyset(signals.as_mut_ptr());
            checked(libc::posix_spawnattr_setsigmask(&mut attributes.0, signals.as_ptr()))?;
            libc::sigfillset(signals.as_mut_ptr());
            checked(libc::posix_spawnattr_setsigdefault(&mut attributes.0, signals.as_ptr()))?;
            checked(libc::posix_spawnattr_setflags(&mut attributes.0, flags))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::AsFd;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    #[test]
    fn a_program_gets_its_descriptors_and_a_session_of_its_own() {
        let (mut reader, writer) = pipe().unwrap();
        let script = OsStr::new("echo $$ $(ps -o sid= -p $$) >&7");
        let pid = detached(&Detached {
            program: Path::new("/bin/sh"),
            arguments: &[OsStr::new("-c"), script],
            descriptors: &[(writer.as_fd(), 7)],
        })
        .unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[0], pid.to_string());
        assert_eq!(words[1], words[0], "the session is its own");
        assert!(waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1.exited());
    }

    #[test]
    fn a_missing_program_is_told() {
        let missing = Detached { program: Path::new("/nonexistent/x"), arguments: &[], descriptors: &[] };
        assert_eq!(detached(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
