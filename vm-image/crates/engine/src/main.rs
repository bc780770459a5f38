//! caisson-engine: the Docker Engine API over containers, images and networks.
//!
//! One process. What it is made of:
//!
//! - [`http`]: the API as clients see it; a table of routes, one file a resource;
//! - [`containers`]: one task a container that owns it, with its shim, its state on disk and its name;
//! - [`events`]: what happened, for those who follow;
//! - `caisson-images`, `caisson-networks`: the images and networks that containers use.
//!
//! It knows nothing of virtual machines: the machine runs it like any Linux does. It starts no process but shims, and
//! those hold the containers, so that it may be killed or replaced while containers run; starting is recovering.
//!
//! `SIGTERM` and `SIGINT` end it in order, as dockerd without live-restore: running containers are stopped first.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

mod containers;
mod engine;
mod error;
mod events;
mod filters;
mod http;
mod images;
mod readiness;
mod system;

use engine::{Engine, EngineConfig};

/// The Docker Engine API over containers, images and networks.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where images, containers and all other state are kept.
    #[arg(long)]
    data_root: PathBuf,
    /// Where clients connect: unix:///path.
    #[arg(long)]
    listen: String,
    /// Where the state of this run is kept: shims, sockets, network namespaces.
    #[arg(long, default_value = "/run/caisson")]
    exec_root: PathBuf,
    /// The shim's program [default: caisson-shim beside this program].
    #[arg(long)]
    shim: Option<PathBuf>,
    /// Where to ask for published ports; without it they are bound on this host.
    #[arg(long)]
    ports_socket: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAISSON_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    // The work is waiting for others: two threads keep up with two cores' worth of clients and cost little memory.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()
        .context("could not start the async runtime")?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Some(socket) = arguments.listen.strip_prefix("unix://").map(PathBuf::from) else {
        bail!("--listen {}: only unix:///path is known", arguments.listen);
    };
    let engine = Engine::open(config(arguments)?).await?;
    let listener = listen(&socket).with_context(|| format!("could not listen on {}", socket.display()))?;
    info!(socket = %socket.display(), api = %http::version::NEWEST, "the engine answers");
    tokio::select! {
        () = http::server::serve(listener, engine.clone()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    engine.shut_down().await;
    std::fs::remove_file(&socket).with_context(|| format!("could not remove {}", socket.display()))
}

fn config(arguments: Arguments) -> anyhow::Result<EngineConfig> {
    let shim = match arguments.shim {
        Some(path) => path,
        None => std::env::current_exe().context("where this program is")?.with_file_name("caisson-shim"),
    };
    Ok(EngineConfig {
        data_root: absolute(&arguments.data_root)?,
        exec_root: absolute(&arguments.exec_root)?,
        shim: absolute(&shim)?,
        ports_socket: arguments.ports_socket,
    })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("bad path {}", path.display()))
}

/// Listens, in place of a socket that an engine before this one has left; one that still answers is another engine's.
fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        bail!("another engine answers there");
    }
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(listener)
}
