//! Images that come as archives: `POST /images/load` and `POST /images/create?fromSrc=-`.
//!
//! Both answer with a stream of JSON objects, each with its `\r\n`. What goes wrong after the first of them is an object of
//! the stream, not a status.

use bytes::Bytes;
use caisson_images::{ImportOptions, LoadEvent, LoadOptions};
use serde::Serialize;
use tokio::sync::mpsc;

use super::platform;
use super::progress::{error_line, line};
use super::pull::pull;
use super::{reference, tell};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::containers::create;
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
        ("", "-") => import(call),
        ("", "") => Err(ApiError::invalid("neither fromImage nor fromSrc says where the image comes from")),
        ("", source) => Err(ApiError::not_implemented(format!(
            "importing from {source} is not supported by this version of Caisson: send the archive itself"
        ))),
        _ => pull(call).await,
    }
}

fn import(call: Call) -> Result<Reply, ApiError> {
    let form = &call.form;
    let target = match form.get("repo") {
        "" => None,
        repo => Some(reference(repo, form.get("tag"))?),
    };
    let options = ImportOptions {
        reference: target,
        platform: create::platform(form.get("platform"))?,
        message: form.get("message").to_owned(),
        changes: form.all("changes"),
    };
    let (engine, archive) = (call.engine, BodyReader::new(call.body));
    Ok(reply::stream("application/json", |to| async move {
        let work = move || match engine.images.import(archive, &options) {
            Ok(id) => {
                let id = id.to_string();
                if let Some(name) = &options.reference {
                    tell(&engine, "tag", &id, &name.familiar());
                }
                tell(&engine, "import", &id, &id);
                send(&to, &serde_json::json!({"status": id}));
            }
            Err(error) => send_error(&to, &images::error(&error)),
        };
        // As above.
        let _ = tokio::task::spawn_blocking(work).await;
    }))
}

fn send(to: &mpsc::Sender<Bytes>, value: &impl Serialize) {
    // The work goes on when its client goes, as it does in dockerd.
    let _ = to.blocking_send(line(value));
}

fn send_error(to: &mpsc::Sender<Bytes>, error: &ApiError) {
    // As above.
    let _ = to.blocking_send(error_line(error));
}
