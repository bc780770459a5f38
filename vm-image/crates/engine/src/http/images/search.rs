//! `GET /images/search`: `docker search`, which asks Docker Hub or the registry that the term names.

use caisson_images::registry::{self, SearchResult};
use hyper::StatusCode;

use super::pull::credentials;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images;

const FILTERS: [&str; 3] = ["is-automated", "is-official", "stars"];
/// How many results there are if nobody says, and at most.
const RESULTS: i64 = 25;
const RESULTS_MAX: i64 = 100;

pub(crate) async fn search(call: Call) -> Result<Reply, ApiError> {
    let filters = Filters::parse(call.form.get("filters"))?.only(&FILTERS)?;
    let limit = call.form.int("limit")?.filter(|limit| *limit != 0).unwrap_or(RESULTS);
    if !(1..=RESULTS_MAX).contains(&limit) {
        return Err(ApiError::invalid(format!("limit {limit} is outside the range of [1, {RESULTS_MAX}]")));
    }
    let wish = Wish {
        official: filters.bool("is-official")?,
        automated: filters.bool("is-automated")?,
        stars: stars(&filters)?,
    };
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let credentials = credentials(&call);
    let found = registry::search(call.engine.puller.config(), call.form.get("term"), limit, &credentials);
    let mut found = found.await.map_err(|e| images::error(&e))?;
    found.retain(|result| wish.is_met_by(result));
    Ok(reply::json(StatusCode::OK, &found))
}

struct Wish {
    official: Option<bool>,
    automated: Option<bool>,
    stars: i64,
}

impl Wish {
    fn is_met_by(&self, result: &SearchResult) -> bool {
        self.official.is_none_or(|wanted| wanted == result.is_official)
            && self.automated.is_none_or(|wanted| wanted == result.is_automated)
            && result.star_count >= self.stars
    }
}

fn stars(filters: &Filters) -> Result<i64, ApiError> {
    let mut most = 0;
    for text in filters.get("stars") {
        let stars: i64 =
            text.parse().map_err(|_| ApiError::invalid(format!("invalid filter 'stars=[{text}]'")))?;
        most = most.max(stars);
    }
    Ok(most)
}
