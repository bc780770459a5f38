//! `/volumes`: an engine's volumes, and refusals.

use serde_json::{Value, json};

use super::{Call, Probe, Show, delete, get, post};

/// A volume that is made: its directory and its time, and perhaps its name, are the engine's own.
const fn made(name: &'static str, body: fn() -> Value) -> Probe {
    Probe { name, call: Call::Post("/volumes/create", body), show: Show::Shape, except: &[] }
}

pub(crate) const PROBES: &[Probe] = &[
    made("volume_create", || json!({"Name": "same-plain"})),
    made(
        "volume_create_anonymous",
        || json!({"Driver": "local", "DriverOpts": {}, "Labels": {"same": "yes"}}),
    ),
    made("volume_create_without_body", || Value::Null),
    post("volume_create_short_name", "/volumes/create", || json!({"Name": "a"})),
    post("volume_create_bad_name", "/volumes/create", || json!({"Name": "a/b"})),
    post("volume_create_unknown_driver", "/volumes/create", || json!({"Name": "same-x", "Driver": "nope"})),
    post(
        "volume_create_unknown_option",
        "/volumes/create",
        || json!({"Name": "same-x", "DriverOpts": {"foo": "bar"}}),
    ),
    post(
        "volume_create_option_without_type",
        "/volumes/create",
        || json!({"Name": "same-x", "DriverOpts": {"device": "tmpfs"}}),
    ),
    post(
        "volume_create_bad_size",
        "/volumes/create",
        || json!({"Name": "same-x", "DriverOpts": {"size": "big"}}),
    ),
    post("volume_create_size", "/volumes/create", || json!({"Name": "same-x", "DriverOpts": {"size": "1m"}})),
    post(
        "volume_create_cifs_port",
        "/volumes/create",
        || json!({"Name": "same-x", "DriverOpts": {"type": "cifs", "device": "//h:445/x", "o": "user=a"}}),
    ),
    post(
        "volume_create_cluster",
        "/volumes/create",
        || json!({"Name": "same-x", "ClusterVolumeSpec": {"Group": "x"}}),
    ),
    get("volume_list", "/volumes?filters=%7B%22name%22%3A%5B%22same-plain%22%5D%7D", Show::Shape),
    get("volume_list_none", "/volumes?filters=%7B%22name%22%3A%5B%22no-such-volume%22%5D%7D", Show::Whole),
    get("volume_list_bad_filter", "/volumes?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", Show::Whole),
    get("volume_list_no_filter", "/volumes?filters=nope", Show::Whole),
    get("volume_list_bad_dangling", "/volumes?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D", Show::Whole),
    get("volume_unknown", "/volumes/no-such-volume", Show::Whole),
    delete("volume_remove_unknown", "/volumes/no-such-volume"),
    delete("volume_remove_unknown_by_force", "/volumes/no-such-volume?force=1"),
    Probe {
        name: "volume_update",
        call: Call::Put("/volumes/same-plain?version=1", || json!({"Spec": {}})),
        show: Show::Whole,
        except: &[],
    },
    post(
        "volume_prune_nothing",
        "/volumes/prune?filters=%7B%22label%22%3A%5B%22no-such-label%22%5D%7D",
        || Value::Null,
    ),
    post("volume_prune_bad_filter", "/volumes/prune?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", || {
        Value::Null
    }),
    post("volume_prune_bad_all", "/volumes/prune?filters=%7B%22all%22%3A%5B%22maybe%22%5D%7D", || {
        Value::Null
    }),
];
