//! Endpoints of the Docker Engine API (v1.51) that the table of routes lacks: a client is told that there is such a
//! thing, but not here, instead of "page not found".

use hyper::Method;

use super::routes::matches;
use crate::error::{ApiError, ErrorKind};

/// What dockerd says of everything that belongs to a swarm.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// What only a swarm's manager has: nodes, services, tasks, secrets, configs. This engine never is one.
const SWARM: &[(Method, &[&str])] = &[
    (
        Method::GET,
        &[
            "/swarm",
            "/swarm/unlockkey",
            "/nodes",
            "/nodes/{id}",
            "/services",
            "/services/{id}/logs",
            "/services/{id}",
            "/tasks",
            "/tasks/{id}/logs",
            "/tasks/{id}",
            "/secrets",
            "/secrets/{id}",
            "/configs",
            "/configs/{id}",
        ],
    ),
    (
        Method::POST,
        &[
            "/swarm/update",
            "/swarm/unlock",
            "/nodes/{id}/update",
            "/services/create",
            "/services/{id}/update",
            "/secrets/create",
            "/secrets/{id}/update",
            "/configs/create",
            "/configs/{id}/update",
        ],
    ),
    (Method::DELETE, &["/nodes/{id}", "/services/{id}", "/secrets/{id}", "/configs/{id}"]),
];

/// The rest of the API.
const OTHERS: &[(Method, &[&str])] = &[
    (Method::GET, &["/images/{name}/attestations", "/plugins/privileges", "/plugins/{name}/json"]),
    (
        Method::POST,
        &[
            "/build",
            "/build/cancel",
            "/grpc",
            "/session",
            "/plugins/pull",
            "/plugins/create",
            "/plugins/{name}/enable",
            "/plugins/{name}/disable",
            "/plugins/{name}/upgrade",
            "/plugins/{name}/push",
            "/plugins/{name}/set",
            "/swarm/init",
            "/swarm/join",
        ],
    ),
    (Method::DELETE, &["/plugins/{name}"]),
];

/// What dockerd says to a node that would leave a swarm in which it is not.
const NOT_A_NODE: &str = "This node is not part of a swarm";

/// The answer to a request for which there is no route.
pub(crate) fn answer(method: &Method, path: &str) -> ApiError {
    if let Some(_swarm) = known(SWARM, method, path) {
        return ApiError::new(ErrorKind::Unavailable, NOT_A_MANAGER);
    }
    if (method, path) == (&Method::POST, "/swarm/leave") {
        return ApiError::new(ErrorKind::Unavailable, NOT_A_NODE);
    }
    match known(OTHERS, method, path) {
        Some(pattern) => ApiError::not_implemented(format!(
            "{method} {pattern} is not supported by Caisson {}",
            env!("CARGO_PKG_VERSION")
        )),
        None => ApiError::not_found("page not found"),
    }
}

fn known(table: &[(Method, &[&'static str])], method: &Method, path: &str) -> Option<&'static str> {
    let patterns = table.iter().filter(|(of, _)| of == method).flat_map(|(_, patterns)| *patterns);
    patterns.copied().find(|pattern| matches(pattern, path).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;

    #[test]
    fn what_is_there_is_not_called_absent() {
        for (method, patterns) in SWARM.iter().chain(OTHERS) {
            for pattern in *patterns {
                assert!(
                    routes::find(method, pattern).is_none(),
                    "{method} {pattern} is on the table of routes"
                );
            }
        }
    }

    #[test]
    fn what_belongs_to_the_api_is_told_from_what_does_not() {
        let table = [
            (Method::GET, "/nodes", ErrorKind::Unavailable),
            (Method::POST, "/services/create", ErrorKind::Unavailable),
            (Method::POST, "/plugins/a/b:c/push", ErrorKind::NotImplemented),
            (Method::POST, "/swarm/init", ErrorKind::NotImplemented),
            (Method::POST, "/swarm/leave", ErrorKind::Unavailable),
            (Method::GET, "/swarm/init", ErrorKind::NotFound),
            (Method::GET, "/nowhere", ErrorKind::NotFound),
        ];
        for (method, path, kind) in table {
            assert_eq!(answer(&method, path).kind, kind, "{method} {path}");
        }
        let said = answer(&Method::POST, "/plugins/a/b:c/push").message;
        assert!(said.starts_with("POST /plugins/{name}/push is not supported by Caisson "), "{said}");
    }
}
