//! `POST /images/prune`: removes images that nothing uses: those without a tag, or all of them.

use std::collections::BTreeMap;

use caisson_docker_api::image::PruneReport;
use caisson_docker_api::time::Timestamp;
use caisson_images::{ChainId, Image, Reference, RemoveOptions, Removed};
use hyper::StatusCode;

use super::{remove_told, told_removed};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

const FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

/// `POST /images/prune`.
pub(crate) async fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&FILTERS)?;
    let dangling = filters.bool("dangling")?.unwrap_or(true);
    // dockerd has not classified what is wrong with it.
    let until = filters.until().map_err(|error| ApiError::internal(error.message))?;
    let engine = call.engine;
    let report = tokio::task::spawn_blocking(move || run(&engine, &filters, dangling, until)).await?;
    Ok(reply::json(StatusCode::OK, &report))
}

fn run(engine: &Engine, filters: &Filters, dangling: bool, until: Option<Timestamp>) -> PruneReport {
    let images = engine.images.list();
    let sizes = layer_sizes(engine, &images);
    let mut report = PruneReport::default();
    for image in &images {
        let created = image.created().map(|at| Timestamp::from(std::time::SystemTime::from(at)));
        let in_time = until.is_none_or(|until| created.is_some_and(|created| created <= until));
        // What only others stand on goes with them.
        let is_top = !image.references.is_empty() || image.children == 0;
        if is_top && in_time && filters.prunes(&image.labels()) {
            prune_one(engine, image, dangling, &sizes, &mut report);
        }
    }
    let told = [("reclaimed".to_owned(), report.space_reclaimed.to_string())];
    engine.events.publish("image", "prune", "", told.into());
    report
}

/// Removes an image by each of its names, as `docker rmi` would: what is in use stays.
fn prune_one(
    engine: &Engine,
    image: &Image,
    dangling: bool,
    sizes: &BTreeMap<ChainId, u64>,
    report: &mut PruneReport,
) {
    let has_tag = image.references.iter().any(|name| name.tag().is_some());
    let names: Vec<String> = match image.references.as_slice() {
        [] => vec![image.id.0.hex()],
        _ if dangling && has_tag => return,
        names => names.iter().map(Reference::to_string).collect(),
    };
    for name in names {
        // What cannot be removed, or went with another name, is no failure of a prune.
        let (removed, _) = remove_told(engine, &name, RemoveOptions::default());
        for one in &removed {
            if let Removed::Layer(id) = one {
                report.space_reclaimed += sizes.get(id).copied().unwrap_or_default();
            }
        }
        if !removed.is_empty() {
            report.images_deleted.get_or_insert_default().extend(removed.iter().map(told_removed));
        }
    }
}

/// The bytes of each layer on top of those below it.
fn layer_sizes(engine: &Engine, images: &[Image]) -> BTreeMap<ChainId, u64> {
    let mut sizes = BTreeMap::new();
    for image in images {
        for (chain, layer) in image.config.chain().into_iter().zip(&image.config.rootfs.diff_ids) {
            sizes.insert(chain, engine.images.layer_size(layer).unwrap_or_default());
        }
    }
    sizes
}
