//! `POST /networks/create`.

use caisson_docker_api::network::{self as api, Created, IpamConfig};
use caisson_networks::{CreateRequest, IpamRequest, PoolRequest};
use hyper::StatusCode;

use super::tell;
use crate::containers::networks::kind;
use crate::error::{ApiError, chain};
use crate::http::call::{Call, decode};
use crate::http::reply::{self, Reply};

pub(crate) async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json_value().await?;
    let body = body.ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    let request: api::CreateRequest = decode(&body)?;
    let network = call.engine.networks.create(asked(request)).await;
    let network = network.map_err(|error| ApiError::new(kind(error.kind()), chain(&error)))?;
    tell(&call.engine, &network, "create");
    Ok(reply::json(StatusCode::CREATED, &Created { id: network.id, warning: String::new() }))
}

fn asked(request: api::CreateRequest) -> CreateRequest {
    let ipam = request.ipam.map(|ipam| IpamRequest {
        driver: ipam.driver,
        options: ipam.options,
        config: ipam.config.unwrap_or_default().into_iter().map(pool).collect(),
    });
    CreateRequest {
        name: request.name,
        driver: request.driver,
        scope: request.scope,
        enable_ipv4: request.enable_ipv4,
        enable_ipv6: request.enable_ipv6,
        internal: request.internal,
        attachable: request.attachable,
        ingress: request.ingress,
        config_only: request.config_only,
        config_from: request.config_from.map(|from| from.network),
        ipam,
        options: request.options.unwrap_or_default(),
        labels: request.labels.unwrap_or_default(),
    }
}

fn pool(config: IpamConfig) -> PoolRequest {
    PoolRequest {
        subnet: config.subnet,
        ip_range: config.ip_range,
        gateway: config.gateway,
        auxiliary: config.auxiliary_addresses.unwrap_or_default(),
    }
}
