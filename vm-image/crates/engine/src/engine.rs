//! The engine: its parts put together, top to bottom, and taken apart in order.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

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
    pub(crate) events: Events,
}

impl Engine {
    /// Opens what is there, or makes it.
    pub(crate) async fn open(config: EngineConfig) -> anyhow::Result<Arc<Self>> {
        for directory in [&config.data_root, &config.exec_root] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("could not make {}", directory.display()))?;
        }
        let id = system::engine_id(&config.data_root).context("could not read or write the engine's id")?;
        let events = Events::default();
        Ok(Arc::new(Self { config, id, events }))
    }

    /// Stops what runs and lets go of everything.
    pub(crate) async fn shut_down(&self) {}
}
