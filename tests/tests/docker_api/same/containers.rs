//! Containers' calls, and the system's that tell of them: what is refused, and in which words.

use serde_json::{Value, json};

use super::{Call, Probe, Show, get, post};

/// What there is of it differs with the cases that run meanwhile.
const DISK_USAGE: &[&str] = &["/BuildCache", "/Images", "/Volumes", "/Containers"];

/// What differs with the system's control groups, which are another's for dockerd here.
const BY_CONTROL_GROUPS: &[&str] =
    &["/memory_stats", "/pids_stats", "/blkio_stats", "/cpu_stats/cpu_usage/percpu_usage"];

pub(crate) const PROBES: &[Probe] = &[
    Probe {
        name: "stats_of_one_moment",
        call: Call::Get("/containers/running-probe/stats?stream=false&one-shot=true"),
        show: Show::Shape,
        except: BY_CONTROL_GROUPS,
    },
    Probe {
        name: "stats_of_what_does_not_run",
        call: Call::Get("/containers/probe/stats?stream=false"),
        show: Show::Whole,
        except: &["/id"],
    },
    get("stats_unknown", "/containers/none/stats?stream=false", Show::Whole),
    post("rename_unknown", "/containers/none/rename?name=x", || Value::Null),
    post("rename_to_nothing", "/containers/probe/rename", || Value::Null),
    post("rename_to_the_same", "/containers/probe/rename?name=probe", || Value::Null),
    post("rename_to_a_bad_name", "/containers/probe/rename?name=a%20b", || Value::Null),
    post("pause_unknown", "/containers/none/pause", || Value::Null),
    post("stop_what_does_not_run", "/containers/probe/stop", || Value::Null),
    post("wait_for_a_bad_condition", "/containers/probe/wait?condition=nope", || Value::Null),
    post("wait_for_what_does_not_run", "/containers/probe/wait", || Value::Null),
    post("kill_with_a_bad_signal", "/containers/probe/kill?signal=NONE", || Value::Null),
    post("stop_with_a_bad_timeout", "/containers/probe/stop?t=x", || Value::Null),
    post("restart_unknown", "/containers/none/restart", || Value::Null),
    post("prune_by_a_bad_filter", "/containers/prune?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", || {
        Value::Null
    }),
    post(
        "prune_until_two_moments",
        "/containers/prune?filters=%7B%22until%22%3A%5B%221h%22%2C%222h%22%5D%7D",
        || Value::Null,
    ),
    get("logs_of_no_stream", "/containers/probe/logs", Show::Whole),
    get("logs_of_what_never_ran", "/containers/probe/logs?stdout=1", Show::Whole),
    get("logs_since_no_moment", "/containers/probe/logs?stdout=1&since=x", Show::Whole),
    get("events_since_after_until", "/events?since=2&until=1", Show::Whole),
    get("events_since_no_moment", "/events?since=x&until=1", Show::Whole),
    get("events_of_long_ago", "/events?since=1&until=2", Show::Whole),
    get("disk_usage_of_nothing", "/system/df?type=nothing", Show::Whole),
    Probe { name: "disk_usage", call: Call::Get("/system/df"), show: Show::Shape, except: DISK_USAGE },
    Probe {
        name: "disk_usage_of_images",
        call: Call::Get("/system/df?type=image"),
        show: Show::Shape,
        except: &["/Images"],
    },
    // Types came with API 1.42.
    Probe {
        name: "disk_usage_before_types",
        call: Call::Get("/v1.41/system/df?type=nothing"),
        show: Show::Shape,
        except: DISK_USAGE,
    },
    post(
        "create_with_an_unknown_log_option",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "local", "Config": {"x": "1"}}}}),
    ),
    post(
        "create_with_an_unknown_log_driver",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "nope"}}}),
    ),
    post(
        "create_with_a_bad_logging_mode",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"mode": "x"}}}}),
    ),
    post(
        "create_with_options_of_another_mount",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "volume", "Target": "/x", "BindOptions": {}}]}}),
    ),
    post("create_with_forced_read_only_of_old", "/v1.43/containers/create", || {
        let mount = json!({"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"ReadOnlyForceRecursive": true}});
        json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    }),
    // dockerd names the networks in any order.
    Probe {
        show: Show::Shape,
        ..post(
            "create_on_several_networks_of_old",
            "/v1.43/containers/create",
            || json!({"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "none": {}}}}),
        )
    },
    get("plugins", "/plugins", Show::Whole),
];
