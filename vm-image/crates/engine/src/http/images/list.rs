//! `GET /images/json`: `docker images`.

use std::collections::{BTreeMap, BTreeSet};

use caisson_docker_api::image::Summary;
use caisson_docker_api::time::Timestamp;
use caisson_images::{DiffId, Image, ImageId, Reference};
use hyper::StatusCode;

use super::{manifests, pattern};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::{images, moment};

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

/// What is to be told of images.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct Wish {
    /// Also those that only others stand on.
    pub(in crate::http) all: bool,
    /// How much each shares with others.
    pub(in crate::http) shared_size: bool,
    /// What registries know each by.
    pub(in crate::http) descriptor: bool,
    /// Its manifests there.
    pub(in crate::http) manifests: bool,
}

pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let mut filters = Filters::parse(call.form.get("filters"))?;
    if !call.version.at_least(41) && !call.form.get("filter").is_empty() {
        filters.add("reference", call.form.get("filter"));
    }
    let filters = filters.only(&FILTERS)?;
    let wish = Wish {
        all: call.form.bool("all"),
        shared_size: call.form.bool("shared-size") && call.version.at_least(42),
        descriptor: call.version.at_least(48),
        manifests: call.form.bool("manifests") && call.version.at_least(47),
    };
    let engine = call.engine.clone();
    let mut list = tokio::task::spawn_blocking(move || summaries(&engine, &filters, wish)).await??;
    for summary in &mut list {
        if !call.version.at_least(43) && summary.repo_tags.is_empty() && summary.repo_digests.is_empty() {
            summary.repo_tags.push("<none>:<none>".to_owned());
            summary.repo_digests.push("<none>@<none>".to_owned());
        }
        summary.virtual_size = Some(summary.size).filter(|_| !call.version.at_least(44));
        if !call.version.at_least(51) {
            summary.containers = -1;
        }
    }
    Ok(reply::json(StatusCode::OK, &list))
}

/// One for each image that a name leads to first, or no name leads to; with it come those that its names lead to for
/// other platforms.
pub(in crate::http) fn summaries(
    engine: &Engine,
    filters: &Filters,
    wish: Wish,
) -> Result<Vec<Summary>, ApiError> {
    let chosen = Chosen::read(engine, filters)?;
    let list = engine.images.list();
    let layers = Layers::of(&list);
    let mut told = Vec::new();
    for image in list.iter().filter(|image| !image.is_behind_another && chosen.has(image, filters)) {
        let names = matching(image, filters)?;
        if names.is_empty() {
            // What only others stand on is told to those who ask for all.
            let hidden = !wish.all && image.children > 0;
            if hidden || chosen.dangling == Some(false) || filters.has("reference") {
                continue;
            }
        }
        let mut summary = summary(engine, image, &names, &layers);
        if wish.shared_size {
            summary.shared_size = layers.shared(engine, &image.id);
        }
        if let Some(described) = Some(wish)
            .filter(|wish| wish.descriptor || wish.manifests)
            .and_then(|_| engine.images.described(&image.id))
        {
            summary.descriptor = wish.descriptor.then(|| manifests::descriptor(&described.target));
            summary.manifests = wish.manifests.then(|| manifests::told(engine, &described));
        }
        told.push(summary);
    }
    Ok(told)
}

/// The bytes that the layers of all images take.
pub(in crate::http) fn layers_size(engine: &Engine) -> i64 {
    let list = engine.images.list();
    size(engine, Layers::of(&list).users.keys())
}

/// What the filters ask for.
struct Chosen {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    dangling: Option<bool>,
}

impl Chosen {
    /// Of several moments the narrowest counts.
    fn read(engine: &Engine, filters: &Filters) -> Result<Self, ApiError> {
        let created = |name: &String| {
            let image = engine.images.find(name).map_err(|e| images::error(&e))?;
            Ok(image.created().map(|at| Timestamp::from(std::time::SystemTime::from(at))))
        };
        let of = |name: &str| -> Result<Vec<Timestamp>, ApiError> {
            filters.get(name).iter().filter_map(|name| created(name).transpose()).collect()
        };
        let now = Timestamp::now();
        // dockerd has not classified what is wrong with one.
        let unclassified = |error: ApiError| ApiError::internal(error.message);
        let until = filters.get("until").iter().map(|text| moment::parse(text, now).map_err(unclassified));
        let until: Vec<_> = until.collect::<Result<_, _>>()?;
        Ok(Self {
            before: of("before")?.into_iter().chain(until).min(),
            since: of("since")?.into_iter().max(),
            dangling: filters.bool("dangling")?,
        })
    }

    fn has(&self, image: &Image, filters: &Filters) -> bool {
        let created = image.created().map(|at| Timestamp::from(std::time::SystemTime::from(at)));
        self.before.is_none_or(|before| created.is_some_and(|created| created < before))
            && self.since.is_none_or(|since| created.is_some_and(|created| created > since))
            && filters.labels("label", &image.labels())
            && (self.dangling != Some(true) || image.children == 0 && image.repo_tags().is_empty())
    }
}

/// The image's names that the `reference` filter asks for; all of them without one.
fn matching(image: &Image, filters: &Filters) -> Result<Vec<Reference>, ApiError> {
    let wanted = filters.get("reference");
    let mut matching = Vec::new();
    for name in &image.references {
        let mut fits = wanted.is_empty();
        for wish in wanted {
            let bad = |error: pattern::BadPattern| ApiError::internal(error.to_string());
            fits |= pattern::matches(wish, &name.familiar()).map_err(bad)?
                || pattern::matches(wish, &name.familiar_name()).map_err(bad)?;
        }
        if fits {
            matching.push(name.clone());
        }
    }
    Ok(matching)
}

/// The layers of each image that is told of, those for other platforms included.
struct Layers {
    of: BTreeMap<ImageId, BTreeSet<DiffId>>,
    /// How many of these need each layer.
    users: BTreeMap<DiffId, usize>,
}

impl Layers {
    fn of(images: &[Image]) -> Self {
        let own: BTreeMap<_, _> =
            images.iter().map(|image| (image.id, &image.config.rootfs.diff_ids)).collect();
        let mut of = BTreeMap::new();
        let mut users = BTreeMap::new();
        // A parent of another is that other's lower part, and shares nothing with it.
        let is_own = |image: &&Image| !image.is_behind_another;
        for image in images.iter().filter(is_own) {
            let ids = std::iter::once(&image.id).chain(&image.others);
            let layers: BTreeSet<DiffId> =
                ids.filter_map(|id| own.get(id)).copied().flatten().copied().collect();
            if image.children == 0 || !image.references.is_empty() {
                layers.iter().for_each(|layer| *users.entry(*layer).or_default() += 1);
            }
            of.insert(image.id, layers);
        }
        Self { of, users }
    }

    fn size(&self, engine: &Engine, image: &ImageId) -> i64 {
        size(engine, self.of.get(image).into_iter().flatten())
    }

    fn shared(&self, engine: &Engine, image: &ImageId) -> i64 {
        let is_shared = |layer: &&DiffId| self.users.get(layer).is_some_and(|users| *users > 1);
        size(engine, self.of.get(image).into_iter().flatten().filter(is_shared))
    }
}

fn size<'a>(engine: &Engine, layers: impl Iterator<Item = &'a DiffId>) -> i64 {
    let sizes = layers.map(|layer| engine.images.layer_size(layer).unwrap_or_default());
    i64::try_from(sizes.fold(0, u64::saturating_add)).unwrap_or(i64::MAX)
}

fn summary(engine: &Engine, image: &Image, names: &[Reference], layers: &Layers) -> Summary {
    let labels = image.labels();
    let familiar = |with_digest: bool| {
        let names = names.iter().filter(|name| name.digest().is_some() == with_digest);
        names.map(Reference::familiar).collect()
    };
    let users = std::iter::once(&image.id).chain(&image.others);
    let users = users.map(|id| engine.containers.users_of(&id.to_string()).len()).sum::<usize>();
    Summary {
        containers: i64::try_from(users).unwrap_or(i64::MAX),
        created: image.created().map_or(0, |at| at.unix_timestamp()),
        id: image.id.to_string(),
        labels: (!labels.is_empty()).then_some(labels),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_digests: familiar(true),
        repo_tags: familiar(false),
        shared_size: -1,
        size: layers.size(engine, &image.id),
        virtual_size: None,
        descriptor: None,
        manifests: None,
    }
}
