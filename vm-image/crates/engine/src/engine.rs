//! The engine: its parts put together, top to bottom, and taken apart in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use caisson_images::Store;
use caisson_networks::{Networks, Publisher};
use futures_util::future::join_all;
use tracing::warn;

use crate::containers::stop::StopOptions;
use crate::containers::{Containers, Ground};
use crate::events::Events;
use crate::system;

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
}

/// All that answers clients.
pub(crate) struct Engine {
    pub(crate) config: EngineConfig,
    /// Names this engine for good, in `/info`.
    pub(crate) id: String,
    pub(crate) events: Arc<Events>,
    pub(crate) images: Store,
    pub(crate) networks: Networks,
    pub(crate) containers: Containers,
}

impl Engine {
    /// Opens what is there, or makes it, and finds the containers that an engine before this one has left.
    pub(crate) async fn open(config: EngineConfig) -> anyhow::Result<Arc<Self>> {
        let (containers, shims) = (config.data_root.join("containers"), config.exec_root.join("shims"));
        for directory in [&containers, &shims] {
            make_private(directory)?;
        }
        let id = system::engine_id(&config.data_root).context("could not read or write the engine's id")?;
        let base_layer = config.data_root.join("base-layer");
        system::make_base_layer(&base_layer).context("could not make the layer below all containers")?;
        let images = Store::open(config.data_root.join("images")).context("could not open the images")?;
        let publisher = match &config.ports_socket {
            Some(socket) => Publisher::External(socket.clone()),
            None => Publisher::Native,
        };
        let networks =
            Networks::open(&config.data_root.join("networks"), &config.exec_root.join("networks"), publisher)
                .await
                .context("could not open the networks")?;
        let events = Arc::<Events>::default();
        let containers = Containers::new(Ground {
            containers,
            shims,
            shim: config.shim.clone(),
            base_layer,
            images: images.clone(),
            networks: networks.clone(),
            events: events.clone(),
        });
        containers.restore().await.context("could not find the containers again")?;
        Ok(Arc::new(Self { config, id, events, images, networks, containers }))
    }

    /// Stops what runs, each with its grace, and lets go of the networks.
    pub(crate) async fn shut_down(&self) {
        let running = self.containers.all().into_iter().filter(|handle| handle.is_running());
        let stops = running.map(|handle| async move {
            if let Err(error) = handle.stop(&StopOptions::default()).await {
                warn!(id = handle.definition.short_id(), %error, "could not stop a container");
            }
        });
        join_all(stops).await;
        self.containers.settle().await;
        self.networks.clone().close().await;
    }
}

/// Makes a directory that only root may enter, with its parents.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = std::fs::create_dir_all(directory).and_then(|()| {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o710))
    });
    made.with_context(|| format!("could not make {}", directory.display()))
}
