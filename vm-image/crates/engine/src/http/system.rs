//! `/_ping`, `/version`, `/info`.

use std::collections::BTreeMap;

use bytes::Bytes;
use caisson_docker_api::system::{
    Commit, Component, IndexConfig, Info, Platform, Plugins, RegistryConfig, Runtime, Version,
};
use caisson_docker_api::time::Timestamp;
use caisson_images::registry::Settings;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::call::Call;
use super::reply::{self, Reply, ReplyBody};
use super::version;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::system::{self, Host};

/// What `docker version` shows where dockerd names its compiler.
const GO_VERSION: &str = "none (written in Rust)";
/// The commit that this was built from, if whoever built it said so.
const COMMIT: &str = match option_env!("CAISSON_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The same commit is the same program whenever it is built, so there is no time to tell.
const BUILT: &str = "not recorded";

/// The drivers that networks can have, in dockerd's order.
const NETWORK_DRIVERS: [&str; 6] = ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"];

/// `GET /_ping`: alive, and what a client must know before it says anything else.
pub(crate) async fn ping(_call: Call) -> Result<Reply, ApiError> {
    Ok(pong(Some(Bytes::from_static(b"OK"))))
}

/// `HEAD /_ping`: the same without a body, and without its length.
pub(crate) async fn ping_head(_call: Call) -> Result<Reply, ApiError> {
    Ok(pong(None))
}

fn pong(body: Option<Bytes>) -> Reply {
    let mut reply = Reply::new(ReplyBody::Full(body));
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        reply::header(&mut reply, name, value);
    }
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

/// `GET /plugins`: this engine has none.
pub(crate) async fn plugins(_call: Call) -> Result<Reply, ApiError> {
    Ok(reply::json(StatusCode::OK, &[(); 0]))
}

/// `GET /version`.
pub(crate) async fn version(_call: Call) -> Result<Reply, ApiError> {
    let host = Host::probe();
    let details = [
        ("ApiVersion", version::NEWEST.to_string()),
        ("Arch", Host::go_arch().to_owned()),
        ("BuildTime", BUILT.to_owned()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", COMMIT.to_owned()),
        ("GoVersion", GO_VERSION.to_owned()),
        ("KernelVersion", host.kernel.clone()),
        ("MinAPIVersion", version::OLDEST.to_string()),
        ("Os", "linux".to_owned()),
    ];
    let engine = Component {
        name: "Engine".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        details: details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    };
    let answer = Version {
        platform: Platform { name: "Caisson".into() },
        components: vec![engine],
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: version::NEWEST.to_string(),
        min_api_version: version::OLDEST.to_string(),
        git_commit: COMMIT.into(),
        go_version: GO_VERSION.into(),
        os: "linux".into(),
        arch: Host::go_arch().into(),
        kernel_version: host.kernel,
        build_time: BUILT.into(),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// `GET /info`.
pub(crate) async fn info(call: Call) -> Result<Reply, ApiError> {
    let engine = call.engine.clone();
    let info = tokio::task::spawn_blocking(move || describe(&engine)).await;
    let info = info.map_err(|e| ApiError::from_chain("could not describe this system", &e))?;
    Ok(reply::json(StatusCode::OK, &info))
}

fn describe(engine: &Engine) -> Info {
    let host = Host::probe();
    let cpu = host.has("cpu");
    let memory = host.has("memory");
    let mut warnings = Vec::new();
    for (controller, warning) in [
        ("memory", "WARNING: No memory limit support"),
        ("cpu", "WARNING: No cpu cfs quota support"),
        ("pids", "WARNING: No pids limit support"),
    ] {
        if !host.has(controller) {
            warnings.push(warning.to_owned());
        }
    }
    let states: Vec<&str> = engine.containers.all().iter().map(|handle| handle.state().name()).collect();
    let count = |name: &str| states.iter().filter(|state| **state == name).count();
    let (running, paused) = (count("running"), count("paused"));
    // A file of them that cannot be read is a pull's to complain of.
    let proxies = engine.config.registries.proxies().unwrap_or_default();
    let settings = engine.config.registries.settings().unwrap_or_default();
    Info {
        id: engine.id.clone(),
        containers: states.len(),
        containers_running: running,
        containers_paused: paused,
        containers_stopped: states.len() - running - paused,
        images: engine.images.list().len(),
        driver: "overlay2".into(),
        driver_status: [
            ("Backing Filesystem", engine.file_system),
            ("Supports d_type", "true"),
            ("userxattr", "false"),
        ]
        .map(|(key, value)| [key.to_owned(), value.to_owned()])
        .into(),
        plugins: Plugins {
            volume: vec!["local".into()],
            network: NETWORK_DRIVERS.map(str::to_owned).into(),
            authorization: None,
            log: ["json-file", "local", "none"].map(str::to_owned).into(),
        },
        memory_limit: memory,
        swap_limit: memory,
        cpu_cfs_period: cpu,
        cpu_cfs_quota: cpu,
        cpu_shares: cpu,
        cpu_set: host.has("cpuset"),
        pids_limit: host.has("pids"),
        ipv4_forwarding: std::fs::read("/proc/sys/net/ipv4/ip_forward").is_ok_and(|v| v.starts_with(b"1")),
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        n_goroutines: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        system_time: Timestamp::now().to_string(),
        logging_driver: "json-file".into(),
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: "2".into(),
        n_events_listener: engine.events.listeners(),
        kernel_version: host.kernel,
        operating_system: host.operating_system,
        os_version: host.os_version,
        os_type: "linux".into(),
        architecture: host.machine,
        index_server_address: "https://index.docker.io/v1/".into(),
        ncpu: host.cpus,
        mem_total: host.memory,
        http_proxy: without_password(&proxies.http),
        https_proxy: without_password(&proxies.https),
        no_proxy: proxies.no_proxy,
        docker_root_dir: engine.config.data_root.display().to_string(),
        name: system::hostname(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        runtimes: BTreeMap::from([(
            "caisson".to_owned(),
            Runtime { path: engine.config.shim.display().to_string() },
        )]),
        default_runtime: "caisson".into(),
        registry_config: registries(&settings),
        live_restore_enabled: engine.config.live_restore,
        containerd_commit: Commit::default(),
        security_options: security_options(engine),
        warnings: (!warnings.is_empty()).then_some(warnings),
        ..Info::default()
    }
}

/// What the engine is told of registries, and what holds anyway.
fn registries(told: &Settings) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    let (networks, names): (Vec<_>, Vec<_>) =
        told.insecure.iter().cloned().partition(|one| one.contains('/'));
    config.insecure_registry_cidrs = networks.into_iter().chain(config.insecure_registry_cidrs).collect();
    config.index_configs.extend(names.into_iter().map(|name| {
        let insecure =
            IndexConfig { name: name.clone(), mirrors: Vec::new(), secure: false, official: false };
        (name, insecure)
    }));
    if !told.mirrors.is_empty() {
        let mirrors: Vec<String> =
            told.mirrors.iter().map(|mirror| format!("{}/", mirror.trim_end_matches('/'))).collect();
        config.mirrors = Some(mirrors.clone());
        config.index_configs.entry("docker.io".to_owned()).and_modify(|hub| hub.mirrors = mirrors);
    }
    config
}

fn security_options(engine: &Engine) -> Vec<String> {
    let users = engine.config.remap.as_ref().map(|_| "name=userns");
    ["name=seccomp,profile=builtin"]
        .into_iter()
        .chain(users)
        .chain(["name=cgroupns"])
        .map(str::to_owned)
        .collect()
}

/// A proxy for everybody to see, in dockerd's way: whoever it is that it is used by, and their password, are masked.
fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://xxxxx:xxxxx@{rest}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        for (url, shown) in [
            ("http://u:p@w@proxy:1", "http://xxxxx:xxxxx@proxy:1"),
            ("http://proxy:1", "http://proxy:1"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
