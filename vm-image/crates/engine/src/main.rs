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
//! `SIGTERM` and `SIGINT` end it in order: running containers are stopped first or, with `--live-restore`, left to the next engine.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use caisson_images::registry::{AtOnce, RegistryConfig};
use caisson_networks::DefaultPool;
use clap::Parser;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

mod containers;
mod engine;
mod error;
mod events;
mod filters;
mod http;
mod images;
mod moment;
mod readiness;
mod remap;
mod sizes;
mod system;
mod volumes;

use engine::{Engine, EngineConfig};
use remap::Remap;

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
    /// A directory with certificates of registries: <host>[:port]/{*.crt,NAME.cert,NAME.key}.
    #[arg(long, default_value = "/etc/docker/certs.d")]
    registry_certificates: PathBuf,
    /// A registry that may be reached without TLS: host[:port], or a network in CIDR form. May be repeated.
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// An address that serves what Docker Hub has, asked before it. May be repeated.
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// A file with more of both, JSON with dockerd's `insecure-registries` and `registry-mirrors`; read anew whenever a registry
    /// is reached.
    #[arg(long, value_name = "FILE")]
    registry_settings: Option<PathBuf>,
    /// How many layers are downloaded at once, by all pulls together.
    #[arg(long, value_name = "NUMBER", default_value_t = AtOnce::default().downloads)]
    max_concurrent_downloads: NonZeroU16,
    /// How many layers are uploaded at once, by each push.
    #[arg(long, value_name = "NUMBER", default_value_t = AtOnce::default().uploads)]
    max_concurrent_uploads: NonZeroU16,
    /// A file with certificates of authorities to trust besides this system's, read anew whenever a registry is reached.
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
    /// A file with HTTP_PROXY, HTTPS_PROXY and NO_PROXY, a variable a line, read anew whenever a registry is reached
    /// [default: those of the environment].
    #[arg(long, value_name = "FILE")]
    proxies: Option<PathBuf>,
    /// A file with variables that containers get, one a line, unless they are given others; read anew for each container made.
    #[arg(long, value_name = "FILE")]
    container_environment: Option<PathBuf>,
    /// What `host-gateway` stands for in `docker run --add-host`; one of IPv4, one of IPv6 [default: the default bridge's addresses].
    #[arg(long, value_name = "ADDRESS")]
    host_gateway_ip: Vec<IpAddr>,
    /// Where networks that name no range get theirs from: base=10.10.0.0/16,size=24 [default: Docker's own pools].
    #[arg(long)]
    default_address_pool: Vec<DefaultPool>,
    /// Whose subordinate ids (/etc/subuid, /etc/subgid) the users of containers are: USER[:GROUP], by name or number, or `default`.
    #[arg(long, value_name = "USER")]
    userns_remap: Option<String>,
    /// Leave containers running when a signal ends the engine, for the next one to find. One that is killed leaves them in any case.
    #[arg(long)]
    live_restore: bool,
    /// A file with ranges that networks keep clear of when they choose one, such as the routes of the machine's host: one in
    /// CIDR form a line. It is read each time.
    #[arg(long, value_name = "FILE")]
    host_routes: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAISSON_LOG").unwrap_or_else(|_| "info".into());
    // Who asks for everything wants to know where the time goes.
    let tracing = filter.max_level_hint() == Some(LevelFilter::TRACE);
    let ends = if tracing { FmtSpan::CLOSE } else { FmtSpan::NONE };
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_span_events(ends)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
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
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if arguments.host_gateway_ip.iter().filter(|address| family(address)).count() > 1 {
            bail!("--host-gateway-ip: only one address of IPv4 and one of IPv6 can be given");
        }
    }
    let remap = arguments.userns_remap.as_deref().map(Remap::parse).transpose();
    let remap = remap.context("--userns-remap")?.flatten();
    let mut data_root = absolute(&arguments.data_root)?;
    if let Some(remap) = &remap {
        data_root.push(remap.data_directory());
    }
    Ok(EngineConfig {
        data_root,
        exec_root: absolute(&arguments.exec_root)?,
        shim: absolute(&shim)?,
        ports_socket: arguments.ports_socket,
        registries: RegistryConfig {
            certificates: Some(arguments.registry_certificates),
            insecure: arguments.insecure_registry,
            mirrors: arguments.registry_mirror,
            settings: arguments.registry_settings,
            authorities: arguments.authorities,
            proxies: arguments.proxies,
            at_once: AtOnce {
                downloads: arguments.max_concurrent_downloads,
                uploads: arguments.max_concurrent_uploads,
            },
        },
        container_environment: arguments.container_environment,
        host_gateways: arguments.host_gateway_ip,
        default_address_pools: arguments.default_address_pool,
        remap,
        live_restore: arguments.live_restore,
        host_routes: arguments.host_routes,
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
