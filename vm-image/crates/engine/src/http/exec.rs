//! `/exec` and `POST /containers/{id}/exec`: processes that are added to a running container.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caisson_docker_api::exec::{ExecCreated, ExecOptions, ExecStartOptions};
use caisson_docker_api::go;
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::debug;

use crate::containers::Containers;
use crate::containers::attach::{DetachKeys, Left, Streams, Typing, copy};
use crate::containers::exec::{Begun, Exec, Wish};
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::hijack::{self, Hijacker};
use crate::http::reply::{self, Reply};
use crate::http::{MULTIPLEXED, RAW};

/// How long the rest of a body may take to get here from the part of the engine that has read it, when the client has ended its input.
const BODY_WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let mut options: ExecOptions = body(&mut call, "ExecOptions").await?;
    let Some(command) = options.cmd.take().filter(|words| !words.is_empty()) else {
        return Err(ApiError::invalid("No exec command specified"));
    };
    let container = call.engine.containers.find(&call.name)?;
    let wish = Wish {
        command,
        tty: options.tty,
        streams: Streams {
            stdin: options.attach_stdin,
            stdout: options.attach_stdout,
            stderr: options.attach_stderr,
        },
        detach_keys: keys(&options.detach_keys)?,
        privileged: options.privileged,
        user: options.user,
        working_dir: options.working_dir,
        env: options.env.unwrap_or_default(),
        console_size: options.console_size.filter(|_| call.version.at_least(42)),
    };
    let exec = call.engine.containers.create_exec(container, &call.name, wish).await?;
    Ok(reply::json(StatusCode::CREATED, &ExecCreated { id: exec.id.clone() }))
}

/// Status 500 for bad keys, and other words than for an attach: so does dockerd.
fn keys(text: &str) -> Result<Vec<u8>, ApiError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let keys = DetachKeys::parse(text);
    keys.map(|keys| keys.bytes().to_vec())
        .map_err(|_| ApiError::internal(format!("Invalid escape keys ({text}) provided")))
}

/// The body as Go reads its struct `name`; no body is as good as an empty one.
async fn body<T: DeserializeOwned + Default>(call: &mut Call, name: &'static str) -> Result<T, ApiError> {
    let Some(body) = call.json_value().await? else { return Ok(T::default()) };
    go::decode_as(&body, name).map_err(|e| ApiError::invalid(format!("invalid JSON: {e}")))
}

pub(crate) async fn start(mut call: Call) -> Result<Reply, ApiError> {
    let hijacker = call.hijacker.clone();
    let options = start_options(&mut call, &hijacker).await?;
    hijacker.stop_reading();
    let containers = call.engine.containers.clone();
    let exec = containers.active_exec(&call.name)?;
    let size = options.console_size.filter(|_| options.tty && call.version.at_least(42));
    if options.detach {
        containers.start_exec(&exec, false, size).await?;
        return Ok(hijack::closing(reply::empty(StatusCode::OK)));
    }
    let multiplexed = !options.tty && call.version.at_least(42);
    let head = hijack::head(&call.headers, if multiplexed { MULTIPLEXED } else { RAW });
    Ok(call.hijacker.take(Box::new(move |client, sent| {
        Box::pin(async move {
            if let Err(error) = carry(client, sent, head, &containers, &exec, size, options.tty).await {
                debug!(%error, "the client of an added process went");
            }
        })
    })))
}

/// Reads the body, which must not be waited for when the client has ended its input within it.
async fn start_options(call: &mut Call, hijacker: &Hijacker) -> Result<ExecStartOptions, ApiError> {
    let reading = body(call, "ExecStartOptions");
    tokio::pin!(reading);
    tokio::select! {
        options = &mut reading => options,
        () = hijacker.ended() => match tokio::time::timeout(BODY_WITHIN, reading).await {
            Ok(options) => options,
            Err(_) => Err(ApiError::invalid("invalid JSON: unexpected EOF")),
        },
    }
}

/// Starts the process, gives the client its streams, and lets it go when the end of the process is known.
async fn carry(
    mut client: UnixStream,
    sent: Bytes,
    head: String,
    containers: &Containers,
    exec: &Arc<Exec>,
    size: Option<[u32; 2]>,
    tty: bool,
) -> std::io::Result<()> {
    client.write_all(head.as_bytes()).await?;
    match containers.start_exec(exec, true, size).await {
        Err(error) => client.write_all(&complaint(&error, tty)).await,
        Ok(Begun::Alone) => Ok(()),
        Ok(Begun::Attached(stream)) => {
            let wish = &exec.wish;
            let keys = if wish.tty { DetachKeys::of(&wish.detach_keys) } else { DetachKeys::none() };
            let stdin = wish.streams.stdin.then_some(Typing { keys, detaches_at_end: wish.tty });
            if copy(client, sent, stream, stdin, exec.ended()).await == Left::Detached {
                containers.tell_exec_detached(exec);
            }
            Ok(())
        }
    }
}

/// An error in the place of the output.
fn complaint(error: &ApiError, tty: bool) -> Vec<u8> {
    const STDOUT: u8 = 1;
    let text = format!("{error}\r\n");
    if tty {
        return text.into_bytes();
    }
    let length = u32::try_from(text.len()).expect("an error is a few hundred bytes");
    [&[STDOUT, 0, 0, 0][..], &length.to_be_bytes(), text.as_bytes()].concat()
}

pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    let exec = call.engine.containers.exec(&call.name)?;
    Ok(reply::json(StatusCode::OK, &exec.inspect()))
}

pub(crate) async fn resize(call: Call) -> Result<Reply, ApiError> {
    let (rows, cols) = call.form.terminal_size()?;
    let exec = call.engine.containers.active_exec(&call.name)?;
    call.engine.containers.resize_exec(&exec, rows, cols).await?;
    Ok(reply::empty(StatusCode::OK))
}
