//! `GET /containers/json`.

use hyper::StatusCode;

use crate::containers::list::ListOptions;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let form = &call.form;
    let options = ListOptions {
        all: form.bool("all"),
        limit: usize::try_from(form.int("limit")?.unwrap_or(0)).unwrap_or(0),
        size: form.bool("size"),
        filters: Filters::parse(form.get("filters"))?,
    };
    let containers = call.engine.containers.clone();
    let mut list = tokio::task::spawn_blocking(move || containers.list(options)).await??;
    if !call.version.at_least(46) {
        list.iter_mut().for_each(|summary| summary.host_config.annotations = None);
    }
    Ok(reply::json(StatusCode::OK, &list))
}
