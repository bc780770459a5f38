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

/// Reads `os[/architecture[/variant]]`; empty is no platform.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let here = Platform::here();
    let parts: Vec<&str> = text.split('/').collect();
    let platform = match parts[..] {
        [one] if one == here.os || one == "linux" => Platform { os: one.into(), ..here },
        [one] => Platform { os: here.os, architecture: one.into(), variant: String::new() },
        [os, architecture] => {
            Platform { os: os.into(), architecture: architecture.into(), variant: String::new() }
        }
        [os, architecture, variant] => {
            Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }
        }
        _ => return Err(ApiError::invalid(format!("{text:?}: cannot parse platform specifier"))),
    };
    Ok(Some(platform))
}
