//! Calls that both engines must answer alike: status and body, without what has to differ (ids, times, sizes).

mod containers;
mod files;
mod networks;
mod volumes;

use anyhow::{Result, ensure};
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

/// One call, made on both engines.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) call: Call,
    pub(crate) show: Show,
    /// Fields that differ for a reason: JSON pointers.
    pub(crate) except: &'static [&'static str],
}

pub(crate) enum Call {
    Get(&'static str),
    Delete(&'static str),
    Post(&'static str, fn() -> Value),
    Put(&'static str, fn() -> Value),
}

/// What of an answer is compared.
pub(crate) enum Show {
    /// The status and the whole body.
    Whole,
    /// The status and the names of all fields, with the kinds of their values.
    Shape,
}

const fn get(name: &'static str, path: &'static str, show: Show) -> Probe {
    Probe { name, call: Call::Get(path), show, except: &[] }
}

const fn post(name: &'static str, path: &'static str, body: fn() -> Value) -> Probe {
    Probe { name, call: Call::Post(path, body), show: Show::Whole, except: &[] }
}

const fn delete(name: &'static str, path: &'static str) -> Probe {
    Probe { name, call: Call::Delete(path), show: Show::Whole, except: &[] }
}

/// Every call.
pub(crate) fn probes() -> impl Iterator<Item = &'static Probe> {
    [PROBES, containers::PROBES, volumes::PROBES, files::PROBES, networks::PROBES].into_iter().flatten()
}

const PROBES: &[Probe] = &[
    Probe {
        name: "info",
        call: Call::Get("/info"),
        show: Show::Shape,
        // What only dockerd has (CDI, containerd, iptables), what its cgroup v1 tells, and the runtimes' own names.
        except: &[
            "/CDISpecDirs",
            "/Containerd",
            "/FirewallBackend",
            "/KernelMemoryTCP",
            "/Runtimes",
            "/Warnings",
        ],
    },
    Probe {
        name: "container",
        call: Call::Get("/containers/probe/json"),
        show: Show::Shape,
        // Caisson mounts a container's root in the container's own namespace only; dockerd runs on cgroup v1 here,
        // where a killer can be switched off.
        except: &["/GraphDriver/Data/MergedDir", "/HostConfig/OomKillDisable"],
    },
    get("container_list", "/containers/json?all=1&filters=%7B%22name%22%3A%5B%22probe%22%5D%7D", Show::Shape),
    Probe {
        name: "image_list",
        call: Call::Get("/images/json?filters=%7B%22reference%22%3A%5B%22busybox%22%5D%7D"),
        show: Show::Shape,
        // Caisson tells the manifest once a case has pushed or saved it, dockerd only with containerd's store.
        except: &["/0/Descriptor"],
    },
    Probe {
        name: "network",
        call: Call::Get("/networks/bridge"),
        show: Show::Shape,
        // Other cases' containers come and go.
        except: &["/Containers"],
    },
    get("network_none", "/networks/none", Show::Shape),
    get("network_host", "/networks/host", Show::Shape),
    get("unknown_path", "/nothing", Show::Whole),
    get("unknown_path_of_a_version", "/v1.44/nothing", Show::Whole),
    get("version_too_old", "/v1.12/version", Show::Whole),
    get("version_too_new", "/v1.99/version", Show::Whole),
    get("version_that_is_none", "/vx/version", Show::Whole),
    get("unknown_container", "/containers/none/json", Show::Whole),
    get("unknown_container_logs", "/containers/none/logs?stdout=1", Show::Whole),
    get("unknown_image", "/images/none/json", Show::Whole),
    get("bad_image_name", "/images/UPPER/json", Show::Whole),
    get("unknown_network", "/networks/none-such", Show::Whole),
    get("bad_filter", "/containers/json?filters=nope", Show::Whole),
    get("unknown_filter", "/containers/json?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", Show::Whole),
    get("bad_image_filter", "/images/json?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", Show::Whole),
    Probe {
        name: "version",
        call: Call::Get("/version"),
        show: Show::Shape,
        // dockerd tells its build time beside the components and in them, Caisson in them only.
        except: &["/BuildTime"],
    },
    Probe {
        name: "image",
        call: Call::Get("/images/busybox/json"),
        show: Show::Shape,
        // Caisson mounts an image in its containers only, so it has no merged directory to name; the manifest as above.
        except: &["/GraphDriver/Data", "/Descriptor"],
    },
    get(
        "save_for_another_platform",
        "/images/get?names=busybox&platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D",
        Show::Whole,
    ),
    get("save_unknown", "/images/get?names=none", Show::Whole),
    get("image_search_limit", "/images/search?term=x&limit=101", Show::Whole),
    get("image_list_bad_until", "/images/json?filters=%7B%22until%22%3A%5B%22nope%22%5D%7D", Show::Whole),
    delete(
        "remove_platform_unforced",
        "/images/busybox?platforms=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D",
    ),
    delete("remove_unknown_container", "/containers/none"),
    delete("remove_unknown_image", "/images/none"),
    post("start_unknown", "/containers/none/start", || Value::Null),
    post("stop_unknown", "/containers/none/stop", || Value::Null),
    post("kill_unknown", "/containers/none/kill", || Value::Null),
    post("wait_unknown", "/containers/none/wait", || Value::Null),
    post("attach_unknown", "/containers/none/attach?stream=1", || Value::Null),
    post("exec_create_unknown", "/containers/none/exec", || json!({"Cmd": ["true"]})),
    post("exec_create_without_body", "/containers/probe/exec", || Value::Null),
    post("exec_create_without_command", "/containers/probe/exec", || json!({"Cmd": []})),
    post("exec_create_wrong_type", "/containers/probe/exec", || json!({"Cmd": 5})),
    post(
        "exec_create_bad_keys",
        "/containers/running-probe/exec",
        || json!({"Cmd": ["true"], "DetachKeys": "foo"}),
    ),
    post(
        "exec_create_bad_user",
        "/containers/running-probe/exec",
        || json!({"Cmd": ["true"], "User": "x:y"}),
    ),
    post("exec_start_unknown", "/exec/none/start", || json!({})),
    post("exec_start_unknown_detached", "/exec/none/start", || json!({"Detach": true})),
    post("exec_start_without_body", "/exec/none/start", || Value::Null),
    post("exec_start_wrong_type", "/exec/none/start", || json!({"Detach": "x"})),
    post("exec_resize_unknown", "/exec/none/resize?h=1&w=2", || Value::Null),
    post("exec_resize_without_size", "/exec/none/resize", || Value::Null),
    get("exec_inspect_unknown", "/exec/none/json", Show::Whole),
    get("top_unknown", "/containers/none/top", Show::Whole),
    get("attach_websocket_unknown", "/containers/none/attach/ws", Show::Whole),
    post("resize_bad", "/containers/running-probe/resize?h=x&w=1", || Value::Null),
    post(
        "create_bad_health",
        "/containers/create",
        || json!({"Image": "busybox", "Healthcheck": {"Timeout": 1}}),
    ),
    post("create_without_body", "/containers/create", || Value::Null),
    post("create_without_image", "/containers/create", || json!({})),
    post("create_unknown_image", "/containers/create", || json!({"Image": "none:such"})),
    post("create_bad_image", "/containers/create", || json!({"Image": "Upper"})),
    post("create_bad_name", "/containers/create?name=-x", || json!({"Image": "busybox"})),
    post(
        "create_without_command",
        "/containers/create?name=nocmd",
        || json!({"Image": "busybox", "Cmd": [], "Entrypoint": [""]}),
    ),
    post(
        "create_bad_directory",
        "/containers/create",
        || json!({"Image": "busybox", "WorkingDir": "relative"}),
    ),
    post("create_wrong_type", "/containers/create", || json!({"Image": 5})),
    post("tag_unknown", "/images/none/tag?repo=x&tag=y", || Value::Null),
    post("tag_bad_name", "/images/busybox/tag?repo=X", || Value::Null),
];

/// Makes the call on both and compares; the error shows both answers.
pub(crate) fn compare(probe: &Probe, ours: &dyn Subject, theirs: &dyn Subject) -> Result<()> {
    let (ours, theirs) = (answer(probe, ours)?, answer(probe, theirs)?);
    ensure!(ours == theirs, "\n  caisson: {} {:#}\n  dockerd: {} {:#}", ours.0, ours.1, theirs.0, theirs.1);
    Ok(())
}

fn answer(probe: &Probe, on: &dyn Subject) -> Result<(u16, Value)> {
    let api = on.api();
    let answer = match &probe.call {
        Call::Get(path) => api.get(path)?,
        Call::Delete(path) => api.delete(path)?,
        Call::Post(path, body) => api.post(path, &body())?,
        Call::Put(path, body) => {
            let json = [("content-type", "application/json")];
            api.call(hyper::Method::PUT, path, &json, serde_json::to_vec(&body())?)?
        }
    };
    // Some errors are plain text, on both.
    let mut body = answer.json().unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into());
    for pointer in probe.except {
        let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(fields) = body.pointer_mut(parent).and_then(Value::as_object_mut) {
            fields.remove(field);
        }
    }
    Ok((
        answer.status,
        match probe.show {
            Show::Whole => body,
            Show::Shape => shape(&body),
        },
    ))
}

/// The value's fields and kinds, without what they hold. An array is shown by its first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::String(_) => json!("string"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("bool"),
        Value::Null => Value::Null,
    }
}
