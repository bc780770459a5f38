//! `/volumes`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `POST /volumes/create` asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// A volume of a swarm's; there is none.
    pub cluster_volume_spec: Option<Value>,
    /// The driver; empty for `local`.
    pub driver: String,
    /// The driver's options.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The name; empty for a random one.
    pub name: String,
}

/// One volume.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made, in RFC 3339, in whole seconds.
    pub created_at: String,
    /// Its driver.
    pub driver: String,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its directory.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// The driver's options.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// How much of it is used; only where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// How much of a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UsageData {
    /// By how many containers, running or not; -1 if that is not known.
    pub ref_count: i64,
    /// How many bytes; -1 if that is not known.
    pub size: i64,
}

/// The answer of `GET /volumes`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListResponse {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// What could not be listed.
    pub warnings: Option<Vec<String>>,
}

/// The answer of `POST /volumes/prune`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PruneReport {
    /// The names of those that are gone.
    pub volumes_deleted: Vec<String>,
    /// The bytes that were in them.
    pub space_reclaimed: u64,
}
