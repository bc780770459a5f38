//! What users mount into a container: `-v /host:/path:ro`, `--mount type=bind|tmpfs`, `--tmpfs`.
//!
//! Errors are dockerd's, 500s included. Volumes are not of this version: asking for one is refused by name.

use std::path::Path;

use caisson_docker_api::container::{HostConfig, Mount, MountPoint};

use crate::error::ApiError;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The mount points that a container of this configuration has, in the order of their destinations.
pub(crate) fn points(host: &HostConfig) -> Result<Vec<MountPoint>, ApiError> {
    let mut points = Vec::new();
    for bind in host.binds.iter().flatten() {
        add(&mut points, parse_bind(bind)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(&mut points, from_mount(mount)?)?;
    }
    for destination in host.tmpfs.iter().flatten().map(|(destination, _)| destination) {
        check_destination(destination).map_err(ApiError::invalid)?;
    }
    points.sort_by(|a: &MountPoint, b| a.destination.cmp(&b.destination));
    Ok(points)
}

fn add(points: &mut Vec<MountPoint>, point: MountPoint) -> Result<(), ApiError> {
    if points.iter().any(|known| known.destination == point.destination) {
        return Err(ApiError::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    points.push(point);
    Ok(())
}

/// Reads `source:destination[:options]`.
fn parse_bind(text: &str) -> Result<MountPoint, ApiError> {
    let invalid = || ApiError::internal(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        [path] if path.starts_with('/') => return Err(volumes_are_not_here(path)),
        _ => return Err(invalid()),
    };
    if source.is_empty() {
        return Err(invalid());
    }
    let mode = Mode::parse(options).ok_or_else(|| ApiError::internal(format!("invalid mode: {options}")))?;
    check_destination(destination).map_err(|e| {
        ApiError::internal(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"bind\": {e}"
        ))
    })?;
    if !source.starts_with('/') {
        return Err(volumes_are_not_here(source));
    }
    Ok(MountPoint {
        kind: "bind".into(),
        name: String::new(),
        source: clean(source),
        destination: clean(destination),
        driver: String::new(),
        mode: options.to_owned(),
        rw: !mode.read_only,
        propagation: mode.propagation.to_owned(),
    })
}

struct Mode<'a> {
    read_only: bool,
    propagation: &'a str,
}

impl<'a> Mode<'a> {
    fn parse(options: &'a str) -> Option<Self> {
        let mut mode = Self { read_only: false, propagation: "rprivate" };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            match option {
                "ro" => mode.read_only = true,
                "rw" | "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated" => {}
                option if PROPAGATIONS.contains(&option) => mode.propagation = option,
                _ => return None,
            }
        }
        Some(mode)
    }
}

fn from_mount(mount: &Mount) -> Result<MountPoint, ApiError> {
    let invalid =
        |why: String| ApiError::invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind));
    check_destination(&mount.target).map_err(invalid)?;
    match mount.kind.as_str() {
        "bind" => bind_mount(mount, invalid),
        "tmpfs" if mount.source.is_empty() => Ok(point(mount, "tmpfs", String::new(), "")),
        "tmpfs" => Err(invalid("field Source must not be specified".into())),
        "volume" => Err(volumes_are_not_here(&mount.source)),
        "image" | "npipe" | "cluster" => Err(ApiError::not_implemented(format!(
            "mounts of type \"{}\" are not supported by this version of Caisson",
            mount.kind
        ))),
        other => {
            Err(ApiError::invalid(format!("invalid mount config for type \"{other}\": mount type unknown")))
        }
    }
}

fn bind_mount(mount: &Mount, invalid: impl Fn(String) -> ApiError) -> Result<MountPoint, ApiError> {
    if mount.source.is_empty() {
        return Err(invalid("field Source must not be empty".into()));
    }
    if !mount.source.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if !Path::new(&mount.source).exists() && !options.create_mountpoint {
        return Err(invalid(format!("bind source path does not exist: {}", mount.source)));
    }
    let propagation = match options.propagation.as_str() {
        "" => "rprivate",
        known if PROPAGATIONS.contains(&known) => known,
        other => return Err(invalid(format!("invalid propagation mode: {other}"))),
    };
    Ok(point(mount, "bind", clean(&mount.source), propagation))
}

fn point(mount: &Mount, kind: &str, source: String, propagation: &str) -> MountPoint {
    MountPoint {
        kind: kind.into(),
        name: String::new(),
        source,
        destination: clean(&mount.target),
        driver: String::new(),
        mode: String::new(),
        rw: !mount.read_only,
        propagation: propagation.to_owned(),
    }
}

fn check_destination(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("field Target must not be empty".into());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    if clean(path) == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    Ok(())
}

/// Go's `path.Clean`, of an absolute path.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The refusal of named and anonymous volumes.
pub(crate) fn volumes_are_not_here(name: &str) -> ApiError {
    ApiError::not_implemented(format!(
        "volume {name:?}: volumes are not supported by this version of Caisson; mount a directory instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binds(specs: &[&str]) -> Result<Vec<MountPoint>, ApiError> {
        let binds = specs.iter().map(|&s| s.to_owned()).collect();
        points(&HostConfig { binds: Some(binds), ..HostConfig::default() })
    }

    #[test]
    fn binds_read_as_docker_writes_them() {
        let points = binds(&["/a/../b:/y:ro,rslave", "/a:/x/"]).unwrap();
        assert_eq!(
            (points[0].source.as_str(), points[0].destination.as_str(), points[0].rw),
            ("/a", "/x", true)
        );
        assert_eq!(points[0].propagation, "rprivate");
        let second = &points[1];
        assert_eq!(
            (second.source.as_str(), second.mode.as_str(), second.rw, second.propagation.as_str()),
            ("/b", "ro,rslave", false, "rslave")
        );
    }

    #[test]
    fn bad_binds_get_dockerd_s_words() {
        for (spec, message) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            (
                "/tmp:rel",
                "invalid volume specification: '/tmp:rel': invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
            ),
            ("/tmp:/x:zz", "invalid mode: zz"),
        ] {
            assert_eq!(binds(&[spec]).unwrap_err(), ApiError::internal(message));
        }
        assert_eq!(binds(&["/a:/x", "/b:/x"]).unwrap_err().message, "Duplicate mount point: /x");
        assert_eq!(binds(&["data:/x"]).unwrap_err().kind, crate::error::ErrorKind::NotImplemented);
    }
}
