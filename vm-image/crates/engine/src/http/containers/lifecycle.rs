//! Start, stop, restart, kill, resize, remove: calls that answer without a body.

use hyper::StatusCode;

use crate::containers::signal::{KILL, SignalNumber};
use crate::containers::stop::StopOptions;
use crate::error::{ApiError, ErrorKind};
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
    let size = |name: &str, what: &str| {
        let text = call.form.get(name);
        let bad = |why: &str| ApiError::invalid(format!("invalid resize {what} {text:?}: {why}"));
        match text.parse::<u32>() {
            Ok(number) => u16::try_from(number).map_err(|_| bad("value out of range")),
            Err(_) => Err(bad("invalid syntax")),
        }
    };
    let (rows, cols) = (size("h", "height")?, size("w", "width")?);
    call.engine.containers.find(&call.name)?.resize(rows, cols).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove(call: Call) -> Result<Reply, ApiError> {
    if call.form.bool("link") {
        return Err(ApiError::not_implemented("links are not supported by this version of Caisson"));
    }
    // `v` asks for the removal of anonymous volumes, of which there are none.
    let handle = call.engine.containers.find(&call.name)?;
    handle.remove(&call.name, call.form.bool("force")).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
