//! `GET /containers/{id}/top`.

use hyper::StatusCode;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

pub(crate) async fn top(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    let work = move || call.engine.containers.top(&handle, call.form.get("ps_args"));
    let top = tokio::task::spawn_blocking(work).await??;
    Ok(reply::json(StatusCode::OK, &top))
}
