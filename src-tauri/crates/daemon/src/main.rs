//! caisson-host: the daemon of the user's that owns the machine. The window and the CLI are its faces.
//!
//! It owns the machine, the Docker socket and the published ports for as long as it lives, whether a window is open or not.
//! It is crash-only: what lives on of a killed one (sockets, locks, the hypervisor's processes) is tied to a living process
//! or found and ended by the next one, so that starting is recovering.

mod backend;
mod config;
mod dev_http;
mod doors;
mod engine;
mod facts;
mod host;
mod log;
mod run;
mod signals;
mod single;
mod wire;

use anyhow::Context;
use caisson_os::Dirs;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match live(config::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who started us shows this to the user.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn live(args: config::Args) -> anyhow::Result<()> {
    if args.detached {
        caisson_os::detach_from_terminal().context("cannot leave the terminal")?;
    }
    let dirs = Dirs::of_user()?;
    dirs.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(Box::pin(run::run(args, dirs)));
    // Nothing that still blocks (a slow file system, say) may keep a daemon that is done.
    runtime.shutdown_background();
    outcome
}
