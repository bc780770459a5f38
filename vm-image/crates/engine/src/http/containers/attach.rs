//! `POST /containers/{id}/attach`: the connection becomes the container's streams.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::debug;

use crate::containers::attach::{Attached, DetachKeys, Left, Streams, copy};
use crate::containers::logs::{LogOptions, Logs};
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::hijack;
use crate::http::reply::Reply;
use crate::http::{MULTIPLEXED, RAW};

pub(crate) async fn attach(call: Call) -> Result<Reply, ApiError> {
    let form = &call.form;
    let keys = DetachKeys::parse(form.get("detachKeys"))?;
    let handle = call.engine.containers.find(&call.name)?;
    let config = &handle.definition.config;
    let streams = Streams {
        stdin: form.bool("stdin") && config.open_stdin,
        stdout: form.bool("stdout"),
        stderr: form.bool("stderr"),
    };
    let past = match form.bool("logs") {
        true => Some(call.engine.containers.logs(&handle, past(streams))?),
        false => None,
    };
    let attached = match form.bool("stream") {
        true => Some(handle.attach(streams).await?),
        false => None,
    };
    let multiplexed = !config.tty && call.version.at_least(42);
    let head = hijack::head(&call.headers, if multiplexed { MULTIPLEXED } else { RAW });
    let stdin = streams.stdin.then_some(if config.tty { keys } else { DetachKeys::none() });
    let (events, definition) = (call.engine.events.clone(), handle.definition.clone());
    Ok(call.hijacker.take(Box::new(move |client, sent| {
        Box::pin(async move {
            match carry(client, sent, head, past, attached, stdin).await {
                Ok(Left::Ended) => {}
                Ok(Left::Detached) => {
                    let attributes = crate::containers::attributes(&definition, &[]);
                    events.publish("container", "detach", &definition.id, attributes);
                }
                Err(error) => debug!(%error, "an attached client went"),
            }
        })
    })))
}

fn past(streams: Streams) -> LogOptions {
    LogOptions {
        stdout: streams.stdout,
        stderr: streams.stderr,
        follow: false,
        timestamps: false,
        details: false,
        since: None,
        until: None,
        tail: None,
    }
}

async fn carry(
    mut client: UnixStream,
    sent: Bytes,
    head: String,
    past: Option<Logs>,
    attached: Option<Attached>,
    stdin: Option<DetachKeys>,
) -> std::io::Result<Left> {
    client.write_all(head.as_bytes()).await?;
    if let Some(past) = past {
        let (to, mut chunks) = mpsc::channel(4);
        let telling = tokio::spawn(past.send(to));
        while let Some(chunk) = chunks.recv().await {
            client.write_all(&chunk).await?;
        }
        telling.await?;
    }
    let Some(attached) = attached else { return Ok(Left::Ended) };
    // A client who goes before the start is noticed at the start.
    match attached.stream().await {
        Some(container) => Ok(copy(client, sent, container, stdin).await),
        None => Ok(Left::Ended),
    }
}
