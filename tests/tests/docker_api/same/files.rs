//! A container's files: refusals of `cp`, `diff`, `export` and `commit`, and of mounts.

use serde_json::{Value, json};

use super::{Call, Probe, Show, get, post};

pub(crate) const PROBES: &[Probe] = &[
    get("archive_without_path", "/containers/probe/archive", Show::Whole),
    get("archive_of_nobody", "/containers/none/archive?path=/", Show::Whole),
    get("archive_of_nothing", "/containers/probe/archive?path=/no/such", Show::Whole),
    get("archive_below_a_file", "/containers/probe/archive?path=/etc/passwd/x", Show::Whole),
    get("changes_of_nobody", "/containers/none/changes", Show::Whole),
    get("changes_none", "/containers/probe/changes", Show::Whole),
    get("export_of_nobody", "/containers/none/export", Show::Whole),
    Probe {
        name: "unpack_without_path",
        call: Call::Put("/containers/probe/archive", || json!({})),
        show: Show::Whole,
        except: &[],
    },
    Probe {
        name: "unpack_at_nothing",
        call: Call::Put("/containers/probe/archive?path=/no/such", || json!({})),
        show: Show::Whole,
        except: &[],
    },
    post("commit_nobody", "/commit?container=none", || Value::Null),
    post("commit_bad_name", "/commit?container=probe&repo=UPPER", || Value::Null),
    post("commit_bad_change", "/commit?container=probe&changes=RUN+x", || Value::Null),
    post(
        "create_storage_opt",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"StorageOpt": {"size": "1g"}}}),
    ),
    post(
        "create_volume_driver",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"VolumeDriver": "nope", "Binds": ["v-nope:/x"]}}),
    ),
    post(
        "create_volumes_from_nobody",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"VolumesFrom": ["no-such"]}}),
    ),
    post(
        "create_tmpfs_at_root",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"Tmpfs": {"/": ""}}}),
    ),
    post("create_volume_subpath", "/containers/create", || {
        json!({"Image": "busybox", "HostConfig": {"Mounts": [
            {"Type": "volume", "Source": "v-sub", "Target": "/x", "VolumeOptions": {"Subpath": "../x"}}
        ]}})
    }),
];
