//! `docker cp`, `diff`, `export`: a container's files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caisson_docker_api::container::PathStat;
use hyper::StatusCode;
use tokio::sync::oneshot;

use crate::containers::archive::UnpackWishes;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, ChannelWriter, Reply};
use crate::images::BodyReader;

const TAR: &str = "application/x-tar";

/// `HEAD /containers/{id}/archive`.
pub(crate) async fn stat(call: Call) -> Result<Reply, ApiError> {
    let path = path(&call)?;
    let handle = call.engine.containers.find(&call.name)?;
    let stat = call.engine.containers.stat_path(&handle, &call.name, path).await?;
    let mut reply = reply::empty(StatusCode::OK);
    tell(&mut reply, &stat);
    Ok(reply)
}

/// `GET /containers/{id}/archive`.
pub(crate) async fn pack(call: Call) -> Result<Reply, ApiError> {
    let path = path(&call)?.to_owned();
    let handle = call.engine.containers.find(&call.name)?;
    let (writer, written) = ChannelWriter::new();
    let (told, stat) = oneshot::channel();
    let (containers, name) = (call.engine.containers.clone(), call.name);
    tokio::spawn(async move { containers.pack_path(&handle, &name, &path, told, writer).await });
    let stat = stat.await.unwrap_or_else(|_| Err(ApiError::internal("the engine failed")))?;
    let mut reply = reply::written(TAR, written);
    tell(&mut reply, &stat);
    Ok(reply)
}

/// `PUT /containers/{id}/archive`.
pub(crate) async fn unpack(call: Call) -> Result<Reply, ApiError> {
    let path = path(&call)?.to_owned();
    let handle = call.engine.containers.find(&call.name)?;
    let wishes = UnpackWishes {
        as_user: call.form.bool("copyUIDGID"),
        keep_kinds: call.form.bool("noOverwriteDirNonDir"),
    };
    let archive = BodyReader::new(call.body);
    call.engine.containers.unpack_at(&handle, &call.name, &path, wishes, archive).await?;
    Ok(reply::empty(StatusCode::OK))
}

fn path(call: &Call) -> Result<&str, ApiError> {
    match call.form.get("path") {
        "" => Err(ApiError::invalid("bad parameter: pathcannot be empty")),
        path => Ok(path),
    }
}

fn tell(reply: &mut Reply, stat: &PathStat) {
    let json = serde_json::to_vec(stat).expect("it has string keys");
    reply::header(reply, "x-docker-container-path-stat", &STANDARD.encode(json));
}

/// `GET /containers/{id}/changes`.
pub(crate) async fn changes(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    let containers = call.engine.containers.clone();
    let changes = tokio::task::spawn_blocking(move || containers.changes(&handle)).await??;
    // Go's nil.
    Ok(reply::json(StatusCode::OK, &(!changes.is_empty()).then_some(changes)))
}

/// `GET /containers/{id}/export`.
pub(crate) async fn export(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    let (writer, written) = ChannelWriter::new();
    let (told, ready) = oneshot::channel();
    let containers = call.engine.containers.clone();
    tokio::spawn(async move { containers.export(&handle, told, writer).await });
    ready.await.unwrap_or_else(|_| Err(ApiError::internal("the engine failed")))?;
    Ok(reply::written(TAR, written))
}
