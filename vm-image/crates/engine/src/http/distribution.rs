//! `GET /distribution/{name}/json`: what a registry has under a name, without fetching it.

use caisson_images::{AnyReference, Reference};
use hyper::StatusCode;
use serde_json::json;

use super::call::Call;
use super::images::credentials;
use super::reply::{self, Reply};
use crate::error::{ApiError, chain};
use crate::images;

pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    if let Ok(AnyReference::Id(_)) = AnyReference::parse(&call.name) {
        return Err(ApiError::internal("no manifest found for full image ID"));
    }
    let name = Reference::parse(&call.name).map_err(|e| ApiError::invalid(chain(&e)))?.or_latest();
    let credentials = credentials(&call);
    let found = call.engine.puller.inspect(&name, &credentials).await.map_err(|e| images::error(&e))?;
    let told = json!({
        "Descriptor": {
            "mediaType": found.document.media_type,
            "digest": found.document.digest,
            "size": found.document.bytes.len(),
        },
        "Platforms": found.platforms,
    });
    Ok(reply::json(StatusCode::OK, &told))
}
