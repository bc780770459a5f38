//! The daemon's log: a file of its own for each run, the one before kept beside it. What the guest says is in it too, so it
//! is bounded.

use anyhow::Context;
use caisson_hypervisor::console::BoundedLog;
use caisson_os::Dirs;
use std::{
    io::{self, IsTerminal},
    sync::Mutex,
};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The most that the log holds; as much of the past is kept beside it.
const LOG_BYTES: u64 = 16 << 20;

/// Begins the log, also on standard error if that is where somebody looks. `CAISSON_LOG` says how much (as `RUST_LOG`).
pub(crate) fn start(dirs: &Dirs, to_terminal: bool) -> anyhow::Result<()> {
    let path = dirs.daemon_log();
    let file = BoundedLog::begin(&path, LOG_BYTES)
        .with_context(|| format!("cannot begin the log {}", path.display()))?;
    let in_file = fmt::layer().with_ansi(false).with_writer(Mutex::new(file)).with_filter(filter());
    let on_terminal = to_terminal.then(|| {
        fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).with_filter(filter())
    });
    tracing_subscriber::registry().with(in_file).with(on_terminal).init();
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a task of the daemon's panicked")));
    Ok(())
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("CAISSON_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}
