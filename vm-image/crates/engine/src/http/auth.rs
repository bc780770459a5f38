//! `POST /auth`: `docker login` asks whether a registry takes a name and password.

use caisson_images::registry::{self, Credentials};
use hyper::StatusCode;
use serde_json::json;

use super::call::Call;
use super::reply::{self, Reply};
use crate::error::ApiError;
use crate::images;

pub(crate) async fn login(mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json_value().await?.unwrap_or_default();
    let credentials: Credentials =
        serde_json::from_value(body).map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?;
    let token = registry::login(call.engine.puller.config(), &credentials);
    let token = token.await.map_err(|error| images::login_error(&error))?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({"IdentityToken": token.unwrap_or_default(), "Status": "Login Succeeded"}),
    ))
}
