//! Start, stop, restart, kill, pause, rename, resize, remove, prune: calls that change where a container stands.

use hyper::StatusCode;

use crate::containers::remove::RemoveOptions;
use crate::containers::signal::{KILL, SignalNumber};
use crate::containers::stop::StopOptions;
use crate::error::{ApiError, ErrorKind};
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::form::Form;
use crate::http::reply::{self, Reply};

pub(crate) async fn start(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers.find(&call.name)?.start().await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn stop(call: Call) -> Result<Reply, ApiError> {
    let timeout = call.form.int("t")?;
    let handle = call.engine.containers.find(&call.name)?;
    // Whatever it is, dockerd makes it a 500.
    let within = |e: ApiError| match e.kind {
        ErrorKind::NotModified => e,
        _ => ApiError::internal(e.within(&format!("cannot stop container: {}", call.name)).message),
    };
    let signal = stop_signal(&call.form).map_err(within)?;
    handle.stop(&StopOptions { signal, timeout }).await.map_err(within)?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn restart(call: Call) -> Result<Reply, ApiError> {
    let options = StopOptions { signal: stop_signal(&call.form)?, timeout: call.form.int("t")? };
    let handle = call.engine.containers.find(&call.name)?;
    handle
        .restart(&options)
        .await
        .map_err(|e| e.within(&format!("Cannot restart container {}", call.name)))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn pause(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers.find(&call.name)?.pause().await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn unpause(call: Call) -> Result<Reply, ApiError> {
    call.engine.containers.find(&call.name)?.unpause().await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(call: Call) -> Result<Reply, ApiError> {
    let report = call.engine.containers.prune(Filters::parse(call.form.get("filters"))?).await?;
    Ok(reply::json(StatusCode::OK, &report))
}

pub(crate) async fn rename(call: Call) -> Result<Reply, ApiError> {
    let name = call.form.get("name");
    if call.name.is_empty() || name.is_empty() {
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    }
    call.engine.containers.find(&call.name)?.rename(name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn stop_signal(form: &Form) -> Result<Option<SignalNumber>, ApiError> {
    match form.get("signal") {
        "" => Ok(None),
        text => SignalNumber::parse(text).map(Some),
    }
}

pub(crate) async fn kill(call: Call) -> Result<Reply, ApiError> {
    let within = |e: ApiError| e.within(&format!("cannot kill container: {}", call.name));
    let handle = call.engine.containers.find(&call.name).map_err(within)?;
    let signal = match call.form.get("signal") {
        "" => KILL,
        text => SignalNumber::parse(text).map_err(within)?,
    };
    handle.kill(signal).await.map_err(within)?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn resize(call: Call) -> Result<Reply, ApiError> {
    let (rows, cols) = call.form.terminal_size()?;
    call.engine.containers.find(&call.name)?.resize(rows, cols).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    if call.form.bool("link") {
        call.engine.containers.remove_link(&call.name).await?;
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let options = RemoveOptions { force: call.form.bool("force"), volumes: call.form.bool("v") };
    handle.remove(&call.name, options).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
