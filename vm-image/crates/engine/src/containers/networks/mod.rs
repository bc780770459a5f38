//! The networks of a container: what it asked for, what it has, and what others are told of both.
//!
//! What it asked for is part of its definition: a map of wishes by network. A start turns it into one request to the
//! networks ([`plan`]); `connect` and `disconnect` change it ([`change`]), and a running container's sandbox with it.

pub(crate) mod change;
mod check;
pub(super) mod names;
pub(super) mod plan;
pub(super) mod show;
pub(super) mod wishes;

use std::collections::BTreeMap;

use caisson_docker_api::network::EndpointSettings;

use crate::error::{ApiError, ErrorKind, chain};

/// What is asked of each network, by its name.
pub(super) type Wishes = BTreeMap<String, EndpointSettings>;

/// Docker's name of the network that a mode joins.
pub(super) fn network_of(mode: &str) -> &str {
    match mode {
        "" | "default" => "bridge",
        mode => mode,
    }
}

/// Whether a mode names a network that users have made.
pub(super) fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// The kind that clients see of what went wrong with a network.
pub(crate) fn kind(kind: caisson_networks::ErrorKind) -> ErrorKind {
    match kind {
        caisson_networks::ErrorKind::NotFound => ErrorKind::NotFound,
        caisson_networks::ErrorKind::Invalid => ErrorKind::InvalidParameter,
        caisson_networks::ErrorKind::Conflict => ErrorKind::Conflict,
        caisson_networks::ErrorKind::Forbidden => ErrorKind::Forbidden,
        caisson_networks::ErrorKind::Internal => ErrorKind::Internal,
    }
}

pub(super) fn attach_error(error: &caisson_networks::AttachError) -> ApiError {
    ApiError::new(kind(error.kind()), chain(error))
}
