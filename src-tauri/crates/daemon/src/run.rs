//! The daemon from top to bottom: everything is put together here and nowhere else.

use crate::{
    backend,
    config::{self, Args},
    dev_http::DevDoor,
    doors,
    engine::{self, Engine},
    facts,
    host::Caisson,
    log,
    signals::Signals,
    single,
};
use anyhow::Context;
use caisson_app_api::READY;
use caisson_forward::{EgressPolicy, Listener, Ports, serve_api, serve_egress};
use caisson_machine::Machine;
use caisson_os::{Dirs, DockerContexts};
use std::{io::Write, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

/// The name of the docker context.
pub(crate) const CONTEXT: &str = "caisson";

/// What everything at its own limit takes. A connection is two files, and so is a flow out of the machine: 16,384 through published
/// ports, 10,496 flows, 1,024 Docker clients and 256 of the window and commands make 56,320. The 4,096 ports have a listener
/// each, and each may have a client that waits for a place: 8,192. The rest is for files, logs and the hypervisor.
const OPEN_FILES: u64 = 65_536;

/// What clients get to read the last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Runs the daemon until somebody wants it to end.
pub(crate) async fn run(args: Args, dirs: Dirs) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let _lock = single::become_the_daemon(&dirs).await?;
    log::start(&dirs, !args.detached)?;
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "caisson-host starts");
    let files = caisson_os::raise_file_limit(OPEN_FILES);
    if let Some(limit) = files.filter(|limit| *limit < OPEN_FILES) {
        warn!(
            limit,
            wanted = OPEN_FILES,
            "many connections at once may have to wait: raise the hard limit of open files"
        );
    }

    let docker = Listener::bind(&dirs.docker_endpoint()).await?;
    let app = Listener::bind(&dirs.daemon_endpoint()).await?;
    let dev = DevDoor::bind(args.dev_http, args.dev_token.clone()).await?;
    let (facts, told) = watch::channel(Vec::new());
    let (machine, streams) = Machine::spawn(config::machine(&args, &dirs)?, backend::choose(&dirs), told)?;
    let handle = machine.handle();
    let ports = Ports::spawn(handle.clone(), streams.ports, handle.status());
    let engine = Engine::new(handle.clone());
    let (containers, listed) = watch::channel(None);
    let wants_end = Arc::new(Notify::new());
    let host = Arc::new(Caisson {
        machine: handle.clone(),
        engine: engine.clone(),
        ports: ports.table(),
        containers: listed,
        docker_host: dirs.docker_endpoint().to_string(),
        dirs: dirs.clone(),
        wants_end: wants_end.clone(),
    });

    let mut tasks = JoinSet::new();
    tasks.spawn(facts::keep(facts::System::new(), args.container_proxies, facts, handle.status()));
    tasks.spawn(serve_api(docker, handle.clone()));
    let own_doors = args.dev_http.into_iter().collect();
    tasks.spawn(serve_egress(streams.egress, EgressPolicy { own_doors }));
    tasks.spawn(engine::watch_containers(engine, handle.status(), containers));
    let closing = Arc::new(Notify::new());
    tasks.spawn(doors::serve(app, host.clone(), closing.clone()));
    if let Some(dev) = dev {
        tasks.spawn(dev.serve(host));
    }
    put_docker_context(&dirs);
    if args.detached {
        // Else nobody could unmount or, on Windows, remove the directory in which we happened to be started.
        std::env::set_current_dir(&dirs.runtime).context("cannot leave the working directory")?;
    }
    say_ready(args.detached)?;
    if args.start {
        let handle = handle.clone();
        // How it ends is in the status, which is where everybody looks.
        tasks.spawn(async move { drop(handle.start().await) });
    }

    tokio::select! {
        name = signals.next() => info!(name, "told to end"),
        () = wants_end.notified() => info!("asked to end"),
    }
    closing.notify_one();
    tokio::select! {
        () = machine.shut_down() => info!("the machine is off"),
        name = signals.next() => error!(name, "told to end at once; the machine is ended by force"),
    }
    tokio::time::sleep(LAST_ANSWERS).await;
    tasks.shutdown().await;
    drop(ports);
    info!("caisson-host ends");
    Ok(())
}

/// The user's docker configuration is theirs: if it cannot be used, everything else still can.
fn put_docker_context(dirs: &Dirs) {
    let put = DockerContexts::of_user()
        .and_then(|contexts| contexts.put(CONTEXT, "Caisson", &dirs.docker_endpoint().to_string()));
    if let Err(error) = put {
        warn!(error = &error as &dyn std::error::Error, "no docker context");
    }
}

/// Tells who started us that the sockets listen.
fn say_ready(detached: bool) -> anyhow::Result<()> {
    if detached {
        // Who started us may have gone away; that is no reason to end.
        let _ = writeln!(std::io::stdout(), "{READY}");
        caisson_os::silence_output().context("cannot close the standard output")?;
    }
    info!("ready");
    Ok(())
}
