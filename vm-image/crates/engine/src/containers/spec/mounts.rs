//! The mounts of a run: those of every container, the three files, the user's.

use std::path::{Path, PathBuf};

use caisson_runtime::{defaults, view};
use oci_spec::runtime::Mount;

use crate::containers::files;
use crate::containers::mounts::Mounting;
use crate::containers::mounts::images::Layers;
use crate::containers::mounts::parse::{clean, tmpfs_options};
use crate::containers::record::{Definition, Directory};
use crate::error::ApiError;

/// All of them, parents before what lies in them.
/// `mapped`: for a container whose users are not the host's, with the volumes whose files are.
pub(super) fn compose(
    definition: &Definition,
    directory: &Directory,
    images: &Layers,
    mapped: Option<&[String]>,
) -> Result<Vec<Mount>, ApiError> {
    let remapped = mapped.is_some();
    let host = &definition.host_config;
    let mut own = user_mounts(definition, images, mapped);
    own.extend(files(definition, directory, remapped));
    let shm_size = u64::try_from(host.shm_size).ok().filter(|size| *size > 0).unwrap_or(defaults::SHM_SIZE);
    let mut mounts = defaults::mounts(shm_size);
    mounts.retain(|m| !own.iter().any(|mine| mine.destination() == m.destination()));
    match host.ipc_mode.as_str() {
        "host" => share_ipc(&mut mounts, remapped),
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

/// With the host's IPC namespace goes its shared memory. Queues are mounted anew, and are that namespace's; which takes its rights.
fn share_ipc(mounts: &mut Vec<Mount>, remapped: bool) {
    mounts.retain(|mount| mount.destination() != Path::new("/dev/shm"));
    mounts.push(bind("/dev/shm".as_ref(), "/dev/shm".into(), &["rbind", "rprivate"]));
    if remapped {
        let queues = Path::new("/dev/mqueue");
        mounts.retain(|mount| mount.destination() != queues);
        mounts.extend(queues.exists().then(|| bind(queues, queues.into(), &["rbind", "rprivate"])));
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

fn files(definition: &Definition, directory: &Directory, remapped: bool) -> Vec<Mount> {
    if !files::are_of(definition) {
        return Vec::new();
    }
    let mut options = vec!["rbind", "rprivate"];
    options.extend(definition.host_config.readonly_rootfs.then_some("ro"));
    options.extend(remapped.then_some(MAPPED));
    let taken = |destination: &str| definition.mounts.iter().any(|m| m.point.destination == destination);
    [
        (directory.resolv_conf(), "/etc/resolv.conf"),
        (directory.hostname(), "/etc/hostname"),
        (directory.hosts(), "/etc/hosts"),
    ]
    .into_iter()
    .filter(|(_, destination)| !taken(destination))
    .map(|(source, destination)| bind(&source, destination.into(), &options))
    .collect()
}

/// Files that are shown as the container's users', as the OCI runtime specification names it.
const MAPPED: &str = "idmap";

fn user_mounts(definition: &Definition, images: &Layers, mapped: Option<&[String]>) -> Vec<Mount> {
    let host = &definition.host_config;
    let is_tmpfs =
        |destination: &str| host.tmpfs.iter().flatten().any(|(other, _)| clean(other) == destination);
    let mut mounts = Vec::new();
    for mounting in definition.mounts.iter().filter(|mounting| !is_tmpfs(&mounting.point.destination)) {
        mounts.push(match mounting.point.kind.as_str() {
            "tmpfs" => tmpfs(
                &mounting.point.destination,
                &tmpfs_options(mounting.tmpfs.as_ref(), !mounting.point.rw),
            ),
            "image" => layered(mounting, images, mapped.is_some()),
            _ => bound(mounting, mapped),
        });
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        mounts.push(tmpfs(destination, &options));
    }
    mounts
}

/// A bind, or a volume, which is one of its directory. Read-only is all the way down unless it was asked for less.
///
/// A volume is the containers', and what is in it belongs to their users; a directory of the host's, also as a volume, is whose it is, and
/// only what all may do may a container with other users do there.
fn bound(mounting: &Mounting, mapped: Option<&[String]>) -> Mount {
    let point = &mounting.point;
    let mut options = vec![if mounting.non_recursive { "bind" } else { "rbind" }.to_owned()];
    match (point.rw, mounting.read_only_non_recursive) {
        (true, _) => {}
        (false, false) => options.push("rro".to_owned()),
        (false, true) => options.push("ro".to_owned()),
    }
    let propagation = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
    options.push(propagation.to_owned());
    if !mounting.subpath.is_empty() {
        options.push(format!("x-subpath={}", mounting.subpath));
    }
    let is_own =
        |foreign: &[String]| mounting.volume().is_some_and(|name| !foreign.iter().any(|f| f == name));
    if mapped.is_some_and(is_own) {
        options.push(MAPPED.to_owned());
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    bind(Path::new(&point.source), point.destination.clone().into(), &options)
}

/// An image, or a part of one, which cannot be written.
fn layered(mounting: &Mounting, images: &Layers, remapped: bool) -> Mount {
    let layers = images.get(&mounting.image).into_iter().flatten();
    let mut options: Vec<String> = layers.map(|layer| format!("lowerdir+={}", layer.display())).collect();
    options.push("ro".to_owned());
    if remapped {
        options.push(MAPPED.to_owned());
    }
    if !mounting.subpath.is_empty() {
        options.push(format!("x-subpath={}", mounting.subpath));
    }
    let mut mount = Mount::default();
    mount
        .set_destination(mounting.point.destination.clone().into())
        .set_typ(Some("overlay".into()))
        .set_source(Some("overlay".into()))
        .set_options(Some(options));
    mount
}

/// What is bound, and the images that are mounted, as the view of a container that does not run shows it.
pub(crate) fn binds(definition: &Definition, images: &Layers) -> Vec<view::Bind> {
    let told = |mount: Mount| view::Bind {
        kind: mount.typ().clone().unwrap_or_default(),
        source: mount.source().clone().unwrap_or_default(),
        destination: mount.destination().clone(),
        options: mount.options().clone().unwrap_or_default(),
    };
    // The view has the host's users, to whom files are as they lie on the disk.
    let mut mounts = user_mounts(definition, images, None);
    mounts.retain(|mount| matches!(mount.typ().as_deref(), Some("bind" | "overlay")));
    mounts.sort_by_key(|mount| mount.destination().components().count());
    mounts.into_iter().map(told).collect()
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
    let has =
        |kinds: [&str; 2]| definition.mounts.iter().any(|m| kinds.contains(&m.point.propagation.as_str()));
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
    use caisson_docker_api::container::{Config, HostConfig};

    use super::super::tests::definition;
    use super::*;
    use crate::containers::mounts::parse;

    fn composed(host: HostConfig) -> Vec<Mount> {
        composed_of(Config::default(), host)
    }

    fn composed_of(config: Config, host: HostConfig) -> Vec<Mount> {
        let mut definition = definition(config, host);
        let binds = definition.host_config.binds.iter().flatten();
        definition.mounts = binds.map(|text| parse::bind(text, "").unwrap().mounting).collect();
        compose(&definition, &Directory::new("/d".as_ref(), "c"), &Layers::new(), None).unwrap()
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
        assert_eq!(options(&mounts, "/dev/shm"), ["rbind", "rro", "rprivate"]);
        assert_eq!(options(&mounts, "/run"), ["nosuid", "nodev", "size=1m", "exec"]);
    }

    #[test]
    fn a_container_without_any_network_has_its_user_s_files_only() {
        let config = Config { network_disabled: true, ..Config::default() };
        let binds = Some(vec!["/tmp:/etc/hosts".into()]);
        let mounts = composed_of(config, HostConfig { binds, ..HostConfig::default() });
        let in_etc = mounts.iter().map(Mount::destination).filter(|path| path.starts_with("/etc"));
        assert_eq!(in_etc.collect::<Vec<_>>(), [Path::new("/etc/hosts")]);
    }

    #[test]
    fn privileged_containers_write_to_sys() {
        let mounts = composed(HostConfig { privileged: true, ..HostConfig::default() });
        assert!(options(&mounts, "/sys").contains(&"rw".to_owned()));
        assert!(options(&composed(HostConfig::default()), "/sys").contains(&"ro".to_owned()));
    }
}
