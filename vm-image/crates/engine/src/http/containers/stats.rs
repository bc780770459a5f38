//! `GET /containers/{id}/stats`: a sample each second, or one.

use std::time::Duration;

use caisson_docker_api::container::Stats;
use hyper::StatusCode;

use crate::containers::Handle;
use crate::containers::state::State;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply, json_line};

/// How long it is from one sample to the next.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn stats(call: Call) -> Result<Reply, ApiError> {
    let handle = call.engine.containers.find(&call.name)?;
    let stream = call.form.bool_or("stream", true);
    let one_shot = call.form.bool("one-shot");
    match (stream, one_shot) {
        (true, true) => Err(ApiError::invalid("cannot have stream=true and one-shot=true")),
        (true, false) => Ok(follow(handle)),
        (false, _) if handle.state().running().is_none() => {
            Ok(reply::json(StatusCode::OK, &handle.no_sample()))
        }
        // dockerd leaves the name out here.
        (false, true) => Ok(reply::json(StatusCode::OK, &sample(&handle).await?)),
        (false, false) => {
            let before = sample(&handle).await?;
            tokio::time::sleep(INTERVAL).await;
            Ok(reply::json(StatusCode::OK, &after(&handle, &before).await?))
        }
    }
}

/// Until the client goes, or the container is removed. One that does not run has empty samples.
fn follow(handle: Handle) -> Reply {
    reply::stream("application/json", |to| async move {
        let mut before = Stats::default();
        while !matches!(handle.state(), State::Removed) {
            let Ok(stats) = after(&handle, &before).await else { return };
            if to.send(json_line(&stats)).await.is_err() {
                return;
            }
            before = stats;
            tokio::time::sleep(INTERVAL).await;
        }
    })
}

/// A sample with the processors' counts of the one before.
async fn after(handle: &Handle, before: &Stats) -> Result<Stats, ApiError> {
    let mut stats = sample(handle).await?;
    handle.sign(&mut stats);
    stats.preread = before.read;
    stats.precpu_stats = before.cpu_stats.clone();
    Ok(stats)
}

async fn sample(handle: &Handle) -> Result<Stats, ApiError> {
    let handle = handle.clone();
    let sampled = move || handle.sample().unwrap_or_else(|| handle.no_sample());
    Ok(tokio::task::spawn_blocking(sampled).await?)
}
