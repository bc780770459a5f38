//! Containers: the list, and what can be done with one.

use super::Engine;
use caisson_app_api::{ApiError, ContainerPort, ContainerState, ContainerSummary, ErrorCode, PortProtocol};
use hyper::Method;
use serde::Deserialize;

/// All containers, running or not.
pub(crate) async fn list(engine: &Engine) -> Result<Vec<ContainerSummary>, ApiError> {
    let list: Vec<Listed> = engine.get("/containers/json?all=1").await?;
    Ok(list.into_iter().map(summary).collect())
}

/// Starts one; well if it runs already.
pub(crate) async fn start(engine: &Engine, id: &str) -> Result<(), ApiError> {
    engine.request(Method::POST, &path(id, "/start")?).await.map(drop)
}

/// Stops one; well if it is stopped already.
pub(crate) async fn stop(engine: &Engine, id: &str) -> Result<(), ApiError> {
    engine.request(Method::POST, &path(id, "/stop")?).await.map(drop)
}

/// Removes one.
pub(crate) async fn remove(engine: &Engine, id: &str, force: bool) -> Result<(), ApiError> {
    engine.request(Method::DELETE, &path(id, &format!("?force={force}"))?).await.map(drop)
}

/// The path of a container's resource; what cannot be the name of one is refused, so that it is never part of a path.
pub(super) fn path(id: &str, rest: &str) -> Result<String, ApiError> {
    let plausible = !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && id.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !plausible {
        return Err(ApiError::new(ErrorCode::Invalid, format!("{id:?} is not a container's id or name")));
    }
    Ok(format!("/containers/{id}{rest}"))
}

/// A container as the engine lists it (`GET /containers/json`), as far as it is shown.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Vec<String>,
    image: String,
    command: String,
    created: i64,
    state: State,
    status: String,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP")]
    ip: Option<String>,
    private_port: u16,
    public_port: Option<u16>,
    r#type: Protocol,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

fn summary(listed: Listed) -> ContainerSummary {
    ContainerSummary {
        name: listed.names.first().map_or_else(String::new, |name| name.trim_start_matches('/').to_owned()),
        id: listed.id,
        image: listed.image,
        command: listed.command,
        created: u32::try_from(listed.created).unwrap_or_default(),
        state: state(&listed.state),
        status: without_how_long(&listed.status),
        ports: listed.ports.into_iter().map(port).collect(),
    }
}

/// `Up (healthy)` of `Up 2 minutes (healthy)`, `Exited (137)` of `Exited (137) 3 hours ago`: nobody tells when the rest is not true any more.
fn without_how_long(status: &str) -> String {
    let verb = status.split(' ').next().unwrap_or_default();
    let groups = status.split('(').skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    groups.fold(verb.to_owned(), |all, group| format!("{all} ({group})"))
}

fn state(state: &State) -> ContainerState {
    match state {
        State::Created => ContainerState::Created,
        State::Running => ContainerState::Running,
        State::Paused => ContainerState::Paused,
        State::Restarting => ContainerState::Restarting,
        State::Removing => ContainerState::Removing,
        State::Exited => ContainerState::Exited,
        State::Dead => ContainerState::Dead,
    }
}

fn port(port: Port) -> ContainerPort {
    let protocol = match port.r#type {
        Protocol::Tcp => PortProtocol::Tcp,
        Protocol::Udp => PortProtocol::Udp,
        Protocol::Sctp => PortProtocol::Sctp,
    };
    ContainerPort {
        container_port: port.private_port,
        protocol,
        host_ip: port.ip.filter(|ip| !ip.is_empty()),
        host_port: port.public_port.filter(|port| *port != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_what_stays_true() {
        let status = [
            "Created",
            "Up About a minute (health: starting)",
            "Up 2 days (Paused)",
            "Exited (137) 3 hours ago",
        ];
        let kept = ["Created", "Up (health: starting)", "Up (Paused)", "Exited (137)"];
        assert_eq!(status.map(without_how_long), kept);
    }

    #[test]
    fn the_list_is_read_as_dockerd_writes_it() {
        let wire = r#"[{"Id":"c0ffee","Names":["/web"],"Image":"nginx:1","ImageID":"sha256:1","Command":"nginx -g",
            "Created":1763765000,"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
            {"PrivatePort":443,"Type":"tcp"}],"Labels":{},"State":"running","Status":"Up 2 minutes",
            "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{}},"Mounts":[]}]"#;
        let list: Vec<Listed> = serde_json::from_str(wire).unwrap();
        let web = summary(list.into_iter().next().unwrap());
        assert_eq!((web.name.as_str(), web.state), ("web", ContainerState::Running));
        assert_eq!(web.status, "Up");
        assert_eq!(web.ports[0].host_port, Some(8080));
        assert_eq!((web.ports[1].host_ip.as_deref(), web.ports[1].host_port), (None, None));
    }

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        assert_eq!(path("web-1", "/start").unwrap(), "/containers/web-1/start");
        for bad in ["", "..", "a/../b", "a?x=1", "a b", "-a", "é"] {
            assert_eq!(path(bad, "/start").unwrap_err().code, ErrorCode::Invalid, "{bad}");
        }
    }
}
