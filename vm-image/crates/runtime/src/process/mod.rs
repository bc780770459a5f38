//! From a fresh clone of the shim to the container's program, step by step.
//!
//! The order is runc's (`standard_init_linux.go`), and each place in it has a reason: the terminal after the mounts it is in and before the
//! root is entered; kernel parameters before `/proc/sys` becomes read-only; the seccomp filter before the capabilities go when
//! no-new-privileges is off (loading one takes `CAP_SYS_ADMIN` then, so Docker's profile must let the rest of this through), else last; the
//! program looked up as the user who runs it.

mod capabilities;
mod identity;
mod program;
mod report;
mod settings;
mod terminal;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use caisson_sys::{clone, exec, keyring, loopback, seccomp};
use rustix::fs::{AtFlags, Gid, Uid, chownat, fstat};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Signal, chdir, ioctl_tiocsctty, set_dumpable_behavior, setsid, umask,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

pub(crate) use report::{channel, listen};
pub use terminal::resize;

use crate::failure::{Context, Failure, FailureKind, text};
use crate::namespaces::Namespaces;
use crate::rootfs::{self, Prepared, Rootfs, Surroundings, null_device};
use crate::seccomp::Filter;
use crate::spec::{NamespaceKind, Spec};
use capabilities::Sets;
use identity::{Accounts, Identity};

/// Descriptors that become the container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// As they are.
    Streams {
        /// What it reads.
        stdin: OwnedFd,
        /// Where it writes.
        stdout: OwnedFd,
        /// Where it complains.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own.
    Terminal,
}

/// All that a container's process is made from.
pub(crate) struct Birth<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) mount_at: &'a Path,
    pub(crate) user: Option<&'a str>,
    pub(crate) group_add: &'a [String],
    pub(crate) stdio: &'a Stdio,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) filter: Option<&'a Filter>,
    /// Whether something keeps it from using the devices that it makes.
    pub(crate) may_make_devices: bool,
}

/// A program, ready to be executed.
struct Program {
    file: PathBuf,
    environment: Vec<String>,
}

impl Birth<'_> {
    /// Becomes the container's program. Comes back only on failure, which the shim has been told by then.
    pub(crate) fn run(&self, shim: OwnedFd) -> ! {
        let status = match self.prepare(shim.as_fd()) {
            Ok(program) => self.execute(&program),
            Err(failure) => {
                report::tell(shim.as_fd(), &failure);
                1
            }
        };
        std::process::exit(status)
    }

    fn prepare(&self, shim: BorrowedFd<'_>) -> Result<Program, Failure> {
        self.die_with(shim)?;
        // Until it is a container's program, nobody in a joined pid namespace may look into it; execve undoes this.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context(|| "prctl(PR_SET_DUMPABLE)")?;
        setsid().context(|| "setsid")?;
        umask(rustix::fs::Mode::empty());
        self.settle_namespaces()?;
        self.settle_limits()?;
        let prepared = self.make_root()?;
        let accounts = Accounts::read(&prepared.root).context(|| "reading the container's accounts")?;
        let terminal = self.connect(&prepared, shim)?;
        self.name_host()?;
        settings::set_parameters(&prepared.root, &self.spec.linux.sysctl, self.namespaces)?;
        prepared.protect(&self.spec.linux)?;
        prepared.enter()?;
        self.take_streams(terminal)?;
        let program = self.become_user(&accounts)?;
        // A change of the user disarms it.
        self.die_with(shim)?;
        self.find(program)
    }

    /// The container dies with its shim, by whatever hand.
    fn die_with(&self, shim: BorrowedFd<'_>) -> Result<(), Failure> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context(|| "prctl(PR_SET_PDEATHSIG)")?;
        if report::is_abandoned(shim)? {
            return Err(Failure::other("the shim has died"));
        }
        Ok(())
    }

    fn settle_namespaces(&self) -> Result<(), Failure> {
        self.namespaces.join_rest()?;
        if self.namespaces.is_new(NamespaceKind::Cgroup) {
            clone::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace")?;
        }
        if self.namespaces.is_new(NamespaceKind::Network) {
            loopback::up().context(|| "bring up the loopback interface")?;
        }
        let ring = std::ffi::CString::new(format!("_ses.{}", self.id))
            .map_err(|_| Failure::other("id with a nul byte"))?;
        match keyring::join_session(&ring) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            joined => joined.context(|| "unable to join session keyring"),
        }
    }

    fn settle_limits(&self) -> Result<(), Failure> {
        if let Some(score) = self.spec.process.oom_score_adj {
            settings::score_out_of_memory(score)?;
        }
        settings::limit(&self.spec.process.rlimits)
    }

    fn make_root(&self) -> Result<Prepared, Failure> {
        let around = Surroundings { own_cgroup_namespace: self.namespaces.has(NamespaceKind::Cgroup) };
        rootfs::prepare(self.rootfs, self.mount_at, self.spec, around)
    }

    fn connect(&self, prepared: &Prepared, shim: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
        if !matches!(self.stdio, Stdio::Terminal) {
            return Ok(None);
        }
        let small = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        let size = self.spec.process.console_size.map(|size| (small(size.height), small(size.width)));
        terminal::open(&prepared.root, size, shim).context(|| "error opening the terminal").map(Some)
    }

    fn name_host(&self) -> Result<(), Failure> {
        if !self.spec.hostname.is_empty() {
            rustix::system::sethostname(self.spec.hostname.as_bytes()).context(|| "sethostname")?;
        }
        if !self.spec.domainname.is_empty() {
            rustix::system::setdomainname(self.spec.domainname.as_bytes()).context(|| "setdomainname")?;
        }
        Ok(())
    }

    fn take_streams(&self, terminal: Option<OwnedFd>) -> Result<(), Failure> {
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

    /// Drops to the container's user and rights, in its working directory. Returns its environment.
    fn become_user(&self, accounts: &Accounts) -> Result<Vec<String>, Failure> {
        let process = &self.spec.process;
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
        make_directories(directory)?;
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
        let user = &self.spec.process.user;
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
        let file = program::look_up(name, program::value(&environment, "PATH"))?;
        if self.spec.process.no_new_privileges {
            self.filter_calls()?;
        }
        Ok(Program { file, environment })
    }

    fn arguments(&self) -> &[String] {
        &self.spec.process.args
    }

    /// From here on a failure is the container's own, as under dockerd: it started, said why on its stderr, and exited with 255.
    fn execute(&self, program: &Program) -> i32 {
        let prepared = program::c_strings(self.arguments()).and_then(|arguments| {
            let file = program::c_strings(&[program.file.to_string_lossy().into_owned()])?;
            Ok((file, arguments, program::c_strings(&program.environment)?))
        });
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
fn make_directories(directory: &Path) -> Result<(), Failure> {
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
