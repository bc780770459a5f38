//! The engine: its parts put together, top to bottom, and taken apart in order.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use caisson_images::registry::RegistryConfig;
use caisson_images::{OpenError, Puller, Store};
use caisson_networks::{DefaultPool, Networks, Options, Publisher};
use caisson_volumes::Volumes;
use futures_util::future::join_all;
use tracing::warn;

use crate::containers::exec::Execs;
use crate::containers::health::Healths;
use crate::containers::quota::Quota;
use crate::containers::stop::StopOptions;
use crate::containers::support::Support;
use crate::containers::{Containers, Ground};
use crate::events::Events;
use crate::remap::Remap;
use crate::system;

/// How long an engine that was killed may have the images, on a busy machine.
const LETS_GO_WITHIN: Duration = Duration::from_secs(10);
/// The kernel does not tell of a lock that is let go to who does not wait for it on a thread.
const ASKS_AGAIN: Duration = Duration::from_millis(20);

/// Where the engine lives and what it uses.
#[derive(Debug, Clone)]
pub(crate) struct EngineConfig {
    /// What outlives a restart of the machine.
    pub(crate) data_root: PathBuf,
    /// What outlives this process but not the machine.
    pub(crate) exec_root: PathBuf,
    /// The shim's program.
    pub(crate) shim: PathBuf,
    /// Where ports are published; `None` is this host itself.
    pub(crate) ports_socket: Option<PathBuf>,
    /// How registries are reached.
    pub(crate) registries: RegistryConfig,
    /// A file with variables that containers get unless they are given others.
    pub(crate) container_environment: Option<PathBuf>,
    /// What `host-gateway` stands for; without any, the default bridge's own addresses.
    pub(crate) host_gateways: Vec<IpAddr>,
    /// Where networks that name no range get theirs from; empty is Docker's own pools.
    pub(crate) default_address_pools: Vec<DefaultPool>,
    /// Who containers' users are, if they are not this system's.
    pub(crate) remap: Option<Remap>,
    /// Whether containers go on when this engine is told to end.
    pub(crate) live_restore: bool,
    /// A file with the ranges that networks are to keep clear of.
    pub(crate) host_routes: Option<PathBuf>,
}

/// All that answers clients.
pub(crate) struct Engine {
    pub(crate) config: EngineConfig,
    /// Names this engine for good, in `/info`.
    pub(crate) id: String,
    /// What it keeps its files on, by dockerd's name.
    pub(crate) file_system: &'static str,
    pub(crate) events: Arc<Events>,
    pub(crate) images: Store,
    pub(crate) puller: Puller,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) containers: Containers,
}

impl Engine {
    /// Opens what is there, or makes it, and finds the containers that an engine before this one has left.
    pub(crate) async fn open(config: EngineConfig) -> anyhow::Result<Arc<Self>> {
        let (containers, shims) = (config.data_root.join("containers"), config.exec_root.join("shims"));
        let view = config.exec_root.join("view");
        // Layers and volumes have set-user-id programs of root's in them, which are for containers only.
        for directory in [&config.data_root, &containers, &shims, &view] {
            make_private(directory)?;
        }
        let id = system::engine_id(&config.data_root).context("could not read or write the engine's id")?;
        let file_system =
            system::file_system(&config.data_root).context("could not look at the data's file system")?;
        let base_layer = system::make_base_layer(&config.data_root)
            .context("could not make the layer below all containers")?;
        let images =
            open_images(&config.data_root.join("images")).await.context("could not open the images")?;
        let puller = Puller::new(images.clone(), Arc::new(config.registries.clone()));
        let publisher = match &config.ports_socket {
            Some(socket) => Publisher::External(socket.clone()),
            None => Publisher::Native,
        };
        let options = Options {
            default_pools: config.default_address_pools.clone(),
            avoid: config.host_routes.clone(),
            ..Options::new(publisher)
        };
        let networks =
            Networks::open(&config.data_root.join("networks"), &config.exec_root.join("networks"), options)
                .await
                .context("could not open the networks")?;
        let volumes =
            Volumes::open(config.data_root.join("volumes")).context("could not open the volumes")?;
        let events = Arc::<Events>::default();
        let containers = Containers::new(Ground {
            quota: Quota::probe(&containers),
            containers,
            shims,
            shim: config.shim.clone(),
            base_layer,
            view,
            images: images.clone(),
            networks: networks.clone(),
            volumes: volumes.clone(),
            events: events.clone(),
            ending: AtomicBool::new(false),
            execs: Execs::default(),
            healths: Healths::default(),
            support: Support::probe(),
            environment: config.container_environment.clone(),
            host_gateways: config.host_gateways.clone(),
            remap: config.remap.clone(),
        });
        containers.restore().await.context("could not find the containers again")?;
        Ok(Arc::new(Self { config, id, file_system, events, images, puller, networks, volumes, containers }))
    }

    /// Stops what runs, each with its grace, unless it is to go on without an engine, and lets go of the networks.
    pub(crate) async fn shut_down(&self) {
        if !self.config.live_restore {
            self.containers.begin_ending();
            self.stop_containers().await;
        }
        self.containers.settle().await;
        self.networks.clone().close().await;
    }

    async fn stop_containers(&self) {
        let running = self.containers.all().into_iter().filter(|handle| handle.is_active());
        let stops = running.map(|handle| async move {
            if let Err(error) = handle.stop(&StopOptions::default()).await {
                warn!(id = handle.short_id(), %error, "could not stop a container");
            }
        });
        join_all(stops).await;
    }
}

/// Opens the images. An engine before this one that was killed may have them for a moment longer: by a helper that it was about to start,
/// which has its descriptors until it is a program of its own.
async fn open_images(root: &Path) -> Result<Store, OpenError> {
    let give_up = Instant::now() + LETS_GO_WITHIN;
    loop {
        match Store::open(root) {
            Err(OpenError::InUse(_)) if Instant::now() < give_up => tokio::time::sleep(ASKS_AGAIN).await,
            other => return other,
        }
    }
}

/// Makes a directory that only root may enter, with its parents.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = std::fs::create_dir_all(directory).and_then(|()| {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o710))
    });
    made.with_context(|| format!("could not make {}", directory.display()))
}
