//! Images that come as archives: `POST /images/load`; and who makes them otherwise, `POST /images/create`.
//!
//! The answers are streams of JSON objects, each with its `\r\n`. What goes wrong after the first of them is an object of
//! the stream, not a status.

use bytes::Bytes;
use caisson_images::{LoadEvent, LoadOptions};
use tokio::sync::mpsc;

use super::import::import;
use super::progress::{send, send_error};
use super::pull::pull;
use super::{platform, tell};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images::{self, BodyReader};

/// `POST /images/load`.
pub(crate) async fn load(call: Call) -> Result<Reply, ApiError> {
    let quiet = call.form.bool_or("quiet", false);
    let options = LoadOptions { platform: platform::only_one_asked(&call, 48)? };
    let (engine, archive) = (call.engine, BodyReader::new(call.body));
    Ok(reply::stream("application/json", |to| async move {
        let work = move || load_archive(&engine, archive, &options, quiet, &to);
        // A panic in there ends the stream, which the client sees.
        let _ = tokio::task::spawn_blocking(work).await;
    }))
}

fn load_archive(
    engine: &Engine,
    archive: BodyReader,
    options: &LoadOptions,
    quiet: bool,
    to: &mpsc::Sender<Bytes>,
) {
    let mut on_event = |event: LoadEvent| match event {
        LoadEvent::Layer { id, current, total } if !quiet => send(
            to,
            &serde_json::json!({
                "status": "Loading layer",
                "progressDetail": {"current": current, "total": total},
                "id": id,
            }),
        ),
        LoadEvent::Layer { .. } => {}
        LoadEvent::Message(text) => send(to, &serde_json::json!({"stream": text})),
    };
    match engine.images.load(archive, options, &mut on_event) {
        Ok(loaded) => {
            for image in loaded {
                let id = image.id.to_string();
                tell(engine, "load", &id, &id);
            }
        }
        Err(error) => send_error(to, &images::error(&error)),
    }
}

/// `POST /images/create`: an import, or a pull.
pub(crate) async fn create(call: Call) -> Result<Reply, ApiError> {
    match (call.form.get("fromImage"), call.form.get("fromSrc")) {
        ("", "") => Err(ApiError::invalid("neither fromImage nor fromSrc says where the image comes from")),
        ("", _) => import(call).await,
        _ => pull(call).await,
    }
}
