//! The init of a container that asked for one (`docker run --init`): the first process of its pid namespace.
//!
//! It starts the container's program, passes on every signal that it gets, reaps whatever becomes its child, and ends as the program
//! ended. It is this same program because it is there, static, and small; a container finds it, read-only, under [`NAME`], and it knows by
//! that name what it is to be. What it does, and its words, are tini's, which dockerd calls `docker-init`.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use caisson_sys::{clone, exec, signal};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpgrp, getpid, pidfd_open, setpgid, wait,
};

/// The file name under which a container has it.
pub(crate) const NAME: &str = "docker-init";

/// Whose errors they are.
const PREFIX: &str = "[FATAL tini (1)]";

/// Whether this program was started as an init.
pub(crate) fn is_asked_for() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&called).file_name() == Some(OsStr::new(NAME))
}

/// Runs the program of the arguments (`docker-init -- PROGRAM ARGUMENTS`) to its end. Returns what to exit with.
pub(crate) fn run() -> anyhow::Result<i32> {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    anyhow::ensure!(!words.is_empty(), "usage: {NAME} -- PROGRAM [ARGUMENT...]");
    // Before there is a child: none of its signals is lost.
    let mut signals = signal::Queue::of_all()?;
    let Some(program) = clone::fork()? else { std::process::exit(execute(&words)) };
    let pidfd = pidfd_open(program, PidfdFlags::empty())?;
    loop {
        match signals.take()? {
            child if child == Signal::CHILD.as_raw() => {
                if let Some(code) = reap(program)? {
                    return Ok(code);
                }
            }
            // A program that has just ended gets nothing any more, and needs nothing.
            number => drop(signal::send(pidfd.as_fd(), number)),
        }
    }
}

/// Reaps all that has ended. The code to exit with, if the program is among them.
fn reap(program: Pid) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => code = Some(exit_code(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(code),
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Becomes the program, in a process group of its own, which has the terminal if there is one. Comes back only on failure.
fn execute(words: &[OsString]) -> i32 {
    // Neither can fail in a way that keeps a program from running: tini, too, goes on.
    let _ = setpgid(Some(getpid()), Some(getpid()));
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), getpgrp());
    exec::reset_signals();
    let error = try_each(words);
    eprintln!("{PREFIX} exec {} failed: {}", words[0].display(), reason(&error));
    if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 }
}

fn try_each(words: &[OsString]) -> io::Error {
    let strings =
        |list: &mut dyn Iterator<Item = Vec<u8>>| list.map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = strings(&mut words.iter().map(|word| word.as_bytes().to_owned()));
    let environment = strings(
        &mut std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()),
    );
    let (Ok(arguments), Ok(environment)) = (arguments, environment) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for candidate in candidates(&words[0], std::env::var_os("PATH").as_deref()) {
        let Ok(file) = CString::new(candidate.into_encoded_bytes()) else { continue };
        let error = exec::execve(&file, &arguments, &environment);
        // One that may not be executed is the answer only if there is no other.
        if last.kind() == io::ErrorKind::NotFound {
            last = error;
        }
    }
    last
}

/// The files that a name may mean, as `execvp(3)` tries them.
fn candidates(name: &OsStr, path: Option<&OsStr>) -> Vec<OsString> {
    if name.as_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    std::env::split_paths(path.unwrap_or_default()).map(|directory| directory.join(name).into()).collect()
}

/// The kernel's words alone.
fn reason(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".into(),
        _ => error.to_string(),
    };
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_a_shell_does() {
        let found = |name: &str| candidates(OsStr::new(name), Some(OsStr::new("/a:/b")));
        assert_eq!(found("x"), ["/a/x", "/b/x"]);
        assert_eq!(found("./x"), ["./x"]);
        assert!(candidates(OsStr::new("x"), None).iter().all(|file| file == "x"));
    }

    #[test]
    fn reasons_are_the_kernel_s() {
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "Permission denied");
        assert_eq!(reason(&io::ErrorKind::NotFound.into()), "No such file or directory");
    }
}
