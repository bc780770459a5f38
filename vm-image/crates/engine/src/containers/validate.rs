//! What is asked of a new container: refused in dockerd's words where dockerd refuses it, and by name where this version
//! of the engine cannot do it. Nothing that is asked for is dropped without a word.

use std::collections::BTreeMap;

use caisson_docker_api::container::{Config, HostConfig, NetworkingConfig};

use super::mounts::volumes_are_not_here;
use super::signal::SignalNumber;
use super::{ports, spec};
use crate::error::ApiError;

/// The least memory that a container can run in, in bytes.
const MIN_MEMORY: i64 = 6 << 20;

/// Checks all of it.
pub(super) fn check(
    config: &Config,
    host: &HostConfig,
    networking: &NetworkingConfig,
) -> Result<(), ApiError> {
    check_config(config)?;
    check_host_config(host)?;
    check_resources(host)?;
    spec::rights::SecurityOptions::parse(host)?;
    spec::rights::capabilities(host)?;
    ports::bindings(config, host)?;
    check_supported(config, host)?;
    check_networking(networking)
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
    if config.hostname.len() > 64 {
        return Err(ApiError::invalid(format!(
            "invalid hostname: {:?} is longer than 64 bytes",
            config.hostname
        )));
    }
    Ok(())
}

fn check_host_config(host: &HostConfig) -> Result<(), ApiError> {
    let policy = &host.restart_policy;
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
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(ApiError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for extra in host.extra_hosts.iter().flatten() {
        let parts = extra.split_once(['=', ':']);
        let (name, address) =
            parts.ok_or_else(|| ApiError::invalid(format!("bad format for add-host: {extra:?}")))?;
        let plain = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() {
            return Err(ApiError::invalid(format!("bad format for add-host: {extra:?}")));
        }
        if address != "host-gateway" && plain.parse::<std::net::IpAddr>().is_err() {
            return Err(ApiError::invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    check_mode("IPC", &host.ipc_mode, &["private", "shareable", "none", "host"])?;
    check_mode("PID", &host.pid_mode, &["host"])?;
    check_mode("UTS", &host.uts_mode, &["host"])?;
    check_mode("user namespace", &host.userns_mode, &["host"])?;
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(ApiError::invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    match host.log_config.kind.as_str() {
        "" | "json-file" | "none" => {}
        other => {
            return Err(ApiError::invalid(format!(
                "error looking up logging plugin {other}: plugin {other:?} not found"
            )));
        }
    }
    match host.runtime.as_str() {
        "" | "runc" | "io.containerd.runc.v2" | "caisson" => Ok(()),
        other => Err(ApiError::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
}

fn check_mode(what: &str, mode: &str, known: &[&str]) -> Result<(), ApiError> {
    if mode.is_empty() || known.contains(&mode) {
        return Ok(());
    }
    if mode.starts_with("container:") {
        return Err(unsupported(&format!("{what} mode {mode:?}")));
    }
    Err(ApiError::invalid(format!("invalid {what} mode: {mode}")))
}

fn check_resources(host: &HostConfig) -> Result<(), ApiError> {
    if host.shm_size < 0 {
        return Err(ApiError::invalid("SHM size can not be less than 0"));
    }
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return Err(ApiError::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(ApiError::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return Err(ApiError::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(ApiError::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        return Err(ApiError::invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > limit {
        return Err(ApiError::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(ApiError::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(ApiError::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(ApiError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    Ok(())
}

fn unsupported(what: &str) -> ApiError {
    ApiError::not_implemented(format!("{what} is not supported by this version of Caisson"))
}

fn check_supported(config: &Config, host: &HostConfig) -> Result<(), ApiError> {
    if let Some((path, _)) = config.volumes.iter().flatten().next() {
        return Err(volumes_are_not_here(path));
    }
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    fn any<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    let full = |map: &Option<BTreeMap<String, String>>| map.as_ref().is_some_and(|map| !map.is_empty());
    let asked_for_health = config.healthcheck.as_ref().and_then(|health| health.test.as_ref());
    let wishes = [
        (
            "Healthcheck",
            asked_for_health
                .is_some_and(|test| !matches!(test.first().map(String::as_str), None | Some("NONE"))),
        ),
        ("MacAddress", !config.mac_address.is_empty()),
        ("VolumesFrom", some(&host.volumes_from)),
        ("VolumeDriver", !matches!(host.volume_driver.as_str(), "" | "local")),
        ("Links", some(&host.links)),
        ("Cgroup", !host.cgroup.is_empty()),
        ("StorageOpt", full(&host.storage_opt)),
        ("Annotations", full(&host.annotations)),
        ("Init", host.init == Some(true)),
        ("Isolation", !matches!(host.isolation.as_str(), "" | "default")),
        ("LogConfig.Config", full(&host.log_config.config)),
        ("Devices", any(&host.devices)),
        ("DeviceCgroupRules", some(&host.device_cgroup_rules)),
        ("DeviceRequests", any(&host.device_requests)),
        ("BlkioWeight", host.blkio_weight != 0),
        ("BlkioWeightDevice", any(&host.blkio_weight_device)),
        ("BlkioDeviceReadBps", any(&host.blkio_device_read_bps)),
        ("BlkioDeviceWriteBps", any(&host.blkio_device_write_bps)),
        ("BlkioDeviceReadIOps", any(&host.blkio_device_read_iops)),
        ("BlkioDeviceWriteIOps", any(&host.blkio_device_write_iops)),
        ("CpuRealtimePeriod", host.cpu_realtime_period != 0),
        ("CpuRealtimeRuntime", host.cpu_realtime_runtime != 0),
        ("KernelMemory", host.kernel_memory != 0),
        ("KernelMemoryTCP", host.kernel_memory_tcp != 0),
        ("MemorySwappiness", host.memory_swappiness.is_some_and(|n| n != -1)),
        ("OomKillDisable", host.oom_kill_disable == Some(true)),
        ("CpuCount", host.cpu_count != 0),
        ("CpuPercent", host.cpu_percent != 0),
        ("IOMaximumIOps", host.io_maximum_iops != 0),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth != 0),
    ];
    if let Some((name, _)) = wishes.iter().find(|(_, wished)| *wished) {
        return Err(unsupported(name));
    }
    match host.network_mode.as_str() {
        mode if mode.starts_with("container:") => Err(unsupported(&format!("network mode {mode:?}"))),
        _ => Ok(()),
    }
}

/// What is kept of a new container and not acted on by this version: its user is told so.
pub(super) fn warnings(config: &Config, host: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if !matches!(host.restart_policy.name.as_str(), "" | "no") {
        warnings.push(format!(
            "Restart policy '{}' is kept, but this version of Caisson does not restart containers by itself",
            host.restart_policy.name
        ));
    }
    let volumes: Vec<&str> = config.volumes.iter().flatten().map(|(path, _)| path.as_str()).collect();
    if !volumes.is_empty() {
        warnings.push(format!(
            "The image's volumes ({}) are kept in the container itself: this version of Caisson has no volumes",
            volumes.join(", ")
        ));
    }
    let health = config.healthcheck.as_ref().and_then(|health| health.test.as_ref()?.first());
    if health.is_some_and(|kind| kind != "NONE") {
        warnings.push("The image's health check is not run by this version of Caisson".into());
    }
    warnings
}

/// The networks of this version have no wishes to grant.
fn check_networking(networking: &NetworkingConfig) -> Result<(), ApiError> {
    for (network, endpoint) in networking.endpoints_config.iter().flatten() {
        let Some(endpoint) = endpoint else { continue };
        let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let wishes = [
            (
                "IPAMConfig",
                endpoint.ipam_config.as_ref().is_some_and(|v| v.as_object().is_some_and(|o| !o.is_empty())),
            ),
            ("Links", some(&endpoint.links)),
            ("Aliases", some(&endpoint.aliases)),
            ("MacAddress", !endpoint.mac_address.is_empty()),
            ("DriverOpts", endpoint.driver_opts.as_ref().is_some_and(|opts| !opts.is_empty())),
        ];
        if let Some((name, _)) = wishes.iter().find(|(_, wished)| *wished) {
            return Err(unsupported(&format!("{name} of network {network}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::go;
    use serde_json::{Value, json};

    use super::*;
    use crate::error::ErrorKind;

    fn refusal(config: Value, host: Value) -> ApiError {
        let (config, host) = (go::decode(&config).unwrap(), go::decode(&host).unwrap());
        check(&config, &host, &NetworkingConfig::default()).unwrap_err()
    }

    #[test]
    fn what_the_cli_always_sends_is_accepted() {
        let host = json!({
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
            "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0],
            "Dns": [], "BlkioDeviceReadBps": [], "Devices": [], "MemorySwappiness": -1, "OomKillDisable": false,
            "PidsLimit": 0, "Ulimits": [], "MaskedPaths": null, "Isolation": "", "VolumeDriver": ""
        });
        let config =
            json!({"Image": "busybox", "Volumes": {}, "Healthcheck": null, "Labels": {}, "OnBuild": null});
        let (config, host) = (go::decode(&config).unwrap(), go::decode(&host).unwrap());
        assert_eq!(check(&config, &host, &NetworkingConfig::default()), Ok(()));
    }

    #[test]
    fn mistakes_get_dockerd_s_words() {
        for (host, message) in [
            (
                json!({"RestartPolicy": {"Name": "foo"}}),
                "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            ),
            (
                json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}),
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ),
            (
                json!({"AutoRemove": true, "RestartPolicy": {"Name": "always"}}),
                "can't create 'AutoRemove' container with restart policy",
            ),
            (
                json!({"LogConfig": {"Type": "foo"}}),
                "error looking up logging plugin foo: plugin \"foo\" not found",
            ),
            (json!({"Memory": 100}), "Minimum memory limit allowed is 6MB"),
            (json!({"IpcMode": "foo"}), "invalid IPC mode: foo"),
            (json!({"Runtime": "foo"}), "unknown or invalid runtime name: foo"),
            (json!({"ShmSize": -1}), "SHM size can not be less than 0"),
            (json!({"ExtraHosts": ["foo"]}), "bad format for add-host: \"foo\""),
        ] {
            assert_eq!(refusal(json!({}), host), ApiError::invalid(message));
        }
        for (config, message) in [
            (
                json!({"WorkingDir": "rel"}),
                "the working directory 'rel' is invalid, it needs to be an absolute path",
            ),
            (json!({"Env": ["=x"]}), "invalid environment variable: =x"),
            (json!({"StopSignal": "FOO"}), "invalid signal: FOO"),
        ] {
            assert_eq!(refusal(config, json!({})), ApiError::invalid(message));
        }
    }

    #[test]
    fn what_is_not_acted_on_is_told() {
        let told = |config: Value, host: Value| {
            warnings(&go::decode(&config).unwrap(), &go::decode(&host).unwrap()).join("\n")
        };
        assert_eq!(told(json!({}), json!({"RestartPolicy": {"Name": "no"}})), "");
        assert!(told(json!({}), json!({"RestartPolicy": {"Name": "always"}})).contains("'always'"));
        assert!(told(json!({"Volumes": {"/data": {}}}), json!({})).contains("/data"));
        assert!(told(json!({"Healthcheck": {"Test": ["CMD", "x"]}}), json!({})).contains("health check"));
    }

    #[test]
    fn what_cannot_be_done_yet_is_refused_by_name() {
        for (config, host, name) in [
            (json!({}), json!({"Devices": [{"PathOnHost": "/dev/fuse"}]}), "Devices"),
            (json!({}), json!({"Init": true}), "Init"),
            (json!({}), json!({"NetworkMode": "container:x"}), "network mode \"container:x\""),
            (json!({"Healthcheck": {"Test": ["CMD", "x"]}}), json!({}), "Healthcheck"),
            (json!({"Volumes": {"/data": {}}}), json!({}), "volume \"/data\": volumes"),
        ] {
            let refusal = refusal(config, host);
            assert_eq!(refusal.kind, ErrorKind::NotImplemented);
            assert!(refusal.message.starts_with(name), "{}", refusal.message);
        }
    }
}
