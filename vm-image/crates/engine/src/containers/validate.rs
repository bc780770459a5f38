//! What is asked of a new container: refused in dockerd's words where dockerd refuses it, and by name where this version
//! of the engine cannot do it. Nothing that is asked for is dropped without a word.

mod modes;
pub(super) mod resources;
#[cfg(test)]
mod tests;

use caisson_docker_api::container::{Config, HostConfig, RestartPolicy};

use super::mounts::parse;
use super::signal::SignalNumber;
use super::support::Support;
use super::{health, logs, ports, spec};
use crate::error::ApiError;

pub(super) use modes::shared_with;

/// Checks all of it, and takes limits back that this kernel cannot hold. Returns what the user is to be told.
pub(super) fn check(
    config: &Config,
    host: &mut HostConfig,
    support: &Support,
) -> Result<Vec<String>, ApiError> {
    modes::check_while_reading(config, host)?;
    resources::check_while_reading(host, support)?;
    check_config(config)?;
    check_host_config(host)?;
    let warnings = resources::settle(host, support, resources::For::Create)?;
    modes::check(host)?;
    check_rest(host)?;
    spec::rights::SecurityOptions::parse(host)?;
    ports::bindings(config, host)?;
    parse::check(host)?;
    check_supported(host)?;
    Ok(warnings)
}

fn check_config(config: &Config) -> Result<(), ApiError> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(ApiError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if let Some(bad) = config.env.iter().flatten().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(ApiError::invalid(format!("invalid environment variable: {bad}")));
    }
    if !config.stop_signal.is_empty() {
        SignalNumber::parse(&config.stop_signal)?;
    }
    if let Some(health) = &config.healthcheck {
        health::validate(health).map_err(ApiError::invalid)?;
    }
    if config.hostname.len() > 64 {
        return Err(ApiError::invalid(format!(
            "hostname {:?} is too long (maximum 64 bytes)",
            config.hostname
        )));
    }
    Ok(())
}

fn check_host_config(host: &HostConfig) -> Result<(), ApiError> {
    let policy = &host.restart_policy;
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(ApiError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for extra in host.extra_hosts.iter().flatten() {
        // Addresses of IPv6 have colons of their own.
        let (name, address) = extra.split_once(':').unwrap_or_default();
        if name.is_empty() {
            return Err(ApiError::invalid(format!("bad format for add-host: {extra:?}")));
        }
        if address != "host-gateway" && address.trim().parse::<std::net::IpAddr>().is_err() {
            return Err(ApiError::invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    check_restart_policy(policy)?;
    spec::rights::capabilities(host)?;
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(ApiError::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    Ok(())
}

/// The policy's name and count.
pub(super) fn check_restart_policy(policy: &RestartPolicy) -> Result<(), ApiError> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            let mut why = "maximum retry count can only be used with 'on-failure'".to_owned();
            if policy.maximum_retry_count < 0 {
                why.push_str(" and cannot be negative");
            }
            return Err(ApiError::invalid(format!("invalid restart policy: {why}")));
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            return Err(ApiError::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    Ok(())
}

/// What moby checks after the limits, and the log driver.
fn check_rest(host: &HostConfig) -> Result<(), ApiError> {
    if host.shm_size < 0 {
        return Err(ApiError::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(ApiError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    logs::driver::check(&host.log_config)?;
    match host.runtime.as_str() {
        "" | "runc" | "io.containerd.runc.v2" | "caisson" => Ok(()),
        other => Err(ApiError::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
}

fn unsupported(what: &str) -> ApiError {
    ApiError::not_implemented(format!("{what} is not supported by this version of Caisson"))
}

fn check_supported(host: &HostConfig) -> Result<(), ApiError> {
    if !host.cgroup.is_empty() {
        return Err(unsupported("Cgroup"));
    }
    Ok(())
}
