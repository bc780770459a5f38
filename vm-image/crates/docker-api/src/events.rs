//! `/events`: one JSON object an event, back to back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One event. `status`, `id` and `from` repeat the newer fields for containers and images, as dockerd does up to API 1.51.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The action again, for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The actor's id again, for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The container's image, for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// What kind of thing it happened to: `container`, `image`, `network`, `daemon` …
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Actor {
    /// Its id (an image's name where dockerd says that).
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, image, labels, exit code …
    pub attributes: BTreeMap<String, String>,
}
