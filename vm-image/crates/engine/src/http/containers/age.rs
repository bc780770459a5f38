//! What a client of an older version of the API means by a request for a container: what it cannot have asked for is taken out or refused, and
//! what it left open is what it was then. dockerd's `postContainersCreate`, in its order.

use caisson_docker_api::container::{Config, HostConfig, Mount, NetworkingConfig};

use crate::error::ApiError;
use crate::http::version::ApiVersion;

/// Makes of a request what is meant by it.
pub(super) fn settle(
    version: ApiVersion,
    config: &mut Config,
    host: &mut HostConfig,
    networking: &mut NetworkingConfig,
) -> Result<(), ApiError> {
    if !version.at_least(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".into();
    }
    for mount in host.mounts.iter_mut().flatten() {
        forget(version, mount);
        refuse(version, mount).map_err(ApiError::invalid)?;
    }
    match version.at_least(42) {
        true => host.kernel_memory = 0,
        false => host.console_size = [0, 0],
    }
    if !version.at_least(43) {
        host.annotations = None;
    }
    if !version.at_least(44) {
        if let Some(health) = &mut config.healthcheck {
            health.start_interval = 0;
        }
        refuse_several(networking)?;
    }
    if !version.at_least(48) {
        for endpoint in networking.endpoints_config.iter_mut().flatten().filter_map(|(_, wish)| wish.as_mut())
        {
            endpoint.gw_priority = 0;
        }
    }
    Ok(())
}

/// Fields that there were not yet.
fn forget(version: ApiVersion, mount: &mut Mount) {
    if let Some(options) = &mut mount.bind_options {
        options.non_recursive &= version.at_least(40);
        options.create_mountpoint &= version.at_least(42);
    }
    if !version.at_least(42) {
        mount.volume_options = mount.volume_options.take().filter(|_| mount.kind == "volume");
        mount.tmpfs_options = mount.tmpfs_options.take().filter(|_| mount.kind == "tmpfs");
    }
}

fn refuse(version: ApiVersion, mount: &Mount) -> Result<(), String> {
    if version.at_least(42) {
        for (name, given, kind) in [
            ("VolumeOptions", mount.volume_options.is_some(), "volume"),
            ("BindOptions", mount.bind_options.is_some(), "bind"),
            ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
        ] {
            if given && mount.kind != kind {
                return Err(format!("{name} must not be specified on mount type {:?}", mount.kind));
            }
        }
    }
    let forces = mount.bind_options.as_ref().is_some_and(|options| options.read_only_force_recursive);
    let has_subpath = mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
    for (minor, asked, what) in [
        (44, forces && mount.kind == "bind", "BindOptions.ReadOnlyForceRecursive"),
        (45, has_subpath, "VolumeOptions.Subpath"),
        (48, mount.kind == "image", "Mount type \"Image\""),
    ] {
        if asked && !version.at_least(minor) {
            return Err(format!("{what} needs API v1.{minor} or newer"));
        }
    }
    Ok(())
}

fn refuse_several(networking: &NetworkingConfig) -> Result<(), ApiError> {
    let names: Vec<&str> =
        networking.endpoints_config.iter().flatten().map(|(name, _)| name.as_str()).collect();
    if names.len() < 2 {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Container cannot be created with multiple network endpoints: {}",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::go;
    use serde_json::{Value, json};

    use super::*;

    fn settled(minor: u32, host: &Value) -> Result<Value, String> {
        let mut host: HostConfig = go::decode(host).unwrap();
        let version = ApiVersion { major: 1, minor };
        let settled = settle(version, &mut Config::default(), &mut host, &mut NetworkingConfig::default());
        settled.map_err(|error| error.message)?;
        Ok(serde_json::to_value(host).unwrap())
    }

    #[test]
    fn older_clients_get_what_there_was() {
        let host = json!({"ConsoleSize": [1, 2], "Annotations": {"a": "b"}});
        let (old, new) = (settled(39, &host).unwrap(), settled(43, &host).unwrap());
        assert_eq!((&old["IpcMode"], &old["ConsoleSize"]), (&json!("shareable"), &json!([0, 0])));
        assert_eq!((&new["IpcMode"], &new["ConsoleSize"]), (&json!(""), &json!([1, 2])));
        assert_eq!((&old["Annotations"], &new["Annotations"]), (&Value::Null, &json!({"a": "b"})));
        let mounts =
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/x", "VolumeOptions": {"NoCopy": true}}]});
        assert_eq!(settled(41, &mounts).unwrap()["Mounts"], json!([{"Type": "tmpfs", "Target": "/x"}]));
        let said = "VolumeOptions must not be specified on mount type \"tmpfs\"";
        assert_eq!(settled(42, &mounts), Err(said.into()));
    }

    #[test]
    fn what_is_too_new_for_a_client_is_refused_by_name() {
        for (minor, mount, said) in [
            (
                43,
                json!({"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": true}}),
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ),
            (
                44,
                json!({"Type": "volume", "VolumeOptions": {"Subpath": "x"}}),
                "VolumeOptions.Subpath needs API v1.45 or newer",
            ),
            (47, json!({"Type": "image"}), "Mount type \"Image\" needs API v1.48 or newer"),
        ] {
            let host = json!({"Mounts": [mount]});
            assert_eq!(settled(minor, &host), Err(said.into()));
            assert!(settled(minor + 1, &host).is_ok(), "{said}");
        }
    }
}
