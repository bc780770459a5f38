//! The mounts of a run: those of every container, the three files, the user's.

use std::path::{Path, PathBuf};

use caisson_docker_api::container::{HostConfig, Mount as Asked, MountPoint};
use caisson_runtime::defaults;
use oci_spec::runtime::Mount;

use crate::containers::record::{Definition, Directory};
use crate::error::ApiError;

/// All of them, parents before what lies in them.
pub(super) fn compose(definition: &Definition, directory: &Directory) -> Result<Vec<Mount>, ApiError> {
    let host = &definition.host_config;
    let mut own = user_mounts(definition)?;
    own.extend(files(definition, directory));
    let shm_size = u64::try_from(host.shm_size).ok().filter(|size| *size > 0).unwrap_or(defaults::SHM_SIZE);
    let mut mounts = defaults::mounts(shm_size);
    mounts.retain(|m| !own.iter().any(|mine| mine.destination() == m.destination()));
    match host.ipc_mode.as_str() {
        "host" => share_ipc(&mut mounts),
        "none" => mounts.retain(|mount| mount.destination() != Path::new("/dev/shm")),
        _ => {}
    }
    if host.privileged {
        mounts.iter_mut().for_each(make_writable);
    }
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(own);
    Ok(mounts)
}

/// With the host's IPC namespace go its shared memory and its queues.
fn share_ipc(mounts: &mut Vec<Mount>) {
    mounts
        .retain(|m| m.destination() != Path::new("/dev/shm") && m.destination() != Path::new("/dev/mqueue"));
    for path in ["/dev/shm", "/dev/mqueue"] {
        mounts.push(bind(path.as_ref(), path.into(), &["rbind", "rprivate"]));
    }
}

/// A privileged container may write to `/sys` and its cgroup.
fn make_writable(mount: &mut Mount) {
    if matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup")) {
        let options = mount.options().clone().unwrap_or_default();
        let options = options.into_iter().map(|o| if o == "ro" { "rw".to_owned() } else { o }).collect();
        mount.set_options(Some(options));
    }
}

fn files(definition: &Definition, directory: &Directory) -> Vec<Mount> {
    let options: &[&str] = if definition.host_config.readonly_rootfs {
        &["rbind", "rprivate", "ro"]
    } else {
        &["rbind", "rprivate"]
    };
    let taken = |destination: &str| definition.mounts.iter().any(|m| m.destination == destination);
    [
        (directory.resolv_conf(), "/etc/resolv.conf"),
        (directory.hostname(), "/etc/hostname"),
        (directory.hosts(), "/etc/hosts"),
    ]
    .into_iter()
    .filter(|(_, destination)| !taken(destination))
    .map(|(source, destination)| bind(&source, destination.into(), options))
    .collect()
}

fn user_mounts(definition: &Definition) -> Result<Vec<Mount>, ApiError> {
    let host = &definition.host_config;
    let mut mounts = Vec::new();
    for point in &definition.mounts {
        mounts.push(match point.kind.as_str() {
            "bind" => bind_point(point, asked(host, point))?,
            _ => tmpfs(&point.destination, &tmpfs_options(asked(host, point))),
        });
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        mounts.push(tmpfs(destination, &options));
    }
    Ok(mounts)
}

/// The `--mount` behind a mount point, if it is of that form.
fn asked<'a>(host: &'a HostConfig, point: &MountPoint) -> Option<&'a Asked> {
    let target = |mount: &&Asked| mount.target.trim_end_matches('/') == point.destination;
    host.mounts.iter().flatten().find(target)
}

fn bind_point(point: &MountPoint, asked: Option<&Asked>) -> Result<Mount, ApiError> {
    let source = Path::new(&point.source);
    if !source.exists() {
        // Of the long form it was asked when the container was made; of `-v` it makes the directory, as dockerd does.
        std::fs::create_dir_all(source).map_err(|e| {
            ApiError::internal(format!("error while creating mount source path '{}': {e}", point.source))
        })?;
    }
    let bind_options = asked.and_then(|mount| mount.bind_options.as_ref());
    let mut options = vec![if bind_options.is_some_and(|o| o.non_recursive) { "bind" } else { "rbind" }];
    if !point.rw {
        options.push("ro");
    }
    options.push(&point.propagation);
    Ok(bind(source, point.destination.clone().into(), &options))
}

fn tmpfs_options(asked: Option<&Asked>) -> Vec<String> {
    let mut options = Vec::new();
    let Some(mount) = asked else { return options };
    if mount.read_only {
        options.push("ro".to_owned());
    }
    let Some(more) = &mount.tmpfs_options else { return options };
    if more.size_bytes > 0 {
        options.push(format!("size={}", more.size_bytes));
    }
    if more.mode != 0 {
        options.push(format!("mode={:o}", more.mode));
    }
    options.extend(more.options.iter().flatten().map(|option| option.join("=")));
    options
}

fn tmpfs(destination: &str, options: &[String]) -> Mount {
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for option in options {
        let undone = match option.as_str() {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            _ => "",
        };
        all.retain(|known| known != undone && known != option);
        all.push(option.clone());
    }
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(all));
    mount
}

fn bind(source: &Path, destination: PathBuf, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".into()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// The root's propagation: what a shared or slave mount in it needs, else private to the container.
pub(super) fn root_propagation(definition: &Definition) -> Option<String> {
    let has = |kinds: [&str; 2]| definition.mounts.iter().any(|m| kinds.contains(&m.propagation.as_str()));
    if has(["shared", "rshared"]) {
        Some("shared".into())
    } else if has(["slave", "rslave"]) {
        Some("rslave".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::Config;

    use super::super::tests::definition;
    use super::*;
    use crate::containers::mounts::points;

    fn composed(host: HostConfig) -> Vec<Mount> {
        let mut definition = definition(Config::default(), host);
        definition.mounts = points(&definition.host_config).unwrap();
        compose(&definition, &Directory::new("/d".as_ref(), "c")).unwrap()
    }

    fn options(mounts: &[Mount], destination: &str) -> Vec<String> {
        let mount = mounts.iter().find(|m| m.destination() == Path::new(destination)).unwrap();
        mount.options().clone().unwrap()
    }

    #[test]
    fn users_mounts_come_last_and_replace_the_usual_ones() {
        let binds = Some(vec!["/tmp:/dev/shm:ro".into(), "/tmp:/etc/hosts".into()]);
        let tmpfs = Some([("/run".to_owned(), "size=1m,exec".to_owned())].into());
        let mounts = composed(HostConfig { binds, tmpfs, ..HostConfig::default() });
        let at = |path: &str| mounts.iter().filter(|m| m.destination() == Path::new(path)).count();
        assert_eq!((at("/dev/shm"), at("/etc/hosts"), at("/etc/resolv.conf"), at("/proc")), (1, 1, 1, 1));
        assert_eq!(options(&mounts, "/dev/shm"), ["rbind", "ro", "rprivate"]);
        assert_eq!(options(&mounts, "/run"), ["nosuid", "nodev", "size=1m", "exec"]);
    }

    #[test]
    fn privileged_containers_write_to_sys() {
        let mounts = composed(HostConfig { privileged: true, ..HostConfig::default() });
        assert!(options(&mounts, "/sys").contains(&"rw".to_owned()));
        assert!(options(&composed(HostConfig::default()), "/sys").contains(&"ro".to_owned()));
    }
}
