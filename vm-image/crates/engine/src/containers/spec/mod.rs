//! From what a container was made to be to the OCI spec of a run.
//!
//! The pieces that every Docker container has are `caisson_runtime::defaults`; here they are put together with what this
//! container's configuration says. What cannot be honoured was refused when the container was made (`super::validate`).

mod limits;
mod mounts;
pub(super) mod rights;

use std::path::PathBuf;

use caisson_networks::Sandbox;
use caisson_runtime::defaults;
use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder as ConsoleSizeBuilder, Linux, LinuxNamespace, LinuxNamespaceType,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};

use super::record::{Definition, Directory};
use crate::error::ApiError;

/// The spec of a run of this container.
pub(crate) fn compose(
    definition: &Definition,
    directory: &Directory,
    sandbox: &Sandbox,
) -> Result<Spec, ApiError> {
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(definition.host_config.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_root(Some(root))
        .set_process(Some(process(definition)?))
        .set_mounts(Some(mounts::compose(definition, directory)?))
        .set_linux(Some(linux(definition, sandbox)?));
    if definition.host_config.uts_mode != "host" {
        spec.set_hostname(Some(definition.config.hostname.clone()));
        let domain = &definition.config.domainname;
        spec.set_domainname((!domain.is_empty()).then(|| domain.clone()));
    } else {
        spec.set_hostname(None);
    }
    Ok(spec)
}

fn process(definition: &Definition) -> Result<Process, ApiError> {
    let (config, host) = (&definition.config, &definition.host_config);
    let mut process = Process::default();
    let args = std::iter::once(&definition.path).chain(&definition.args).cloned().collect();
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let (capabilities, no_new_privileges) = (rights::capabilities(host)?, rights::no_new_privileges(host)?);
    process
        .set_terminal(Some(config.tty))
        .set_console_size(console_size(host.console_size))
        .set_user(User::default())
        .set_args(Some(args))
        .set_env(Some(environment(definition)))
        .set_cwd(PathBuf::from(cwd))
        .set_capabilities(Some(defaults::capability_sets(&capabilities, true)))
        .set_rlimits(Some(rlimits(definition)?))
        .set_no_new_privileges(Some(no_new_privileges))
        .set_oom_score_adj(Some(host.oom_score_adj));
    Ok(process)
}

fn console_size([height, width]: [u32; 2]) -> Option<ConsoleSize> {
    if height == 0 && width == 0 {
        return None;
    }
    let size = ConsoleSizeBuilder::default().height(height).width(width).build();
    Some(size.expect("both fields are set"))
}

/// dockerd's: `PATH` first, `HOSTNAME`, `TERM` with a terminal, then what the user gave, which wins. (The shim knows `HOME`.)
fn environment(definition: &Definition) -> Vec<String> {
    let config = &definition.config;
    let mut entries = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        entries.push("TERM=xterm".into());
    }
    for entry in config.env.iter().flatten() {
        let (name, value) = entry.split_once('=').map_or((entry.as_str(), None), |(n, v)| (n, Some(v)));
        entries.retain(|known| known.split('=').next() != Some(name));
        // A name without a value takes the variable away, as `docker run -e PATH` of an unset one does.
        if value.is_some() {
            entries.push(entry.clone());
        }
    }
    entries
}

fn rlimits(definition: &Definition) -> Result<Vec<PosixRlimit>, ApiError> {
    let mut limits = Vec::new();
    for ulimit in definition.host_config.ulimits.iter().flatten() {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let kind: PosixRlimitType = serde_json::from_value(name.into())
            .map_err(|_| ApiError::invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
        let unlimited = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
        let limit =
            PosixRlimitBuilder::default().typ(kind).hard(unlimited(ulimit.hard)).soft(unlimited(ulimit.soft));
        limits.push(limit.build().expect("all fields are set"));
    }
    Ok(limits)
}

fn linux(definition: &Definition, sandbox: &Sandbox) -> Result<Linux, ApiError> {
    let host = &definition.host_config;
    let capabilities = rights::capabilities(host)?;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(definition, sandbox)))
        .set_cgroups_path(Some(cgroup_path(definition)))
        .set_resources(Some(limits::resources(host)))
        .set_seccomp(rights::seccomp(host, &capabilities)?)
        .set_masked_paths(Some(host.masked_paths.clone().unwrap_or_default()))
        .set_readonly_paths(Some(host.readonly_paths.clone().unwrap_or_default()))
        .set_rootfs_propagation(mounts::root_propagation(definition))
        .set_sysctl(host.sysctls.clone().map(|map| map.into_iter().collect()))
        .set_devices(None);
    Ok(linux)
}

/// The container's cgroup, below the root of them.
pub(super) fn cgroup_path(definition: &Definition) -> PathBuf {
    let parent = match definition.host_config.cgroup_parent.trim_start_matches('/') {
        "" => "caisson",
        parent => parent,
    };
    PathBuf::from("/").join(parent).join(&definition.id)
}

/// A private one of each kind, but for those that the configuration shares with the host.
fn namespaces(definition: &Definition, sandbox: &Sandbox) -> Vec<LinuxNamespace> {
    let host = &definition.host_config;
    let own = |kind: LinuxNamespaceType, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let mut all = vec![own(LinuxNamespaceType::Mount, None)];
    if let Some(netns) = &sandbox.netns {
        all.push(own(LinuxNamespaceType::Network, Some(netns.clone())));
    }
    for (kind, mode) in [
        (LinuxNamespaceType::Uts, &host.uts_mode),
        (LinuxNamespaceType::Pid, &host.pid_mode),
        (LinuxNamespaceType::Ipc, &host.ipc_mode),
        (LinuxNamespaceType::Cgroup, &host.cgroupns_mode),
    ] {
        if mode != "host" {
            all.push(own(kind, None));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::{Config, HostConfig, Strings, Ulimit};
    use caisson_docker_api::time::Timestamp;

    use super::*;

    pub(super) fn definition(config: Config, host_config: HostConfig) -> Definition {
        Definition {
            id: "1".repeat(64),
            name: "web".into(),
            created: Timestamp::ZERO,
            image: String::new(),
            config,
            host_config,
            mounts: Vec::new(),
            path: "sh".into(),
            args: vec!["-c".into()],
        }
    }

    fn spec(config: Config, host_config: HostConfig) -> Spec {
        let sandbox = Sandbox {
            container: String::new(),
            netns: Some("/run/netns/x".into()),
            endpoints: Vec::new(),
            published: Vec::new(),
        };
        let directory = Directory::new("/d".as_ref(), "c");
        compose(&definition(config, host_config), &directory, &sandbox).unwrap()
    }

    #[test]
    fn the_environment_is_what_dockerd_makes_of_it() {
        let env = Some(vec!["A=1".into(), "PATH=/bin".into(), "HOSTNAME".into()]);
        let config = Config { env, hostname: "box".into(), tty: true, ..Config::default() };
        assert_eq!(
            environment(&definition(config, HostConfig::default())),
            ["TERM=xterm", "A=1", "PATH=/bin"]
        );
    }

    #[test]
    fn namespaces_are_the_container_s_unless_shared() {
        let kinds = |host: HostConfig| {
            let spec = spec(Config::default(), host);
            let linux = spec.linux().clone().unwrap();
            let all = linux.namespaces().clone().unwrap();
            all.iter().map(|n| n.typ().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kinds(HostConfig::default()), "mnt net uts pid ipc cgroup");
        let host = HostConfig { pid_mode: "host".into(), ipc_mode: "host".into(), ..HostConfig::default() };
        assert_eq!(kinds(host), "mnt net uts cgroup");
    }

    #[test]
    fn the_process_is_what_was_asked_for() {
        let ulimits = Some(vec![Ulimit { name: "nofile".into(), hard: -1, soft: 64 }]);
        let cap_add = Some(Strings(vec!["NET_ADMIN".into()]));
        let host = HostConfig { ulimits, cap_add, console_size: [24, 80], ..HostConfig::default() };
        let spec = spec(Config { working_dir: "/srv".into(), ..Config::default() }, host);
        let process = spec.process().clone().unwrap();
        assert_eq!(process.args().clone().unwrap(), ["sh", "-c"]);
        assert_eq!(process.cwd(), std::path::Path::new("/srv"));
        assert_eq!(process.console_size().map(|s| (s.height(), s.width())), Some((24, 80)));
        let limit = &process.rlimits().as_ref().unwrap()[0];
        assert_eq!((limit.typ(), limit.hard(), limit.soft()), (PosixRlimitType::RlimitNofile, u64::MAX, 64));
    }
}
