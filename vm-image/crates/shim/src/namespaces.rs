//! `caisson-shim --namespaces [PID]`: a network namespace in a user namespace of its own, or in that of a process, for the engine to take.
//!
//! A process of several threads cannot enter a user namespace, and whoever made a namespace decides to which one it belongs; so the engine
//! lets this program make it. They speak by the standard input and output: one byte when the user namespace is there, for the engine to
//! write what its ids are; one back; one when the network namespace is there. This program ends when the engine has taken it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use caisson_sys::clone::unshare;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The argument that asks for it.
pub(crate) const COMMAND: &str = caisson_shim::config::NAMESPACES_COMMAND;

/// Makes them and waits until they are taken.
pub(crate) fn make(process: Option<&Path>) -> anyhow::Result<()> {
    match process {
        Some(process) => {
            let users = Path::new("/proc").join(process).join("ns/user");
            let users = File::open(&users).with_context(|| format!("open {}", users.display()))?;
            move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))
                .context("join the user namespace")?;
        }
        None => unshare(libc::CLONE_NEWUSER).context("make a user namespace")?,
    }
    say()?;
    std::io::stdin().read_exact(&mut [0]).context("wait for the ids")?;
    unshare(libc::CLONE_NEWNET).context("make a network namespace")?;
    say()?;
    // The end of the input is all that comes, also when the engine dies.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

fn say() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b".").and_then(|()| out.flush()).context("tell the engine")
}
