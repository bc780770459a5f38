//! `GET /containers/{id}/json`.

use hyper::StatusCode;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    let (containers, size) = (call.engine.containers.clone(), call.form.bool("size"));
    let told = tokio::task::spawn_blocking(move || containers.inspect(&handle, size)).await?;
    Ok(reply::json(StatusCode::OK, &told))
}
