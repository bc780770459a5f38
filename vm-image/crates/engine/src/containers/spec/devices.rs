//! Devices of the host's that a container gets: the nodes to make, and the rules that let it use them.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use caisson_docker_api::container::HostConfig;
use caisson_runtime::defaults;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::ApiError;

/// Below `/dev`, what is not the host's to give.
const NOT_GIVEN: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// What a container gets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// All devices of the host for a privileged container, else those that were asked for.
///
/// # Errors
/// dockerd's, when a start finds no such device.
pub(super) fn of(host: &HostConfig) -> Result<Devices, ApiError> {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        let lists: Vec<String> =
            request.capabilities.iter().flatten().map(|all| format!("[{}]", all.join(" "))).collect();
        return Err(ApiError::internal(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver,
            lists.join(" ")
        )));
    }
    if host.privileged {
        return privileged(host);
    }
    let mut devices = Devices { nodes: Vec::new(), rules: defaults::device_rules() };
    for mapping in host.devices.iter().flatten() {
        let found = gather(&mapping.path_on_host, &mapping.path_in_container)?;
        let access = &mapping.cgroup_permissions;
        devices.rules.extend(found.iter().map(|node| permission(node, access)));
        devices.nodes.extend(found);
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

/// Rules of one's own say nothing to who may do everything.
fn privileged(host: &HostConfig) -> Result<Devices, ApiError> {
    let mut nodes = Vec::new();
    all_below(Path::new("/dev"), &mut nodes);
    for mapping in host.devices.iter().flatten().filter(|m| m.path_on_host != m.path_in_container) {
        nodes.extend(gather(&mapping.path_on_host, &mapping.path_in_container)?);
    }
    let mut everything = LinuxDeviceCgroup::default();
    everything.set_allow(true).set_typ(Some(LinuxDeviceType::A)).set_access(Some("rwm".into()));
    Ok(Devices { nodes, rules: vec![everything] })
}

/// Every node of the host's `/dev`; what goes away meanwhile was not there.
fn all_below(directory: &Path, nodes: &mut Vec<LinuxDevice>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if !NOT_GIVEN.iter().any(|not| name == *not) {
                all_below(&path, nodes);
            }
        } else if name != "console"
            && !kind.is_fifo()
            && let Ok(Some(node)) = node(&path, path.clone())
        {
            nodes.push(node);
        }
    }
}

/// The device at a path of the host, or all in a directory there, for a path in the container.
fn gather(on_host: &str, in_container: &str) -> Result<Vec<LinuxDevice>, ApiError> {
    let failed = |why: &str| {
        ApiError::internal(format!(
            "error gathering device information while adding custom device {on_host:?}: {why}"
        ))
    };
    let real = std::fs::canonicalize(on_host).unwrap_or_else(|_| on_host.into());
    match node(&real, in_container.into()) {
        Ok(Some(node)) => return Ok(vec![node]),
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failed("no such file or directory"));
        }
        Err(error) => return Err(failed(&error.to_string())),
    }
    let mut found = Vec::new();
    walk(&real, Path::new(in_container), &mut found);
    if found.is_empty() { Err(failed("not a device node")) } else { Ok(found) }
}

fn walk(directory: &Path, inside: &Path, found: &mut Vec<LinuxDevice>) {
    let mut entries: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let inside = inside.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &inside, found);
        } else if let Ok(Some(node)) = node(&entry.path(), inside) {
            found.push(node);
        }
    }
}

/// The node at a path; `None` for what is no device.
fn node(at: &Path, inside: PathBuf) -> io::Result<Option<LinuxDevice>> {
    let found = std::fs::symlink_metadata(at)?;
    let kind = match found.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_fifo() => LinuxDeviceType::P,
        _ => return Ok(None),
    };
    let node = LinuxDeviceBuilder::default()
        .path(inside)
        .typ(kind)
        .major(i64::from(rustix::fs::major(found.rdev())))
        .minor(i64::from(rustix::fs::minor(found.rdev())))
        .file_mode(found.mode() & 0o7777)
        .uid(found.uid())
        .gid(found.gid())
        .build();
    node.map(Some).map_err(io::Error::other)
}

fn permission(node: &LinuxDevice, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(node.typ()))
        .set_major(Some(node.major()))
        .set_minor(Some(node.minor()))
        .set_access(Some(access.to_owned()));
    rule
}

/// Reads `c 10:* rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, ApiError> {
    let invalid = || ApiError::internal(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else { return Err(invalid()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |word: &str| match word {
        "*" => Ok(-1),
        word if word.bytes().all(|byte| byte.is_ascii_digit()) => word.parse::<i64>().map_err(|_| invalid()),
        _ => Err(invalid()),
    };
    if !(1..=3).contains(&access.len()) || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(invalid());
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(kind))
        .set_major(Some(number(major)?))
        .set_minor(Some(number(minor)?))
        .set_access(Some(access.to_owned()));
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::{DeviceMapping, DeviceRequest};

    use super::*;

    fn with(path_on_host: &str) -> HostConfig {
        let mapping = DeviceMapping {
            path_on_host: path_on_host.into(),
            path_in_container: "/dev/x".into(),
            cgroup_permissions: "r".into(),
        };
        HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }
    }

    #[test]
    fn a_device_brings_its_node_and_its_rule() {
        let devices = of(&with("/dev/null")).unwrap();
        let node = &devices.nodes[0];
        assert_eq!((node.path().as_path(), node.major(), node.minor()), (Path::new("/dev/x"), 1, 3));
        let rule = devices.rules.last().unwrap();
        assert_eq!((rule.major(), rule.minor(), rule.access().as_deref()), (Some(1), Some(3), Some("r")));
    }

    #[test]
    fn what_is_no_device_is_told_as_dockerd_tells_it() {
        let message = |host: &HostConfig| of(host).unwrap_err().message;
        assert_eq!(
            message(&with("/dev/nope")),
            "error gathering device information while adding custom device \"/dev/nope\": no such file or directory"
        );
        assert!(message(&with("/etc/passwd")).ends_with(": not a device node"));
        let gpu = DeviceRequest { capabilities: Some(vec![vec!["gpu".into()]]), ..DeviceRequest::default() };
        let host = HostConfig { device_requests: Some(vec![gpu]), ..HostConfig::default() };
        assert_eq!(message(&host), "could not select device driver \"\" with capabilities: [[gpu]]");
    }

    #[test]
    fn rules_are_read_as_moby_reads_them() {
        let rule = parse_rule("c 10:* rm").unwrap();
        assert_eq!((rule.typ(), rule.major(), rule.minor()), (Some(LinuxDeviceType::C), Some(10), Some(-1)));
        for bad in ["", "c 10:1", "x 1:1 r", "c 1 r", "c 1:x r", "c 1:1 q", "c 1:1 rwmr"] {
            assert!(
                parse_rule(bad).unwrap_err().message.contains("invalid device cgroup rule format"),
                "{bad}"
            );
        }
    }
}
