//! Reads what is asked to be mounted, with dockerd's refusals, its 500s included. Nothing is made here.

use std::path::Path;

use caisson_docker_api::container::{HostConfig, Mount, MountPoint, TmpfsOptions, VolumeOptions};
use caisson_volumes::NewVolume;

use super::Mounting;
use crate::error::ApiError;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Something that is asked to be mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    /// As far as it is known before its volume is made.
    pub(crate) mounting: Mounting,
    /// The volume's own options, if it is one that is not there yet.
    pub(crate) volume: VolumeOptions,
}

impl Wish {
    /// The volume to be made or found.
    pub(crate) fn new_volume(&self) -> NewVolume {
        let driver = self.volume.driver_config.clone().unwrap_or_default();
        NewVolume {
            name: self.mounting.point.name.clone(),
            driver: driver.name,
            options: driver.options,
            labels: self.volume.labels.clone(),
        }
    }
}

/// Checks all that can be checked before anything is made.
pub(crate) fn check(host: &HostConfig) -> Result<(), ApiError> {
    for mount in host.mounts.iter().flatten() {
        check_mount(mount)?;
    }
    for destination in host.tmpfs.iter().flatten().map(|(destination, _)| destination) {
        check_target(destination).map_err(ApiError::invalid)?;
    }
    Ok(())
}

/// Reads `source:destination[:options]`. `driver` is for volumes that are made of it.
pub(crate) fn bind(text: &str, driver: &str) -> Result<Wish, ApiError> {
    let invalid = || ApiError::internal(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        // A destination with a mode: what it would be of is not said.
        [_, mode] if is_mode(mode) => return Err(invalid()),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if parts[0].is_empty() {
        return Err(invalid());
    }
    if !is_mode(mode) {
        return Err(ApiError::internal(format!("invalid mode: {mode}")));
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    check_target(destination).map_err(|why| {
        let within = invalid().message;
        ApiError::internal(format!("{within}: invalid mount config for type \"{kind}\": {why}"))
    })?;
    let has = |option: &str| mode.split(',').any(|known| known == option);
    let mut mounting = new(kind, destination, !has("ro"));
    mounting.point.mode = mode.to_owned();
    let mut volume = VolumeOptions::default();
    if kind == "bind" {
        let propagation = mode.split(',').find(|option| PROPAGATIONS.contains(option));
        mounting.point.propagation = propagation.unwrap_or("rprivate").to_owned();
        mounting.point.source = clean(source);
        mounting.make_source = true;
    } else {
        mounting.point.name = source.to_owned();
        mounting.anonymous = source.is_empty();
        mounting.copy = !has("nocopy");
        volume.driver_config =
            Some(caisson_docker_api::container::VolumeDriver { name: driver.to_owned(), options: None });
    }
    Ok(Wish { mounting, volume })
}

/// Reads a `--mount`, which was [`check`]ed.
pub(crate) fn mount(mount: &Mount) -> Result<Wish, ApiError> {
    check_mount(mount)?;
    let mut mounting = new(&mount.kind, &mount.target, !mount.read_only);
    match mount.kind.as_str() {
        "bind" => {
            let options = mount.bind_options.clone().unwrap_or_default();
            mounting.point.propagation = options.propagation;
            if mounting.point.propagation.is_empty() {
                mounting.point.propagation = "rprivate".into();
            }
            mounting.point.source = clean(&mount.source);
            mounting.make_source = options.create_mountpoint;
            mounting.non_recursive = options.non_recursive;
            mounting.read_only_non_recursive = options.read_only_non_recursive;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            mounting.point.name.clone_from(&mount.source);
            mounting.anonymous = mount.source.is_empty();
            mounting.copy = !options.no_copy;
            mounting.subpath.clone_from(&options.subpath);
            return Ok(Wish { mounting, volume: options });
        }
        "image" => {
            mounting.point.name.clone_from(&mount.source);
            mounting.point.rw = false;
            let options = mount.image_options.clone().unwrap_or_default();
            mounting.subpath = options.subpath;
        }
        _ => mounting.tmpfs.clone_from(&mount.tmpfs_options),
    }
    Ok(Wish { mounting, volume: VolumeOptions::default() })
}

/// Reads a `--volumes-from`: the container, and whether its volumes may be written.
pub(crate) fn volumes_from(text: &str) -> Result<(&str, bool), ApiError> {
    if text.is_empty() {
        return Err(ApiError::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    let refused = |option: &str| option == "nocopy" || PROPAGATIONS.contains(&option);
    if !is_mode(mode) || mode.split(',').any(refused) {
        return Err(ApiError::invalid(format!("invalid mode: {mode}")));
    }
    Ok((container, !mode.split(',').any(|option| option == "ro")))
}

/// A volume of the container's configuration, which has only a place.
pub(crate) fn anonymous(destination: &str) -> Result<Wish, ApiError> {
    check_target(destination)
        .map_err(|why| ApiError::invalid(format!("invalid mount config for type \"volume\": {why}")))?;
    let mut mounting = new("volume", destination, true);
    mounting.anonymous = true;
    mounting.copy = true;
    Ok(Wish { mounting, volume: VolumeOptions::default() })
}

fn new(kind: &str, destination: &str, rw: bool) -> Mounting {
    Mounting {
        point: MountPoint {
            kind: kind.to_owned(),
            name: String::new(),
            source: String::new(),
            destination: clean(destination),
            driver: String::new(),
            mode: String::new(),
            rw,
            propagation: String::new(),
        },
        anonymous: false,
        copy: false,
        image: String::new(),
        subpath: String::new(),
        make_source: false,
        non_recursive: false,
        read_only_non_recursive: false,
        tmpfs: None,
    }
}

/// Whether these are options of a `-v`, at most one of each kind.
fn is_mode(mode: &str) -> bool {
    let mut seen = [false; 5];
    mode.is_empty()
        || mode.split(',').all(|option| {
            let kind = match option {
                "rw" | "ro" => 0,
                "z" | "Z" => 1,
                "nocopy" => 2,
                "consistent" | "cached" | "delegated" => 3,
                option if PROPAGATIONS.contains(&option) => 4,
                _ => return false,
            };
            !std::mem::replace(&mut seen[kind], true)
        })
}

fn check_mount(mount: &Mount) -> Result<(), ApiError> {
    check_options(mount)
        .and_then(|()| check_target(&mount.target))
        .and_then(|()| match mount.kind.as_str() {
            "bind" => check_bind(mount),
            "volume" => check_volume(mount),
            "tmpfs" => check_tmpfs(mount),
            "image" if mount.source.is_empty() => Err("field Source must not be empty".into()),
            "image" => check_subpath(mount.image_options.as_ref().map_or("", |options| &options.subpath)),
            _ => Err("mount type unknown".into()),
        })
        .map_err(|why| {
            ApiError::invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind))
        })?;
    check_read_only(mount)
}

/// Options of another kind of mount.
fn check_options(mount: &Mount) -> Result<(), String> {
    for (kind, name, given) in [
        ("bind", "BindOptions", mount.bind_options.is_some()),
        ("volume", "VolumeOptions", mount.volume_options.is_some()),
        ("image", "ImageOptions", mount.image_options.is_some()),
        ("tmpfs", "TmpfsOptions", mount.tmpfs_options.is_some()),
        ("cluster", "ClusterOptions", mount.cluster_options.is_some()),
    ] {
        if given && mount.kind != kind {
            return Err(format!("field {name} must not be specified"));
        }
    }
    Ok(())
}

fn check_bind(mount: &Mount) -> Result<(), String> {
    let options = mount.bind_options.clone().unwrap_or_default();
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    if !mount.source.starts_with('/') {
        return Err(format!("invalid mount path: '{}' mount path must be absolute", mount.source));
    }
    if !options.create_mountpoint && !Path::new(&mount.source).exists() {
        return Err(format!("bind source path does not exist: {}", mount.source));
    }
    Ok(())
}

/// dockerd finds these only when the container starts, which is no better.
fn check_read_only(mount: &Mount) -> Result<(), ApiError> {
    let options = mount.bind_options.clone().unwrap_or_default();
    let conflict = match (mount.read_only, options.read_only_non_recursive, options.read_only_force_recursive)
    {
        (false, true, _) => "!ReadOnly && BindOptions.ReadOnlyNonRecursive",
        (false, _, true) => "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
        (true, true, true) => "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        _ => return Ok(()),
    };
    Err(ApiError::invalid(format!("mount options conflict: {conflict}")))
}

fn check_volume(mount: &Mount) -> Result<(), String> {
    let Some(options) = mount.volume_options.as_ref().filter(|options| !options.subpath.is_empty()) else {
        return Ok(());
    };
    if mount.source.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".into());
    }
    check_subpath(&options.subpath)
}

fn check_subpath(subpath: &str) -> Result<(), String> {
    if !subpath.is_empty() && !is_local(subpath) {
        return Err("subpath must be a relative path within the volume".into());
    }
    Ok(())
}

fn check_tmpfs(mount: &Mount) -> Result<(), String> {
    if !mount.source.is_empty() {
        return Err("field Source must not be specified".into());
    }
    let options = mount.tmpfs_options.iter().flat_map(|options| options.options.iter().flatten());
    for option in options {
        match option.as_slice() {
            [name] | [name, _] if matches!(name.as_str(), "exec" | "noexec") => {}
            [name] | [name, _] => return Err(format!("invalid option: {name}")),
            _ => return Err("invalid option array length".into()),
        }
    }
    Ok(())
}

/// The options of a tmpfs as `mount(8)` spells them.
pub(crate) fn tmpfs_options(options: Option<&TmpfsOptions>, read_only: bool) -> Vec<String> {
    let mut text = Vec::new();
    if read_only {
        text.push("ro".to_owned());
    }
    let Some(options) = options else { return text };
    if options.mode != 0 {
        text.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        text.push(format!("size={}", options.size_bytes));
    }
    text.extend(options.options.iter().flatten().map(|option| option.join("=")));
    text
}

/// Go's `filepath.IsLocal`: a relative path that does not lead out of where it begins.
fn is_local(path: &str) -> bool {
    let mut depth = 0_i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !path.is_empty() && !path.starts_with('/')
}

fn check_target(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("field Target must not be empty".into());
    }
    if clean(path) == "/" && path.starts_with('/') {
        return Err("invalid specification: destination can't be '/'".into());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    Ok(())
}

/// Go's `path.Clean` of an absolute path.
pub(crate) fn clean(path: &str) -> String {
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

#[cfg(test)]
mod tests {
    use caisson_docker_api::go;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Mounting {
        bind(text, "").unwrap().mounting
    }

    fn refused(config: Value) -> String {
        mount(&go::decode(&config).unwrap()).unwrap_err().message
    }

    #[test]
    fn binds_read_as_docker_writes_them() {
        let bound = read("/a/../b:/y/:ro,rslave");
        assert_eq!((bound.point.source.as_str(), bound.point.destination.as_str()), ("/b", "/y"));
        assert_eq!(
            (bound.point.mode.as_str(), bound.point.rw, bound.point.propagation.as_str()),
            ("ro,rslave", false, "rslave")
        );
        assert_eq!(read("/a:/x").point.propagation, "rprivate");
        let volume = read("data:/x:nocopy");
        assert_eq!((volume.volume(), volume.copy, volume.anonymous), (Some("data"), false, false));
        let anonymous = read("/x");
        assert_eq!((anonymous.volume(), anonymous.copy, anonymous.anonymous), (Some(""), true, true));
    }

    #[test]
    fn bad_binds_get_dockerd_s_words() {
        for (spec, message) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            ("/x:ro", "invalid volume specification: '/x:ro'"),
            (":/x", "invalid volume specification: ':/x'"),
            (
                "/tmp:rel",
                "invalid volume specification: '/tmp:rel': invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
            ),
            (
                "v1:/",
                "invalid volume specification: 'v1:/': invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
            ),
            ("/tmp:/x:zz", "invalid mode: zz"),
            ("/tmp:/x:ro,rw", "invalid mode: ro,rw"),
        ] {
            assert_eq!(bind(spec, "").unwrap_err(), ApiError::internal(message));
        }
    }

    #[test]
    fn bad_mounts_get_dockerd_s_words() {
        for (config, message) in [
            (json!({"Type": "foo", "Target": "/x"}), "type \"foo\": mount type unknown"),
            (json!({"Type": "volume"}), "type \"volume\": field Target must not be empty"),
            (json!({"Type": "bind", "Target": "/x"}), "type \"bind\": field Source must not be empty"),
            (
                json!({"Type": "bind", "Target": "/x", "Source": "/no/such"}),
                "type \"bind\": bind source path does not exist: /no/such",
            ),
            (
                json!({"Type": "tmpfs", "Target": "/x", "BindOptions": {}}),
                "type \"tmpfs\": field BindOptions must not be specified",
            ),
            (
                json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}),
                "type \"volume\": must not set Subpath when using anonymous volumes",
            ),
            (
                json!({"Type": "volume", "Source": "v1", "Target": "/x", "VolumeOptions": {"Subpath": "a/../.."}}),
                "type \"volume\": subpath must be a relative path within the volume",
            ),
            (
                json!({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["uid", "5"]]}}),
                "type \"tmpfs\": invalid option: uid",
            ),
        ] {
            assert_eq!(refused(config), format!("invalid mount config for {message}"));
        }
        let conflict = json!({"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"ReadOnlyNonRecursive": true}});
        assert!(refused(conflict).starts_with("mount options conflict: !ReadOnly"));
    }

    #[test]
    fn volumes_come_from_containers() {
        assert_eq!(volumes_from("web"), Ok(("web", true)));
        assert_eq!(volumes_from("web:ro"), Ok(("web", false)));
        assert_eq!(volumes_from("web:nocopy").unwrap_err().message, "invalid mode: nocopy");
        assert_eq!(volumes_from("web:x").unwrap_err().message, "invalid mode: x");
        assert!(volumes_from("").is_err());
    }
}
