//! Which namespaces a container has of its own and which it shares: dockerd's rules for what goes together.

use caisson_docker_api::container::{Config, HostConfig};

use crate::error::ApiError;

/// The container that a mode shares with: `container:NAME`. An empty name is one, too.
pub(crate) fn shared_with(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// What moby refuses while it reads a request (`runconfig.validateNetMode`, `validateIsolation`).
pub(super) fn check_while_reading(config: &Config, host: &HostConfig) -> Result<(), ApiError> {
    if host.network_mode == "container" || shared_with(&host.network_mode).is_some() {
        check_shared_network(config, host)?;
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(ApiError::invalid("conflicting options: hostname and the UTS mode"));
    }
    if host.network_mode == "host" && some(&host.links) {
        return Err(ApiError::invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ));
    }
    if !is_default_isolation(&host.isolation) {
        return Err(ApiError::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    Ok(())
}

fn is_default_isolation(isolation: &str) -> bool {
    isolation.is_empty() || isolation.eq_ignore_ascii_case("default")
}

/// Who lives in another's network has nothing of his own there.
fn check_shared_network(config: &Config, host: &HostConfig) -> Result<(), ApiError> {
    let given = |list: &Option<Vec<String>>| some(list);
    let conflicts = [
        (
            shared_with(&host.network_mode).is_none_or(str::is_empty),
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (!config.hostname.is_empty(), "conflicting options: hostname and the network mode"),
        (
            given(&host.links),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        (given(&host.dns), "conflicting options: dns and the network mode"),
        (given(&host.extra_hosts), "conflicting options: custom host-to-IP mapping and the network mode"),
        (
            host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty()),
            "conflicting options: port exposing and the container type network mode",
        ),
    ];
    match conflicts.into_iter().find(|(conflict, _)| *conflict) {
        Some((_, why)) => Err(ApiError::invalid(why)),
        None => Ok(()),
    }
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// The modes' own names.
pub(super) fn check(host: &HostConfig) -> Result<(), ApiError> {
    let ipc = host.ipc_mode.as_str();
    if !matches!(ipc, "" | "none" | "private" | "shareable" | "host") && shared_with(ipc).is_none() {
        return Err(ApiError::invalid(format!("invalid IPC mode: {ipc}")));
    }
    let pid = host.pid_mode.as_str();
    if !matches!(pid, "" | "host") && shared_with(pid).is_none_or(str::is_empty) {
        return Err(ApiError::invalid(format!("invalid PID mode: {pid}")));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(ApiError::invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    // dockerd takes any word but `host` for a namespace of the container's own; a typo is told here.
    if !matches!(host.userns_mode.as_str(), "" | "host" | "private") {
        return Err(ApiError::invalid(format!("invalid user namespace mode: {}", host.userns_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(ApiError::invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    Ok(())
}
