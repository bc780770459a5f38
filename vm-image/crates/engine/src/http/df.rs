//! `GET /system/df`: what takes how much of the disk.

use caisson_docker_api::system::DiskUsage;
use hyper::StatusCode;

use super::call::Call;
use super::images::list::{Wish, layers_size, summaries};
use super::reply::{self, Reply};
use super::volumes;
use crate::containers::list::ListOptions;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::filters::Filters;

/// What is asked for: everything, or by API 1.42 what `type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    containers: bool,
    images: bool,
    volumes: bool,
    build_cache: bool,
}

impl Wanted {
    fn read(types: &[String]) -> Result<Self, ApiError> {
        let all = types.is_empty();
        let mut wanted = Self { containers: all, images: all, volumes: all, build_cache: all };
        for name in types {
            match name.as_str() {
                "container" => wanted.containers = true,
                "image" => wanted.images = true,
                "volume" => wanted.volumes = true,
                "build-cache" => wanted.build_cache = true,
                other => return Err(ApiError::invalid(format!("unknown object type: {other}"))),
            }
        }
        Ok(wanted)
    }
}

pub(crate) async fn df(call: Call) -> Result<Reply, ApiError> {
    let types = if call.version.at_least(42) { call.form.all("type") } else { Vec::new() };
    let wanted = Wanted::read(&types)?;
    let engine = call.engine.clone();
    let usage = tokio::task::spawn_blocking(move || measure(&engine, wanted)).await??;
    Ok(reply::json(StatusCode::OK, &usage))
}

fn measure(engine: &Engine, wanted: Wanted) -> Result<DiskUsage, ApiError> {
    let mut usage = DiskUsage::default();
    if wanted.containers {
        let all = ListOptions { all: true, size: true, ..ListOptions::default() };
        usage.containers = Some(engine.containers.list(all)?);
    }
    if wanted.images {
        let wish = Wish { shared_size: true, ..Wish::default() };
        usage.images = Some(summaries(engine, &Filters::default(), wish)?);
        usage.layers_size = layers_size(engine);
    }
    usage.volumes = wanted.volumes.then(|| volumes::usage(engine));
    usage.build_cache = wanted.build_cache.then(Vec::new);
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_choose_and_none_is_all() {
        let all = Wanted { containers: true, images: true, volumes: true, build_cache: true };
        assert_eq!(Wanted::read(&[]), Ok(all));
        let some = Wanted { volumes: false, build_cache: false, ..all };
        assert_eq!(Wanted::read(&["image".into(), "container".into()]), Ok(some));
        assert_eq!(Wanted::read(&["x".into()]).unwrap_err().message, "unknown object type: x");
    }
}
