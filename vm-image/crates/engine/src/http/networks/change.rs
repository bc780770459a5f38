//! `POST /networks/{id}/connect` and `/disconnect`.

use caisson_docker_api::network::{ConnectRequest, DisconnectRequest, EndpointSettings};
use hyper::StatusCode;
use serde::de::DeserializeOwned;

use super::no_such_network;
use crate::error::ApiError;
use crate::http::call::{Call, decode};
use crate::http::reply::{self, Reply};

pub(crate) async fn connect(mut call: Call) -> Result<Reply, ApiError> {
    let ConnectRequest { container, endpoint_config } = body(&mut call).await?;
    let network = call.engine.networks.inspect(&call.name).map_err(|error| no_such_network(&error))?;
    if container.is_empty() {
        return Err(ApiError::invalid("invalid name or ID supplied: \"\""));
    }
    let handle = call.engine.containers.find(&container)?;
    // A container that joins later shows that nothing was asked by empty fields, one that was made so by `null`.
    let wish = endpoint_config.unwrap_or_default();
    let wish = EndpointSettings {
        ipam_config: Some(wish.ipam_config.unwrap_or_default()),
        aliases: Some(wish.aliases.unwrap_or_default()),
        driver_opts: Some(wish.driver_opts.unwrap_or_default()),
        ..wish
    };
    handle.connect(network, wish).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn disconnect(mut call: Call) -> Result<Reply, ApiError> {
    let DisconnectRequest { container, force } = body(&mut call).await?;
    if container.is_empty() {
        return Err(ApiError::invalid("invalid name or ID supplied: \"\""));
    }
    match call.engine.containers.find(&container) {
        Ok(handle) => handle.disconnect(&call.name).await?,
        Err(_) if force => {
            call.engine.networks.inspect(&call.name).map_err(|error| no_such_network(&error))?;
            return Err(ApiError::not_found(format!("endpoint {container} not found")));
        }
        Err(error) => return Err(error),
    }
    Ok(reply::empty(StatusCode::OK))
}

async fn body<T: DeserializeOwned>(call: &mut Call) -> Result<T, ApiError> {
    let body = call.json_value().await?;
    decode(&body.ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?)
}
