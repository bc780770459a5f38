//! The filters of `docker ps`: read once, then asked of each container.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::networks::show::endpoints;
use super::state::State;
use super::{Containers, Handle, ports};
use crate::error::ApiError;
use crate::filters::Filters;

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// A port and its protocol, `80/tcp`.
type Ports = BTreeSet<String>;

/// What containers must be like to be listed.
pub(super) struct Wanted<'a> {
    containers: &'a Containers,
    filters: Filters,
    names: Vec<Regex>,
    ids: BTreeSet<String>,
    exit_codes: Vec<i32>,
    before: Option<Handle>,
    since: Option<Handle>,
    ancestors: Option<Vec<String>>,
    published: Ports,
    exposed: Ports,
    is_task: bool,
}

impl Containers {
    /// Reads the filters, or says in dockerd's words what is wrong with them.
    pub(super) fn wanted(&self, filters: &Filters) -> Result<Wanted<'_>, ApiError> {
        let filters = filters.clone().only(&KNOWN)?;
        one_of(&filters, "status", "state", &STATES)?;
        one_of(&filters, "health", "health", &HEALTH)?;
        let bound = |name: &str| filters.get(name).last().map(|other| self.find(other)).transpose();
        // What is no expression matches what it says, and nothing else.
        let names = filters.get("name").iter().filter_map(|name| Regex::new(name).ok());
        Ok(Wanted {
            containers: self,
            names: names.collect(),
            ids: self.ids_that_begin(filters.get("id")),
            exit_codes: exit_codes(&filters)?,
            before: bound("before")?,
            since: bound("since")?,
            ancestors: self.ancestors(&filters),
            published: port_set(&filters, "publish")?,
            exposed: port_set(&filters, "expose")?,
            is_task: filters.bool("is-task")?.unwrap_or(false),
            filters,
        })
    }

    /// The ids of which one of these is the only beginning.
    fn ids_that_begin(&self, wishes: &[String]) -> BTreeSet<String> {
        let all = self.all();
        let only = |wish: &String| {
            let mut fitting = all.iter().filter(|handle| handle.id.starts_with(wish.as_str()));
            fitting.next().filter(|_| fitting.next().is_none()).map(|handle| handle.id.to_string())
        };
        wishes.iter().filter_map(only).collect()
    }

    /// The ids of the images that `ancestor` names.
    fn ancestors(&self, filters: &Filters) -> Option<Vec<String>> {
        filters.has("ancestor").then(|| {
            let find = |name: &String| self.ground.images.find_all(name).unwrap_or_default();
            filters.get("ancestor").iter().flat_map(find).map(|id| id.to_string()).collect()
        })
    }
}

impl Wanted<'_> {
    /// Whether the filters ask for containers in any state.
    pub(super) fn any_state(&self) -> bool {
        self.filters.has("status")
    }

    /// Whether a container is one of those.
    pub(super) fn fits(&self, handle: &Handle, state: &State) -> bool {
        let definition = handle.definition();
        let (labels, none) = (definition.config.labels.as_ref(), BTreeMap::new());
        let mounted = |wish: &str| {
            let called = |m: &super::mounts::Mounting| {
                m.point.destination == wish || m.volume().unwrap_or(&m.point.source) == wish
            };
            definition.mounts.iter().any(called)
        };
        self.before.as_ref().is_none_or(|b| definition.created < b.definition().created)
            && self.since.as_ref().is_none_or(|s| definition.created > s.definition().created)
            && (!self.filters.has("id") || self.ids.contains(&*handle.id))
            && (!self.filters.has("name") || self.is_named(&definition.name))
            && self.filters.labels("label", labels.unwrap_or(&none))
            && self.filters.any("status", |status| state.name() == status)
            && self.has_ended_as_asked(state)
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&definition.image))
            && self.filters.any("volume", mounted)
            && self.filters.any("health", |wish| wish == self.health(handle, state))
            && (!self.filters.has("is-task") || !self.is_task)
            && self.is_in_network(handle, state)
            && self.has_port(handle, state)
    }

    fn health(&self, handle: &Handle, state: &State) -> &'static str {
        self.containers.health_of(handle, state).map_or("none", |health| health.status().name())
    }

    fn is_named(&self, name: &str) -> bool {
        let slashed = format!("/{name}");
        let wishes = self.filters.get("name");
        wishes.iter().any(|wish| wish == name || *wish == slashed)
            || self.names.iter().any(|wish| wish.is_match(&slashed) || wish.is_match(name))
    }

    fn has_ended_as_asked(&self, state: &State) -> bool {
        self.exit_codes.is_empty()
            || match state {
                State::Exited(exited) | State::Removing(exited) => {
                    self.exit_codes.contains(&exited.exit_code)
                }
                State::Created(_) | State::Running(_) | State::Restarting(_) | State::Removed => false,
            }
    }

    fn is_in_network(&self, handle: &Handle, state: &State) -> bool {
        if !self.filters.has("network") {
            return true;
        }
        let joined = endpoints(&handle.definition(), state, &self.containers.ground.networks);
        self.filters.any("network", |wish| {
            joined.iter().any(|(name, endpoint)| {
                name == wish || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(wish))
            })
        })
    }

    /// One port that is published or exposed as asked is enough.
    fn has_port(&self, handle: &Handle, state: &State) -> bool {
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        let Some(running) = state.running() else { return false };
        ports::list(&handle.definition().config, &running.sandbox.published).iter().any(|port| {
            self.published.contains(&format!("{}/{}", port.public_port, port.kind))
                || self.exposed.contains(&format!("{}/{}", port.private_port, port.kind))
        })
    }
}

fn one_of(filters: &Filters, name: &str, what: &str, known: &[&str]) -> Result<(), ApiError> {
    match filters.get(name).iter().find(|value| !known.contains(&value.as_str())) {
        Some(value) => Err(ApiError::invalid(format!(
            "invalid filter '{name}={value}': invalid value for {what} ({value}): must be one of {}",
            known.join(", ")
        ))),
        None => Ok(()),
    }
}

fn exit_codes(filters: &Filters) -> Result<Vec<i32>, ApiError> {
    let code = |text: &String| {
        let bad = |_: std::num::ParseIntError| {
            format!("invalid filter 'exited={text}': strconv.Atoi: parsing {text:?}: invalid syntax")
        };
        text.parse().map_err(|e| ApiError::invalid(bad(e)))
    };
    filters.get("exited").iter().map(code).collect()
}

/// Reads `80`, `80/udp`, `80-90/tcp`.
fn port_set(filters: &Filters, name: &str) -> Result<Ports, ApiError> {
    let mut set = Ports::new();
    for wish in filters.get(name) {
        // Status 500, as in dockerd.
        if wish.contains(':') {
            return Err(ApiError::internal(format!("filter for '{name}' should not contain ':': {wish}")));
        }
        let (range, protocol) = wish.split_once('/').unwrap_or((wish, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.parse::<u16>().map_err(|_| {
                ApiError::internal(format!(
                    "error while looking up for {name} {wish}: invalid start port '{text}': invalid syntax"
                ))
            })
        };
        let protocol = protocol.to_ascii_lowercase();
        set.extend((number(first)?..=number(last)?).map(|port| format!("{port}/{protocol}")));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(json: &str) -> Filters {
        Filters::parse(json).unwrap()
    }

    #[test]
    fn ports_may_be_ranges() {
        let set = port_set(&filters(r#"{"publish":["80","53/UDP","8-9/tcp"]}"#), "publish").unwrap();
        assert_eq!(set.into_iter().collect::<Vec<_>>(), ["53/udp", "8/tcp", "80/tcp", "9/tcp"]);
        let refusal = port_set(&filters(r#"{"expose":["1:2"]}"#), "expose").unwrap_err();
        assert_eq!(refusal.message, "filter for 'expose' should not contain ':': 1:2");
    }

    #[test]
    fn values_are_checked_in_dockerd_s_words() {
        let refusal = one_of(&filters(r#"{"health":["well"]}"#), "health", "health", &HEALTH).unwrap_err();
        assert_eq!(
            refusal.message,
            "invalid filter 'health=well': invalid value for health (well): must be one of none, starting, healthy, unhealthy"
        );
    }
}
