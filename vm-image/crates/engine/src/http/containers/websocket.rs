//! `GET /containers/{id}/attach/ws`: the container's streams over a websocket, both outputs as one.

use tokio::io::AsyncWriteExt;

use super::attach::{Wish, prepare};
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::Reply;
use crate::http::websocket::{Framing, accept, unframe};

pub(crate) async fn attach(call: Call) -> Result<Reply, ApiError> {
    let chosen = call.version.at_least(42);
    let wants = |name: &str| !chosen || call.form.bool(name);
    let wish = Wish { stdin: wants("stdin"), stdout: wants("stdout"), stderr: wants("stderr") };
    let handle = call.engine.containers.find(&call.name)?;
    let head = accept(&call.headers)?;
    let attachment = prepare(&call, &handle, wish).await?;
    let framing = Framing { binary: call.version.at_least(28), multiplexed: !handle.definition().config.tty };
    Ok(call.hijacker.take(Box::new(move |mut client, sent| {
        Box::pin(async move {
            if client.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            match unframe(client, sent, framing) {
                Ok(plain) => attachment.serve(plain, bytes::Bytes::new(), "").await,
                Err(error) => tracing::warn!(%error, "could not serve a websocket"),
            }
        })
    })))
}
