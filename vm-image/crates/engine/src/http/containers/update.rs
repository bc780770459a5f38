//! `POST /containers/{id}/update`: limits and a restart policy, the fields of `HostConfig` without the rest of it.

use caisson_docker_api::container::{HostConfig, Updated};
use hyper::StatusCode;

use crate::error::ApiError;
use crate::http::call::{Call, decode};
use crate::http::reply::{self, Reply};

pub(crate) async fn update(mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json_value().await?;
    let body = body.ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    let mut asked: HostConfig = decode(&body)?;
    // Gone since API 1.42, and without a meaning for cgroup v2 in any.
    asked.kernel_memory = 0;
    let warnings = call.engine.containers.update(&call.name, asked).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(reply::json(StatusCode::OK, &Updated { warnings }))
}
