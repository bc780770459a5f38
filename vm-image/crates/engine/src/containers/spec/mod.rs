//! From what a container was made to be to the OCI spec of a run.
//!
//! The pieces that every Docker container has are `caisson_runtime::defaults`; here they are put together with what this
//! container's configuration says. What cannot be honoured was refused when the container was made (`super::validate`).

mod devices;
mod limits;
mod mounts;
pub(super) mod raw_sockets;
pub(super) use mounts::binds;
pub(super) mod rights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::HostConfig;
use caisson_networks::Sandbox;
use caisson_runtime::defaults;
use caisson_runtime::spec::Resources;
use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder as ConsoleSizeBuilder, Linux, LinuxNamespace, LinuxNamespaceType,
    LinuxSeccomp, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};

use super::exec::Wish;
use super::mounts::images::Layers;
use super::record::{Definition, Directory};
use super::shared::Shared;
use super::validate::shared_with;
use crate::error::ApiError;
use crate::remap::Remap;

/// Where our own init is in a container that has one, as dockerd names it.
const INIT: &str = "/sbin/docker-init";

/// What a run depends on besides the container itself.
pub(super) struct Around<'a> {
    pub(super) directory: &'a Directory,
    pub(super) sandbox: &'a Sandbox,
    /// Others' namespaces that it joins.
    pub(super) shared: &'a Shared,
    /// The program that is its init if it wants one.
    pub(super) init: &'a Path,
    /// Who its users are, if they are not the host's.
    pub(super) remap: Option<&'a Remap>,
    /// What the containers that it links to add to its environment.
    pub(super) linked: &'a [String],
    /// The layers of the images that it has mounted.
    pub(super) images: &'a Layers,
    /// Which of its volumes hold files of this system's.
    pub(super) foreign: &'a [String],
}

/// The spec of a run of this container.
pub(super) fn compose(definition: &Definition, around: &Around<'_>) -> Result<Spec, ApiError> {
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(definition.host_config.readonly_rootfs));
    let mapped = around.remap.map(|_| around.foreign);
    let mut mounts = mounts::compose(definition, around.directory, around.images, mapped)?;
    if around.shared.shared_memory().is_some() {
        // It is the other container's; one that the user has put there stays.
        mounts.retain(|mount| mount.source().as_deref() != Some(Path::new("shm")));
    }
    if has_writable_cgroups(definition)? {
        mounts.iter_mut().filter(|mount| mount.typ().as_deref() == Some("cgroup")).for_each(make_writable);
    }
    if has_init(definition) {
        mounts.push(init(around.init));
    }
    let mut spec = Spec::default();
    spec.set_root(Some(root))
        .set_process(Some(process(definition, around.linked)?))
        .set_mounts(Some(mounts))
        .set_annotations(definition.host_config.annotations.clone().map(|map| map.into_iter().collect()))
        .set_linux(Some(linux(definition, around)?));
    if definition.host_config.uts_mode != "host" {
        spec.set_hostname(Some(definition.config.hostname.clone()));
        let domain = &definition.config.domainname;
        spec.set_domainname((!domain.is_empty()).then(|| domain.clone()));
    } else {
        spec.set_hostname(None);
    }
    Ok(spec)
}

/// Whether the container's program is looked after by an init of ours: one that has a pid namespace of its own.
fn has_init(definition: &Definition) -> bool {
    let host = &definition.host_config;
    host.init == Some(true) && host.pid_mode.is_empty()
}

fn init(program: &Path) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(INIT.into())
        .set_typ(Some("bind".into()))
        .set_source(Some(program.to_owned()))
        .set_options(Some(vec!["bind".into(), "ro".into()]));
    mount
}

fn has_writable_cgroups(definition: &Definition) -> Result<bool, ApiError> {
    let host = &definition.host_config;
    Ok(rights::SecurityOptions::parse(host)?.writable_cgroups.unwrap_or(host.privileged))
}

fn make_writable(mount: &mut Mount) {
    let options = mount.options().iter().flatten().filter(|option| *option != "ro").cloned().collect();
    mount.set_options(Some(options));
}

/// `linked` is what the containers give that it links to.
fn process(definition: &Definition, linked: &[String]) -> Result<Process, ApiError> {
    let (config, host) = (&definition.config, &definition.host_config);
    let mut process = Process::default();
    let own = std::iter::once(&definition.path).chain(&definition.args).cloned();
    let args = if has_init(definition) {
        [INIT.to_owned(), "--".to_owned()].into_iter().chain(own).collect()
    } else {
        own.collect()
    };
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let (capabilities, no_new_privileges) = (rights::capabilities(host)?, rights::no_new_privileges(host)?);
    process
        .set_terminal(Some(config.tty))
        .set_console_size(console_size(host.console_size))
        .set_user(User::default())
        .set_args(Some(args))
        .set_env(Some(environment(definition, config.tty, linked, &[])))
        .set_cwd(PathBuf::from(cwd))
        .set_capabilities(Some(defaults::capability_sets(&capabilities, true)))
        .set_rlimits(Some(rlimits(definition)?))
        .set_no_new_privileges(Some(no_new_privileges))
        .set_oom_score_adj(Some(host.oom_score_adj));
    Ok(process)
}

/// The process of the container, changed to one that is added to it.
pub(super) fn added_process(
    definition: &Definition,
    linked: &[String],
    wish: &Wish,
) -> Result<Process, ApiError> {
    let mut added = process(definition, linked)?;
    let cwd = if wish.working_dir.is_empty() { "/" } else { &wish.working_dir };
    added
        .set_terminal(Some(wish.tty))
        .set_console_size(wish.console_size.and_then(console_size))
        .set_args(Some(wish.command.clone()))
        .set_env(Some(environment(definition, wish.tty, linked, &wish.env)))
        .set_cwd(PathBuf::from(cwd));
    if wish.privileged {
        added.set_capabilities(Some(defaults::capability_sets(&rights::everything()?, true)));
    }
    Ok(added)
}

/// The filter of a process that is added, where it is not the container's: a privileged one, such as `tcpdump` in a container that
/// misbehaves, may make raw sockets.
pub(super) fn added_filter(definition: &Definition, wish: &Wish) -> Result<Option<LinuxSeccomp>, ApiError> {
    if !wish.privileged || definition.raw_sockets {
        return Ok(None);
    }
    let host = &definition.host_config;
    rights::seccomp(host, &rights::capabilities(host)?, true)
}

fn console_size([height, width]: [u32; 2]) -> Option<ConsoleSize> {
    if height == 0 && width == 0 {
        return None;
    }
    let size = ConsoleSizeBuilder::default().height(height).width(width).build();
    Some(size.expect("both fields are set"))
}

/// dockerd's: `PATH` first, `HOSTNAME`, `TERM` with a terminal, what links give, then what the user gave, which wins. (The
/// shim knows `HOME`.)
fn environment(definition: &Definition, terminal: bool, linked: &[String], more: &[String]) -> Vec<String> {
    let config = &definition.config;
    let mut entries = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={}", config.hostname)];
    if terminal {
        entries.push("TERM=xterm".into());
    }
    entries.extend_from_slice(linked);
    for entry in config.env.iter().flatten().chain(more) {
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

fn linux(definition: &Definition, around: &Around<'_>) -> Result<Linux, ApiError> {
    let host = &definition.host_config;
    let capabilities = rights::capabilities(host)?;
    let devices = devices::of(host)?;
    let mut resources = limits::resources(host)?;
    resources.set_devices(Some(devices.rules));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(definition, around)?))
        .set_cgroups_path(Some(cgroup_path(definition)))
        .set_resources(Some(resources))
        .set_seccomp(rights::seccomp(host, &capabilities, definition.raw_sockets)?)
        .set_masked_paths(Some(host.masked_paths.clone().unwrap_or_default()))
        .set_readonly_paths(Some(host.readonly_paths.clone().unwrap_or_default()))
        .set_rootfs_propagation(mounts::root_propagation(definition))
        .set_sysctl(Some(parameters(definition, around.remap.is_some())))
        .set_devices(Some(devices.nodes));
    if let Some(remap) = around.remap {
        let (users, groups) = remap.mappings();
        linux.set_uid_mappings(Some(users)).set_gid_mappings(Some(groups));
    }
    Ok(linux)
}

/// Kernel parameters: dockerd's for a network of one's own, by which ping and low ports need no rights; then the user's. A range of groups
/// that a user namespace has not could not be set there.
fn parameters(definition: &Definition, remapped: bool) -> HashMap<String, String> {
    const PING: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");
    const LOW_PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");
    let host = &definition.host_config;
    let mut all = HashMap::new();
    if host.network_mode != "host" && shared_with(&host.network_mode).is_none() {
        let usual = [(!remapped).then_some(PING), Some(LOW_PORTS)];
        all.extend(usual.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    all.extend(host.sysctls.clone().unwrap_or_default());
    all
}

/// The limits of a container that runs, as the runtime takes them.
pub(super) fn running_resources(host: &HostConfig) -> Result<Resources, ApiError> {
    let resources = limits::resources(host)?;
    let read = serde_json::to_value(resources).and_then(serde_json::from_value);
    read.map_err(|error| ApiError::from_chain("limits", &error))
}

/// The container's cgroup, below the root of them.
pub(super) fn cgroup_path(definition: &Definition) -> PathBuf {
    let parent = match definition.host_config.cgroup_parent.trim_start_matches('/') {
        "" => "caisson",
        parent => parent,
    };
    PathBuf::from("/").join(parent).join(&definition.id)
}

/// A private one of each kind, but for those that the configuration shares with the host or another container.
///
/// # Errors
/// A network that is not there is never the host's, which would be what a spec without one means.
fn namespaces(definition: &Definition, around: &Around<'_>) -> Result<Vec<LinuxNamespace>, ApiError> {
    let host = &definition.host_config;
    let may_be_the_host_s = host.network_mode == "host" || shared_with(&host.network_mode).is_some();
    if around.sandbox.netns.is_none() && !may_be_the_host_s {
        return Err(ApiError::internal(format!("container {} has no network namespace", definition.id)));
    }
    let own = |kind: LinuxNamespaceType, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let mut all = vec![own(LinuxNamespaceType::Mount, None)];
    if let Some(netns) = &around.sandbox.netns {
        all.push(own(LinuxNamespaceType::Network, Some(netns.clone())));
    }
    for (kind, mode, joined) in [
        (LinuxNamespaceType::Uts, &host.uts_mode, None),
        (LinuxNamespaceType::Pid, &host.pid_mode, around.shared.pid_namespace()),
        (LinuxNamespaceType::Ipc, &host.ipc_mode, around.shared.ipc_namespace()),
        (LinuxNamespaceType::Cgroup, &host.cgroupns_mode, None),
    ] {
        if mode != "host" {
            all.push(own(kind, joined));
        }
    }
    if around.remap.is_some() {
        all.push(own(LinuxNamespaceType::User, around.sandbox.netns.clone()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::{Config, Strings, Ulimit};
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
            networks: Default::default(),
            links: Vec::new(),
            mounts: Vec::new(),
            raw_sockets: false,
            path: "sh".into(),
            args: vec!["-c".into()],
        }
    }

    fn spec(config: Config, host_config: HostConfig) -> Spec {
        spec_in(Some("/run/netns/x".into()), config, host_config).unwrap()
    }

    fn spec_in(netns: Option<PathBuf>, config: Config, host_config: HostConfig) -> Result<Spec, ApiError> {
        let sandbox = Sandbox {
            container: String::new(),
            netns,
            endpoints: Vec::new(),
            published: Vec::new(),
            resolver: false,
        };
        let around = Around {
            directory: &Directory::new("/d".as_ref(), "c"),
            sandbox: &sandbox,
            shared: &Shared::default(),
            init: Path::new("/shim"),
            remap: None,
            linked: &["DB_NAME=/web/db".into()],
            images: &Layers::new(),
            foreign: &[],
        };
        compose(&definition(config, host_config), &around)
    }

    #[test]
    fn a_network_that_is_lost_is_not_the_host_s() {
        let made = |mode: &str| {
            let host = HostConfig { network_mode: mode.into(), ..HostConfig::default() };
            spec_in(None, Config::default(), host).is_ok()
        };
        assert_eq!(["host", "bridge", "none", "mine", ""].map(made), [true, false, false, false, false]);
    }

    #[test]
    fn the_environment_is_what_dockerd_makes_of_it() {
        let env = Some(vec!["A=1".into(), "PATH=/bin".into(), "HOSTNAME".into()]);
        let config = Config { env, hostname: "box".into(), tty: true, ..Config::default() };
        assert_eq!(
            environment(&definition(config, HostConfig::default()), true, &["DB_NAME=/web/db".into()], &[]),
            ["TERM=xterm", "DB_NAME=/web/db", "A=1", "PATH=/bin"]
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

    #[test]
    fn an_init_comes_first_where_processes_are_the_container_s_own() {
        let args = |host: HostConfig| {
            let spec = spec(Config::default(), host);
            let process = spec.process().clone().unwrap();
            (
                process.args().clone().unwrap().join(" "),
                spec.mounts().as_ref().unwrap().last().cloned().unwrap(),
            )
        };
        let (words, mount) = args(HostConfig { init: Some(true), ..HostConfig::default() });
        assert_eq!(words, "/sbin/docker-init -- sh -c");
        assert_eq!(mount.source().as_deref(), Some(Path::new("/shim")));
        let shared = HostConfig { init: Some(true), pid_mode: "host".into(), ..HostConfig::default() };
        assert_eq!(args(shared).0, "sh -c");
    }

    #[test]
    fn only_a_network_of_one_s_own_gets_parameters() {
        let count = |network_mode: &str| {
            let sysctls = Some([("kernel.msgmax".to_owned(), "1".to_owned())].into());
            let host = HostConfig { network_mode: network_mode.into(), sysctls, ..HostConfig::default() };
            let definition = definition(Config::default(), host);
            (parameters(&definition, false).len(), parameters(&definition, true).len())
        };
        let counts = [(3, 2), (3, 2), (1, 1), (1, 1)];
        assert_eq!(["bridge", "none", "host", "container:x"].map(count), counts);
    }
}
