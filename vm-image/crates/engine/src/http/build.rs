//! `/build/…`: what there is to say of builds while there is no builder.

use hyper::StatusCode;
use serde_json::json;

use super::call::Call;
use super::reply::{self, Reply};
use crate::error::ApiError;
use crate::filters::Filters;

/// `POST /build/prune`: no builder has cached anything. `docker system prune` comes here after all the other prunes.
pub(crate) async fn prune(call: Call) -> Result<Reply, ApiError> {
    Filters::parse(call.form.get("filters"))?;
    Ok(reply::json(StatusCode::OK, &json!({"CachesDeleted": null, "SpaceReclaimed": 0})))
}
