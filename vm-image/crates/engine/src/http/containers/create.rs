//! `POST /containers/create`: the container's configuration and `HostConfig`, `NetworkingConfig` in one object.

use caisson_docker_api::container::{Config, CreateRequest, Created};
use caisson_images::Platform;
use hyper::StatusCode;
use serde_json::Value;

use super::age;
use crate::containers::create::CreateOptions;
use crate::error::ApiError;
use crate::http::call::{Call, decode};
use crate::http::reply::{self, Reply};

pub(crate) async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json_value().await?;
    let body = body.ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    check_shape(&body)?;
    let mut config: Config = decode(&body)?;
    let CreateRequest { host_config, networking_config } = decode(&body)?;
    let mut host_config = host_config.unwrap_or_default();
    let mut networking = networking_config.unwrap_or_default();
    age::settle(call.version, &mut config, &mut host_config, &mut networking)?;
    let platform = if call.version.at_least(41) { platform(call.form.get("platform"))? } else { None };
    let options = CreateOptions {
        name: call.form.get("name").to_owned(),
        config,
        host_config,
        networking,
        platform,
        shallow_read_only: !call.version.at_least(44),
    };
    let (id, warnings) = call.engine.containers.create(options).await?;
    Ok(reply::json(StatusCode::CREATED, &Created { id, warnings }))
}

fn check_shape(body: &Value) -> Result<(), ApiError> {
    let kind = match body {
        Value::Object(fields) if fields.keys().any(|key| is_config(key)) => return Ok(()),
        Value::Object(_) | Value::Null => {
            return Err(ApiError::invalid("config cannot be empty in order to create a container"));
        }
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    Err(ApiError::invalid(format!(
        "invalid JSON: json: cannot unmarshal {kind} into Go value of type container.CreateRequest"
    )))
}

fn is_config(key: &str) -> bool {
    !key.eq_ignore_ascii_case("HostConfig") && !key.eq_ignore_ascii_case("NetworkingConfig")
}

/// The operating systems and architectures that may stand alone.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Reads `os`, `architecture` or `os/architecture[/variant]`, as containerd's `platforms.Parse` does; empty is no platform.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&str> = text.split('/').collect();
    if let Some(bad) = parts.iter().find(|part| !is_component(part)) {
        return Err(ApiError::invalid(format!(
            "{bad:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
        )));
    }
    let of = |os: &str, architecture: &str, variant: &str| {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }.normalized()
    };
    let mut platform = match parts[..] {
        [one] => alone(one).ok_or_else(|| {
            ApiError::invalid(format!("{text:?}: unknown operating system or architecture: invalid argument"))
        })?,
        [os, architecture] => of(os, architecture, ""),
        [os, architecture, variant] => of(os, architecture, variant),
        _ => {
            return Err(ApiError::invalid(format!(
                "{text:?}: cannot parse platform specifier: invalid argument"
            )));
        }
    };
    // It is told as it is usually written.
    match (platform.architecture.as_str(), platform.variant.as_str(), parts.len()) {
        ("arm", "v7", 1 | 2) => platform.variant.clear(),
        ("arm64", "", 3) => platform.variant = "v8".to_owned(),
        _ => {}
    }
    Ok(Some(platform))
}

fn is_component(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// An operating system with this engine's architecture, or an architecture with its system.
fn alone(text: &str) -> Option<Platform> {
    let here = Platform::here();
    let system = Platform { os: text.into(), ..here.clone() }.normalized();
    let architecture = Platform { architecture: text.into(), variant: String::new(), ..here }.normalized();
    match (SYSTEMS.contains(&system.os.as_str()), ARCHITECTURES.contains(&architecture.architecture.as_str()))
    {
        (true, _) => Some(system),
        (false, true) => Some(architecture),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_containerd_reads_them() {
        let here = Platform::here().architecture;
        for (text, read) in [
            ("linux", format!("linux/{here}")),
            ("x86_64", "linux/amd64".to_owned()),
            ("linux/x86_64", "linux/amd64".to_owned()),
            ("linux/aarch64", "linux/arm64".to_owned()),
            ("linux/arm64/v8", "linux/arm64/v8".to_owned()),
            ("linux/armhf", "linux/arm".to_owned()),
            ("linux/arm/7", "linux/arm/v7".to_owned()),
            ("linux/armel", "linux/arm/v6".to_owned()),
            ("Linux/I386", "linux/386".to_owned()),
            ("linux/unheard-of", "linux/unheard-of".to_owned()),
        ] {
            assert_eq!(platform(text).unwrap().map(|platform| platform.to_string()), Some(read), "{text}");
        }
        assert_eq!(platform("").unwrap(), None);
        for (text, why) in [
            ("unheard-of", "\"unheard-of\": unknown operating system or architecture: invalid argument"),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
            ("linux/", "\"\" is an invalid component of \"linux/\": "),
        ] {
            let refused = platform(text).unwrap_err().message;
            assert!(refused.starts_with(why), "{refused}");
        }
    }
}
