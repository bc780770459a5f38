//! `caisson-shim <bundle>`: makes one container, holds its streams, reaps it and says how it ended.
//!
//! The engine starts a shim for each container and talks to it by [`caisson_shim::proto`]; the shim outlives the engine, so the container
//! does too. It has one thread, because it clones itself to make the container, and little memory, because there may be a thousand.
//!
//! ```text
//! Created --Start--> Running --process ends, record written, output drained--> Exited --clients served--> gone
//!    |  \--Start fails: record written----------------------------------------^
//!    \--Discard--> gone
//! ```
//!
//! Under the name of [`init::NAME`] it is something else: the first process in a container that asked for an init. By its first argument it
//! does other small things that take a process of one thread: see [`namespaces`], [`log::COMPRESS`] and [`log::WRITE`].
//!
//! Its stderr is for its own troubles. Killed, it takes the container with it (see the contract for the exception).

mod clients;
mod execs;
mod exit;
mod init;
mod input;
mod listener;
mod log;
mod namespaces;
mod oom;
mod output;
mod queue;
mod shim;
mod streams;
mod time;

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;
use caisson_runtime::spec::Spec;
use caisson_shim::ShimConfig;
use caisson_shim::config::{CONFIG_FILE, LISTENER_FD, SPEC_FILE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::shim::Shim;

fn main() -> anyhow::Result<()> {
    if init::is_asked_for() {
        std::process::exit(init::run()?);
    }
    let mut arguments = std::env::args_os().skip(1);
    let bundle = arguments.next().map(PathBuf::from).context("usage: caisson-shim BUNDLE")?;
    let operand = arguments.next().map(PathBuf::from);
    match (bundle.to_str(), &operand) {
        (Some(log::COMPRESS), Some(path)) => return log::compress(path).context("compress the log"),
        (Some(log::WRITE), None) => return log::write().context("write the log"),
        (Some(namespaces::COMMAND), process) => return namespaces::make(process.as_deref()),
        _ => {}
    }
    let config: ShimConfig = read(&bundle.join(CONFIG_FILE))?;
    let spec: Spec = read(&bundle.join(SPEC_FILE))?;
    let open_files = raise_open_files();
    Shim::new(bundle, config, spec, listener()?, open_files)?.run()
}

/// Lets the shim have as many files open as it may: each client is one, and each process added to the container several. Returns the limit
/// as it was, which is what the container gets.
fn raise_open_files() -> Rlimit {
    let given = getrlimit(Resource::Nofile);
    // Everybody may; otherwise there are fewer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given });
    given
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
}

#[expect(unsafe_code, reason = "a descriptor that is handed over by number can be taken no other way")]
fn listener() -> anyhow::Result<UnixListener> {
    // SAFETY: the engine opened this descriptor for us (the contract of LISTENER_FD), and nothing else here has taken it. If it did not,
    // the first use fails with EBADF: nothing has been opened yet that could have its number.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(LISTENER_FD) });
    listener.set_nonblocking(true).context("descriptor 3 is not the listening socket")?;
    // It came without close-on-exec, and the container must not have it.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
    Ok(listener)
}
