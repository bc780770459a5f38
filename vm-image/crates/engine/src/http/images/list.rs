//! `GET /images/json`: `docker images`.

use caisson_docker_api::image::Summary;
use caisson_images::{Image, Reference};
use hyper::StatusCode;

use crate::engine::Engine;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images;

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

pub(crate) async fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&FILTERS)?;
    let all = call.form.bool("all");
    let engine = call.engine.clone();
    let list = tokio::task::spawn_blocking(move || summaries(&engine, &filters, all)).await??;
    Ok(reply::json(StatusCode::OK, &list))
}

fn summaries(engine: &Engine, filters: &Filters, all: bool) -> Result<Vec<Summary>, ApiError> {
    let dangling = filters.bool("dangling")?;
    let bound = |name: &str| {
        let image = filters.get(name).first().map(|other| engine.images.find(other)).transpose();
        image.map(|image| image.and_then(|image| image.created())).map_err(|e| images::error(&e))
    };
    let (before, since, until) = (bound("before")?, bound("since")?, until(filters)?);
    let mut told = Vec::new();
    for image in engine.images.list() {
        let created = image.created();
        let in_time = before.is_none_or(|before| created < Some(before))
            && since.is_none_or(|since| created > Some(since))
            && until.is_none_or(|until| created.map_or(0, |at| at.unix_timestamp()) <= until);
        // Images that are only the parents of others are shown to those who ask for all.
        let shown = all || image.children == 0 || !image.references.is_empty();
        let matching = matching(&image, filters);
        if in_time
            && shown
            && filters.labels("label", &image.labels())
            && dangling.is_none_or(|dangling| image.is_dangling() == dangling)
            && (!filters.has("reference") || !matching.is_empty())
        {
            told.push(summary(engine, &image, &matching));
        }
    }
    Ok(told)
}

/// The `until` filter: a moment in RFC 3339, or seconds since the epoch.
fn until(filters: &Filters) -> Result<Option<i64>, ApiError> {
    let Some(text) = filters.get("until").first() else { return Ok(None) };
    let moment = caisson_docker_api::time::Timestamp::parse(text).map(|at| at.unix_seconds());
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    match moment.or(seconds) {
        Some(until) => Ok(Some(until)),
        None => Err(ApiError::invalid(format!("invalid filter 'until={text}'"))),
    }
}

/// The image's names that the `reference` filter asks for; all of them without one.
fn matching(image: &Image, filters: &Filters) -> Vec<Reference> {
    let fits = |reference: &&Reference| {
        filters.any("reference", |pattern| {
            let (full, name) = (reference.familiar(), reference.familiar_name());
            glob(pattern.as_bytes(), full.as_bytes()) || glob(pattern.as_bytes(), name.as_bytes())
        })
    };
    image.references.iter().filter(fits).cloned().collect()
}

fn summary(engine: &Engine, image: &Image, names: &[Reference]) -> Summary {
    let labels = image.labels();
    let id = image.id.to_string();
    let familiar = |with_digest: bool| {
        let names = names.iter().filter(|name| name.digest().is_some() == with_digest);
        names.map(Reference::familiar).collect()
    };
    Summary {
        containers: i64::try_from(engine.containers.users_of(&id).len()).unwrap_or(i64::MAX),
        created: image.created().map_or(0, |at| at.unix_timestamp()),
        id,
        labels: (!labels.is_empty()).then_some(labels),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_digests: familiar(true),
        repo_tags: familiar(false),
        shared_size: -1,
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
    }
}

/// Go's `path.Match` without character classes: `*` and `?` stop at a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text) || text.split_first().is_some_and(|(&c, more)| c != b'/' && glob(pattern, more))
        }
        (Some((b'?', rest)), Some((&c, more))) => c != b'/' && glob(rest, more),
        (Some((p, rest)), Some((c, more))) => p == c && glob(rest, more),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("busybox:*", "busybox:latest", true),
            ("*", "me/app", false),
            ("me/*", "me/app", true),
            ("a?c", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
