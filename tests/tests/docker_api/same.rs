//! Calls that both engines must answer alike: status and body, without what has to differ (ids, times, sizes).

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

pub(crate) const PROBES: &[Probe] = &[
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
    get("image_list", "/images/json?filters=%7B%22reference%22%3A%5B%22busybox%22%5D%7D", Show::Shape),
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
        // Caisson mounts an image in its containers only, so it has no merged directory to name.
        except: &["/GraphDriver/Data"],
    },
    delete("remove_unknown_container", "/containers/none"),
    delete("remove_unknown_image", "/images/none"),
    post("start_unknown", "/containers/none/start", || Value::Null),
    post("stop_unknown", "/containers/none/stop", || Value::Null),
    post("kill_unknown", "/containers/none/kill", || Value::Null),
    post("wait_unknown", "/containers/none/wait", || Value::Null),
    post("attach_unknown", "/containers/none/attach?stream=1", || Value::Null),
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
