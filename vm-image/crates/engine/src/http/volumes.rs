//! `/volumes`.

use std::collections::BTreeMap;

use caisson_docker_api::volume::{CreateRequest, ListResponse, PruneReport, UsageData};
use caisson_volumes::{DRIVER, NewVolume, Volume, bytes_below};
use hyper::StatusCode;
use tracing::warn;

use super::call::{Call, decode};
use super::reply::{self, Reply};
use crate::engine::Engine;
use crate::error::{ApiError, chain};
use crate::filters::Filters;
use crate::volumes::{error, tell, told};

const LIST_FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: [&str; 3] = ["all", "label", "label!"];

/// `GET /volumes`.
pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let filters =
        Filters::parse(call.form.get("filters")).map_err(|e| e.within("error reading volume filters"))?;
    let filters = filters.only(&LIST_FILTERS)?;
    let dangling = filters.bool("dangling")?;
    let volumes = &call.engine.volumes;
    let names = filters.expressions("name");
    let wanted = |volume: &Volume| {
        names.are_met_by(&volume.name)
            && filters.any("driver", |driver| driver == DRIVER)
            && filters.labels("label", &labels(volume))
            && dangling.is_none_or(|dangling| dangling == volumes.holders(&volume.name).is_empty())
    };
    let volumes = volumes.list().into_iter().filter(wanted).map(|volume| told(volume, None)).collect();
    Ok(reply::json(StatusCode::OK, &ListResponse { volumes, warnings: None }))
}

fn labels(volume: &Volume) -> BTreeMap<String, String> {
    volume.labels.clone().unwrap_or_default()
}

/// `GET /volumes/{name}`.
pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    let volume = call.engine.volumes.get(&call.name).map_err(|e| error(&e))?;
    Ok(reply::json(StatusCode::OK, &told(volume, None)))
}

/// `POST /volumes/create`.
pub(crate) async fn create(mut call: Call) -> Result<Reply, ApiError> {
    // No body asks for an anonymous volume.
    let body = call.json_value().await?.unwrap_or_else(|| serde_json::json!({}));
    let CreateRequest { cluster_volume_spec, driver, driver_opts, labels, name } = decode(&body)?;
    if cluster_volume_spec.is_some() {
        return Err(not_a_swarm());
    }
    let engine = call.engine;
    let made = tokio::task::spawn_blocking(move || {
        let new = NewVolume { name, driver, options: driver_opts, labels };
        let (volume, is_new) = engine.volumes.create(new, None).map_err(|e| error(&e))?;
        if is_new {
            tell(&engine.events, "create", &volume.name, &[]);
        }
        Ok::<_, ApiError>(volume)
    });
    Ok(reply::json(StatusCode::CREATED, &told(made.await??, None)))
}

fn not_a_swarm() -> ApiError {
    ApiError::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
}

/// `PUT /volumes/{name}`: only a swarm's volumes can be changed.
pub(crate) async fn update(_call: Call) -> Result<Reply, ApiError> {
    Err(ApiError::unavailable("volume update only valid for cluster volumes, but swarm is unavailable"))
}

/// `DELETE /volumes/{name}`; with `force` that there is none is as good.
pub(crate) async fn remove(call: Call) -> Result<Reply, ApiError> {
    let force = call.form.bool("force");
    let engine = call.engine.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(unknown) = engine.volumes.get(&call.name) {
            return if force { Ok(()) } else { Err(error(&unknown)) };
        }
        engine.volumes.remove(&call.name).map_err(|e| error(&e))?;
        tell(&engine.events, "destroy", &call.name, &[]);
        Ok(())
    })
    .await??;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /volumes/prune`: the anonymous ones that no container holds; with `all` the named ones too.
pub(crate) async fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&PRUNE_FILTERS)?;
    // Clients from before the filter expect that all go.
    let all = !call.version.at_least(42) || asks_for_all(&filters)?;
    let engine = call.engine;
    let report = tokio::task::spawn_blocking(move || prune_those(&engine, &filters, all)).await?;
    Ok(reply::json(StatusCode::OK, &report))
}

fn asks_for_all(filters: &Filters) -> Result<bool, ApiError> {
    let Some(text) = filters.get("all").first() else { return Ok(false) };
    match text.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ApiError::invalid(format!(
            "invalid filter 'all': strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))),
    }
}

fn prune_those(engine: &Engine, filters: &Filters, all: bool) -> PruneReport {
    let wanted = |volume: &Volume| {
        let labels = labels(volume);
        (all || volume.is_anonymous())
            && !volume.has_options()
            && engine.volumes.holders(&volume.name).is_empty()
            && filters.prunes(&labels)
    };
    let mut report = PruneReport { volumes_deleted: Vec::new(), space_reclaimed: 0 };
    for volume in engine.volumes.list().into_iter().filter(wanted) {
        let bytes = bytes_below(&volume.path);
        match engine.volumes.remove(&volume.name) {
            Ok(()) => {
                tell(&engine.events, "destroy", &volume.name, &[]);
                report.volumes_deleted.push(volume.name);
                report.space_reclaimed += bytes;
            }
            // A container took it meanwhile.
            Err(error) => warn!(volume = volume.name, error = %chain(&error), "could not remove a volume"),
        }
    }
    let reclaimed = BTreeMap::from([("reclaimed".to_owned(), report.space_reclaimed.to_string())]);
    engine.events.publish("volume", "prune", "", reclaimed);
    report
}

/// Every volume with how much of it is used: for `docker system df`. Blocks.
pub(crate) fn usage(engine: &Engine) -> Vec<caisson_docker_api::volume::Volume> {
    let volumes = engine.volumes.list().into_iter().filter(|volume| !volume.has_options());
    let measured = |volume: Volume| {
        let usage = UsageData {
            ref_count: i64::try_from(engine.volumes.holders(&volume.name).len()).unwrap_or(i64::MAX),
            size: i64::try_from(bytes_below(&volume.path)).unwrap_or(i64::MAX),
        };
        told(volume, Some(usage))
    };
    volumes.map(measured).collect()
}
