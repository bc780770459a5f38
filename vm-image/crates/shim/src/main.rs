//! `caisson-shim <bundle>`: makes one container, holds its streams, reaps it and says how it ended.
//!
//! The engine starts a shim for each container and talks to it by [`caisson_shim::proto`]; the shim outlives the engine, so the container
//! does too. It has one thread, because it clones itself to make the container, and little memory, because there may be a thousand.
//!
//! ```text
//! Created --Start--> Running --process ends, output drained, record written--> Exited --clients served--> gone
//!    |  \--Start fails: record written----------------------------------------^
//!    \--Discard--> gone
//! ```
//!
//! Its stderr is for its own troubles. Killed, it takes the container with it (see the contract for the exception).

mod clients;
mod exit;
mod input;
mod jsonlog;
mod output;
mod shim;
mod time;

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;
use caisson_runtime::spec::Spec;
use caisson_shim::ShimConfig;
use caisson_shim::config::{CONFIG_FILE, LISTENER_FD, SPEC_FILE};

use crate::shim::Shim;

fn main() -> anyhow::Result<()> {
    let bundle = std::env::args_os().nth(1).map(PathBuf::from).context("usage: caisson-shim BUNDLE")?;
    let config: ShimConfig = read(&bundle.join(CONFIG_FILE))?;
    let spec: Spec = read(&bundle.join(SPEC_FILE))?;
    Shim::new(bundle, config, spec, listener()?)?.run()
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
