//! `POST /commit`.

use caisson_docker_api::container::{CommitResponse, Config};
use caisson_images::Reference;
use hyper::StatusCode;
use serde_json::Value;

use crate::containers::commit::CommitWishes;
use crate::error::{ApiError, chain};
use crate::http::call::{Call, decode};
use crate::http::images::tell;
use crate::http::reply::{self, Reply};

pub(crate) async fn commit(mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json_value().await?;
    let config: Option<Config> = body.filter(|body| *body != Value::Null).as_ref().map(decode).transpose()?;
    let form = &call.form;
    let reference = match form.get("repo") {
        "" => None,
        repo => Some(
            Reference::from_repo_and_tag(repo, form.get("tag")).map_err(|e| ApiError::invalid(chain(&e)))?,
        ),
    };
    let wishes = CommitWishes {
        reference: reference.clone(),
        author: form.get("author").to_owned(),
        comment: form.get("comment").to_owned(),
        pause: form.bool_or("pause", true),
        changes: form.all("changes"),
        config,
    };
    let handle = call.engine.containers.find(form.get("container"))?;
    let id = call.engine.containers.commit(&handle, wishes).await?.to_string();
    tell(&call.engine, "create", &id, &id);
    if let Some(name) = reference {
        tell(&call.engine, "tag", &id, &name.familiar());
    }
    Ok(reply::json(StatusCode::CREATED, &CommitResponse { id }))
}
