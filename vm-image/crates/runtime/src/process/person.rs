//! Becoming the program: streams, user, rights, working directory, and `execve`. The same for a container's first process and for one that is
//! added to it later.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use caisson_sys::{exec, seccomp};
use rustix::fs::{AtFlags, Gid, Uid, chownat, fstat};
use rustix::io::Errno;
use rustix::process::{chdir, ioctl_tiocsctty, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::capabilities::Sets;
use super::identity::{Accounts, Identity};
use super::{Own, Stdio, program, report};
use crate::failure::{Context, Failure, FailureKind, text};
use crate::rootfs::null_device;
use crate::seccomp::Filter;
use crate::spec::Process;

/// Who a process is to be, and what it is to run.
pub(crate) struct Person<'a> {
    pub(crate) process: &'a Process,
    /// A user by name or number in place of the one in `process`.
    pub(crate) user: Option<&'a str>,
    pub(crate) group_add: &'a [String],
    pub(crate) stdio: &'a Stdio,
    pub(crate) filter: Option<&'a Filter>,
    /// Whether something keeps it from using the devices that it makes.
    pub(crate) may_make_devices: bool,
    /// What it must not run.
    pub(crate) own: Own,
}

/// A program, ready to be executed.
pub(crate) struct Program {
    file: PathBuf,
    environment: Vec<String>,
}

impl Person<'_> {
    pub(super) fn take_streams(&self, terminal: Option<OwnedFd>) -> Result<(), Failure> {
        if let Some(terminal) = &terminal {
            ioctl_tiocsctty(terminal).context(|| "ioctl(setctty)")?;
        }
        let (stdin, stdout, stderr) = match (self.stdio, &terminal) {
            (Stdio::Streams { stdin, stdout, stderr }, _) => (stdin, stdout, stderr),
            (Stdio::Terminal, Some(terminal)) => (terminal, terminal, terminal),
            (Stdio::Terminal, None) => return Err(Failure::other("no terminal")),
        };
        dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr))
            .context(|| "dup2")
    }

    /// All that is left before `execve`, in the container's root.
    pub(super) fn become_program(
        &self,
        accounts: &Accounts,
        shim: BorrowedFd<'_>,
    ) -> Result<Program, Failure> {
        let environment = self.become_user(accounts)?;
        // A change of the user disarms it.
        super::die_with(shim)?;
        self.find(environment)
    }

    /// Drops to the container's user and rights, in its working directory. Returns its environment.
    fn become_user(&self, accounts: &Accounts) -> Result<Vec<String>, Failure> {
        let process = self.process;
        let identity = self.identify(accounts)?;
        let environment = program::environment(&process.env, accounts.home(identity.uid))?;
        let mut sets = process.capabilities.as_ref().map(Sets::of);
        if self.user.is_some() && identity.uid != 0 {
            sets = sets.map(Sets::for_other_than_root);
        }
        if !self.may_make_devices {
            sets = sets.map(Sets::without_making_devices);
        }
        let directory = process.cwd.as_path();
        if process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).context(|| "prctl(SET_NO_NEW_PRIVS)")?;
        } else {
            self.filter_calls()?;
        }
        let entered = enter(directory);
        if let Some(sets) = sets {
            sets.bound()?;
            rustix::thread::set_keep_capabilities(true).context(|| "unable to set keep caps")?;
        }
        change_user(&identity).context(|| "unable to setup user")?;
        if !entered? && !enter(directory)? {
            return Err(Failure::other(not_entered(directory, Errno::ACCESS)));
        }
        refuse_outside()?;
        if let Some(sets) = sets {
            rustix::thread::set_keep_capabilities(false).context(|| "unable to clear keep caps")?;
            sets.apply()?;
        }
        umask(rustix::fs::Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));
        Ok(environment)
    }

    fn identify(&self, accounts: &Accounts) -> Result<Identity, Failure> {
        let user = &self.process.user;
        let mut identity = match self.user {
            Some(name) => accounts.identify(name)?,
            None => Identity { uid: user.uid, gid: user.gid, groups: Vec::new() },
        };
        identity.groups.extend(&user.additional_gids);
        for group in self.group_add {
            identity.groups.push(accounts.group(group)?);
        }
        Ok(identity)
    }

    fn filter_calls(&self) -> Result<(), Failure> {
        let Some(filter) = self.filter else { return Ok(()) };
        seccomp::install(&filter.program, filter.flags).context(|| "unable to init seccomp")
    }

    fn find(&self, environment: Vec<String>) -> Result<Program, Failure> {
        let name = self.arguments().first().ok_or_else(|| Failure::other("args must not be empty"))?;
        let file = program::look_up(name, program::value(&environment, "PATH"), self.own)?;
        if self.process.no_new_privileges {
            self.filter_calls()?;
        }
        Ok(Program { file, environment })
    }

    fn arguments(&self) -> &[String] {
        &self.process.args
    }

    /// From here on a failure is the container's own, as under dockerd: it started, said why on its stderr, and exited with 255.
    pub(super) fn execute(&self, program: &Program, shim: BorrowedFd<'_>) -> i32 {
        let prepared = program::c_strings(self.arguments()).and_then(|arguments| {
            let file = program::c_strings(&[program.file.to_string_lossy().into_owned()])?;
            Ok((file, arguments, program::c_strings(&program.environment)?))
        });
        report::announce(shim);
        let reason = match prepared {
            Ok((file, arguments, environment)) => {
                exec::reset_signals();
                match exec::close_on_exec_from(3) {
                    Ok(()) => exec::execve(&file[0], &arguments, &environment),
                    Err(error) => error,
                }
            }
            Err(failure) => std::io::Error::other(failure.message),
        };
        eprintln!("exec {}: {}", program.file.display(), text(&reason));
        255
    }
}

/// As dockerd does for a `WORKDIR` that the image lacks.
pub(super) fn make_directories(directory: &Path) -> Result<(), Failure> {
    use std::io::ErrorKind;
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
    match made {
        Err(error) => match error.kind() {
            ErrorKind::ReadOnlyFilesystem => Ok(()), // entering will say what is wrong
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => Err(Failure::new(
                FailureKind::NotDirectory,
                format!("Cannot mkdir: {} is not a directory", directory.display()),
            )),
            _ => Err(Failure::other(format!("mkdir {}: {}", directory.display(), text(&error)))),
        },
        Ok(()) => Ok(()),
    }
}

/// Whether the directory could be entered; not being allowed to is no failure yet, the container's user may be.
fn enter(directory: &Path) -> Result<bool, Failure> {
    match chdir(directory) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(error) => Err(Failure::other(not_entered(directory, error))),
    }
}

fn not_entered(directory: &Path, error: Errno) -> String {
    format!("chdir to cwd ({directory:?}) set in config.json failed: {}", text(&error.into()))
}

/// A working directory like `/proc/self/fd/7` could be the host's (CVE-2024-21626); the kernel marks it.
fn refuse_outside() -> Result<(), Failure> {
    let directory = rustix::process::getcwd(Vec::new()).context(|| "getcwd")?;
    if directory.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Failure::other(
        "current working directory is outside of container mount namespace root -- possible container breakout detected",
    ))
}

fn change_user(identity: &Identity) -> Result<(), Failure> {
    own_streams(identity.uid);
    let (user, group) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups).context(|| "setgroups")?;
    rustix::thread::set_thread_res_gid(group, group, group).context(|| "setgid")?;
    rustix::thread::set_thread_res_uid(user, user, user).context(|| "setuid")
}

/// Becomes the root of a user namespace that was just entered, where nobody is anybody yet.
pub(super) fn become_root() -> Result<(), Failure> {
    rustix::thread::set_thread_groups(&[]).context(|| "setgroups")?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context(|| "setgid")?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context(|| "setuid")
}

/// Gives the streams of a process to be to the root of its user namespace, who could not take them. Where this cannot be done (a socket that
/// a client has brought) they are used as they are.
pub(super) fn give_streams(stdio: &Stdio, (uid, gid): (u32, u32)) {
    let Stdio::Streams { stdin, stdout, stderr } = stdio else { return };
    let null = null_device().and_then(|null| Ok(fstat(null)?)).map(|null| null.st_rdev).ok();
    for stream in [stdin, stdout, stderr] {
        if fstat(stream).is_ok_and(|found| Some(found.st_rdev) != null) {
            let _ =
                chownat(stream, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH);
        }
    }
}

/// So that a program that runs as somebody can open `/dev/stdout`. Where this cannot be done it was not so before either.
fn own_streams(uid: u32) {
    let null = null_device().and_then(|null| Ok(fstat(null)?)).map(|null| null.st_rdev).ok();
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(found) = fstat(stream) else { continue };
        if found.st_uid != uid && Some(found.st_rdev) != null {
            let _ = chownat(stream, c"", Some(Uid::from_raw(uid)), None, AtFlags::EMPTY_PATH);
        }
    }
}
