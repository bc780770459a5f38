//! `GET /images/{name}/history`: how an image came to be, the last step first.

use caisson_docker_api::image::HistoryItem;
use caisson_images::{History, Image};
use hyper::StatusCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::platform;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images;

/// What stands for the id of a step that left no image here.
const MISSING: &str = "<missing>";

pub(crate) async fn history(call: Call) -> Result<Reply, ApiError> {
    let (engine, wanted) = (call.engine.clone(), platform::asked(&call, 48)?);
    let told = tokio::task::spawn_blocking(move || {
        let image = engine.images.find_for(&call.name, wanted.as_ref()).map_err(|e| images::error(&e))?;
        Ok::<_, ApiError>(told(&engine, &image))
    });
    Ok(reply::json(StatusCode::OK, &told.await??))
}

fn told(engine: &Engine, image: &Image) -> Vec<HistoryItem> {
    let mut layers = image.config.rootfs.diff_ids.iter();
    let mut items: Vec<HistoryItem> = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let size = layer.and_then(|layer| engine.images.layer_size(layer)).unwrap_or_default();
        items.push(item(step, i64::try_from(size).unwrap_or(i64::MAX)));
    }
    items.reverse();
    let mut at = Some(image.clone());
    for item in &mut items {
        let Some(image) = at.take() else { break };
        item.id = image.id.to_string();
        item.tags = Some(image.repo_tags()).filter(|tags| !tags.is_empty());
        at = image.parent.and_then(|parent| engine.images.find(&parent.to_string()).ok());
    }
    items
}

fn item(step: &History, size: i64) -> HistoryItem {
    let created = step.created.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    HistoryItem {
        comment: step.comment.clone(),
        created: created.map_or(0, OffsetDateTime::unix_timestamp),
        created_by: step.created_by.clone(),
        id: MISSING.to_owned(),
        size,
        tags: None,
    }
}
