//! `/containers`: what a container is asked to be ([`Config`], [`HostConfig`]) and what is told of it.

mod archive;
mod config;
mod host_config;
mod inspect;
mod stats;
mod summary;

pub use archive::{Change, ChangeKind, CommitResponse, PathStat};
pub use config::{Config, HealthConfig, Strings};
pub use host_config::{
    BindOptions, DeviceMapping, DeviceRequest, HostConfig, ImageOptions, LogConfig, Mount, PortBinding,
    PortMap, RestartPolicy, ThrottleDevice, TmpfsOptions, Ulimit, VolumeDriver, VolumeOptions, WeightDevice,
};
pub use inspect::{Container, GraphDriver, Health, HealthResult, MountPoint, NetworkSettings, State};
pub use stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, StorageStats,
    ThrottlingData,
};
pub use summary::{Port, Summary, SummaryHostConfig, SummaryNetworks};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::network::EndpointSettings;

/// What `POST /containers/create` says beside the [`Config`], which is spread over the same object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// How it runs here.
    pub host_config: Option<HostConfig>,
    /// The networks it joins.
    pub networking_config: Option<NetworkingConfig>,
}

/// The networks that a new container joins.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    /// By network name; `null` is the same as no wishes.
    pub endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

/// The answer of `POST /containers/create`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// The new container's id.
    pub id: String,
    /// What will not be as asked.
    pub warnings: Vec<String>,
}

/// The answer of `POST /containers/{id}/update`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Updated {
    /// What will not be as asked; `null` for nothing.
    pub warnings: Option<Vec<String>>,
}

/// The answer of `POST /containers/prune`.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PruneReport {
    /// The ids of those that were removed; `null` for none.
    pub containers_deleted: Option<Vec<String>>,
    /// What their own layers took, in bytes.
    pub space_reclaimed: u64,
}

/// The answer of `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Waited {
    /// The exit code.
    pub status_code: i64,
    /// Why waiting itself failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

/// Why waiting failed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WaitError {
    /// For a person.
    pub message: String,
}

/// The answer of `GET /containers/{id}/top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Top {
    /// A row a process: what stands in each column.
    pub processes: Vec<Vec<String>>,
    /// The columns.
    pub titles: Vec<String>,
}
