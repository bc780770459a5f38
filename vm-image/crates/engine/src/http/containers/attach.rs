//! `POST /containers/{id}/attach`: the connection becomes the container's streams.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::debug;

use crate::containers::Handle;
use crate::containers::attach::{Attached, DetachKeys, Left, Streams, Typing, copy, gone};
use crate::containers::logs::{LogOptions, Logs};
use crate::error::ApiError;
use crate::events::Events;
use crate::http::call::Call;
use crate::http::hijack;
use crate::http::reply::Reply;
use crate::http::{MULTIPLEXED, RAW};

/// Which streams a client asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// All that is needed to serve an attached client.
pub(super) struct Attachment {
    past: Option<Logs>,
    attached: Option<Attached>,
    /// Whether the client's input is wanted, and what it means.
    stdin: Option<Typing>,
    container: Handle,
    /// How often the container had ended before.
    ends: u64,
    events: Arc<Events>,
}

pub(crate) async fn attach(call: Call) -> Result<Reply, ApiError> {
    let form = &call.form;
    let wish = Wish { stdin: form.bool("stdin"), stdout: form.bool("stdout"), stderr: form.bool("stderr") };
    // The keys are looked at before the container, as in dockerd.
    DetachKeys::parse(form.get("detachKeys"))?;
    let handle = call.engine.containers.find(&call.name)?;
    let attachment = prepare(&call, &handle, wish).await?;
    let multiplexed = !handle.definition().config.tty && call.version.at_least(42);
    let head = hijack::head(&call.headers, if multiplexed { MULTIPLEXED } else { RAW });
    Ok(call.hijacker.take(Box::new(move |client, sent| {
        Box::pin(async move { attachment.serve(client, sent, &head).await })
    })))
}

/// Does what can fail before a client is told that it is attached.
pub(super) async fn prepare(call: &Call, handle: &Handle, wish: Wish) -> Result<Attachment, ApiError> {
    let form = &call.form;
    let keys = DetachKeys::parse(form.get("detachKeys"))?;
    refuse_inactive(handle, &call.name)?;
    let definition = handle.definition();
    let config = &definition.config;
    let streams =
        Streams { stdin: wish.stdin && config.open_stdin, stdout: wish.stdout, stderr: wish.stderr };
    let past = match form.bool("logs") {
        true => Some(call.engine.containers.logs(handle, past(streams))?),
        false => None,
    };
    let ends = handle.ends();
    let attached = match form.bool("stream") {
        true => Some(handle.attach(streams).await?),
        false => None,
    };
    let stdin = streams.stdin.then(|| Typing {
        keys: if config.tty { keys } else { DetachKeys::none() },
        detaches_at_end: config.tty || !config.stdin_once,
    });
    let events = call.engine.events.clone();
    Ok(Attachment { past, attached, stdin, container: handle.clone(), ends, events })
}

fn refuse_inactive(handle: &Handle, name: &str) -> Result<(), ApiError> {
    let told = handle.state().describe();
    if told.paused {
        let why = "is paused, unpause the container before attach";
        return Err(ApiError::conflict(format!("container {name} {why}")));
    }
    if told.restarting {
        let why = "is restarting, wait until the container is running";
        return Err(ApiError::conflict(format!("container {name} {why}")));
    }
    Ok(())
}

impl Attachment {
    /// Serves the client until it or the container's output has ended. `head` is said first.
    pub(super) async fn serve(self, client: UnixStream, sent: Bytes, head: &str) {
        let Self { past, attached, stdin, container, ends, events } = self;
        let over = container.ended_after(ends);
        match carry(client, sent, head, past, attached, stdin, over).await {
            Ok(Left::Ended | Left::Gone) => {}
            Ok(Left::Detached) => {
                let attributes = crate::containers::attributes(&container.definition(), &[]);
                events.publish("container", "detach", &container.id, attributes);
            }
            Err(error) => debug!(%error, "an attached client went"),
        }
    }
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
    head: &str,
    past: Option<Logs>,
    attached: Option<Attached>,
    stdin: Option<Typing>,
    over: impl Future,
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
    let container = tokio::select! {
        container = attached.stream() => container,
        () = gone(&client) => return Ok(Left::Gone),
    };
    match container {
        Some(container) => Ok(copy(client, sent, container, stdin, over).await),
        None => Ok(Left::Ended),
    }
}
