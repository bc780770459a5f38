//! `/containers`: what a container is asked to be ([`Config`], [`HostConfig`]) and what is told of it.

mod config;
mod host_config;
mod inspect;
mod summary;

pub use config::{Config, HealthConfig, Strings};
pub use host_config::{
    BindOptions, DeviceMapping, DeviceRequest, HostConfig, LogConfig, Mount, PortBinding, PortMap,
    RestartPolicy, ThrottleDevice, TmpfsOptions, Ulimit, WeightDevice,
};
pub use inspect::{Container, GraphDriver, MountPoint, NetworkSettings, State};
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
