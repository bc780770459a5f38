//! Listing: `docker ps`.

use std::path::Path;

use caisson_docker_api::container::{Summary, SummaryHostConfig, SummaryNetworks};
use caisson_docker_api::time::Timestamp;

use super::inspect::endpoints;
use super::state::State;
use super::{Containers, Handle, ports};
use crate::error::ApiError;
use crate::filters::Filters;

const FILTERS: [&str; 16] = [
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
    "removed",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// What to list.
#[derive(Debug, Default)]
pub(crate) struct ListOptions {
    /// Also those that do not run.
    pub(crate) all: bool,
    /// At most so many, of the newest, whether they run or not; 0 for no limit.
    pub(crate) limit: usize,
    /// With their sizes on disk.
    pub(crate) size: bool,
    pub(crate) filters: Filters,
}

impl Containers {
    /// The containers that are asked for, the newest first. Blocks for the sizes.
    pub(crate) fn list(&self, options: ListOptions) -> Result<Vec<Summary>, ApiError> {
        let filters = options.filters.clone().only(&FILTERS)?;
        check_states(&filters)?;
        let exit_codes = exit_codes(&filters)?;
        let bound = |name: &str| filters.get(name).first().map(|other| self.find(other)).transpose();
        let (before, since) = (bound("before")?, bound("since")?);
        let ancestors = self.ancestors(&filters);
        let now = Timestamp::now();
        let any_state = options.all
            || options.limit > 0
            || before.is_some()
            || since.is_some()
            || filters.has("status")
            || filters.has("exited");
        let mut found = Vec::new();
        for handle in self.all() {
            if options.limit > 0 && found.len() == options.limit {
                break;
            }
            let state = handle.state();
            let definition = &handle.definition;
            let wanted = (any_state || state.running().is_some())
                && before.as_ref().is_none_or(|b| definition.created < b.definition.created)
                && since.as_ref().is_none_or(|s| definition.created > s.definition.created)
                && matches(&handle, &state, &filters)
                && exit_codes.as_ref().is_none_or(|codes| has_exited_with(&state, codes))
                && ancestors.as_ref().is_none_or(|ids| ids.contains(&definition.image));
            if wanted && !matches!(state, State::Removed) {
                found.push(self.summary(&handle, &state, now, options.size));
            }
        }
        Ok(found)
    }

    /// The ids of the images that `ancestor` names.
    fn ancestors(&self, filters: &Filters) -> Option<Vec<String>> {
        filters.has("ancestor").then(|| {
            let find = |name: &String| self.ground.images.find(name).ok().map(|image| image.id.to_string());
            filters.get("ancestor").iter().filter_map(find).collect()
        })
    }

    fn summary(&self, handle: &Handle, state: &State, now: Timestamp, size: bool) -> Summary {
        let definition = &handle.definition;
        let published = state.running().map_or(&[][..], |running| &running.sandbox.published);
        let mut command =
            std::iter::once(&definition.path).chain(&definition.args).cloned().collect::<Vec<_>>();
        command.iter_mut().filter(|word| word.contains(' ')).for_each(|word| *word = format!("'{word}'"));
        let sizes = size.then(|| self.sizes(handle));
        Summary {
            id: definition.id.clone(),
            names: vec![format!("/{}", definition.name)],
            image: definition.config.image.clone(),
            image_id: definition.image.clone(),
            command: command.join(" "),
            created: definition.created.unix_seconds(),
            ports: if state.running().is_some() {
                ports::list(&definition.config, published)
            } else {
                Vec::new()
            },
            size_rw: sizes.map(|(own, _)| own).filter(|own| *own > 0),
            size_root_fs: sizes.map(|(_, all)| all),
            labels: definition.config.labels.clone().unwrap_or_default(),
            state: state.name().to_owned(),
            status: state.sentence(now),
            host_config: SummaryHostConfig {
                network_mode: definition.host_config.network_mode.clone(),
                annotations: None,
            },
            network_settings: SummaryNetworks {
                networks: endpoints(definition, state, &self.ground.networks),
            },
            mounts: definition.mounts.clone(),
        }
    }

    /// The bytes of the container's own layer, and with its image's. Blocks.
    pub(crate) fn sizes(&self, handle: &Handle) -> (i64, i64) {
        let own = bytes_below(&self.directory(&handle.definition.id).upper());
        let image = self.ground.images.find(&handle.definition.image).map_or(0, |image| image.size);
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        (signed(own), signed(own.saturating_add(image)))
    }
}

fn check_states(filters: &Filters) -> Result<(), ApiError> {
    match filters.get("status").iter().find(|state| !STATES.contains(&state.as_str())) {
        Some(state) => Err(ApiError::invalid(format!(
            "invalid filter 'status={state}': invalid value for state ({state}): must be one of {}",
            STATES.join(", ")
        ))),
        None => Ok(()),
    }
}

fn exit_codes(filters: &Filters) -> Result<Option<Vec<i32>>, ApiError> {
    if !filters.has("exited") {
        return Ok(None);
    }
    let code = |text: &String| {
        let bad = |_: std::num::ParseIntError| {
            format!("invalid filter 'exited={text}': strconv.Atoi: parsing {text:?}: invalid syntax")
        };
        text.parse().map_err(|e| ApiError::invalid(bad(e)))
    };
    filters.get("exited").iter().map(code).collect::<Result<_, _>>().map(Some)
}

fn has_exited_with(state: &State, codes: &[i32]) -> bool {
    match state {
        State::Exited(exited) | State::Removing(exited) => codes.contains(&exited.exit_code),
        State::Created(_) | State::Running(_) | State::Removed => false,
    }
}

fn matches(handle: &Handle, state: &State, filters: &Filters) -> bool {
    let definition = &handle.definition;
    let labels = definition.config.labels.clone().unwrap_or_default();
    // Names are regular expressions in dockerd; anchors and plain text are what is used.
    let named = |wish: &str| {
        let inner = wish.trim_start_matches('^').trim_start_matches('/').trim_end_matches('$');
        match (wish.starts_with('^'), wish.ends_with('$')) {
            (true, true) => definition.name == inner,
            (true, false) => definition.name.starts_with(inner),
            (false, true) => definition.name.ends_with(inner),
            (false, false) => definition.name.contains(inner),
        }
    };
    let port_of = |wish: &str| ports::parse(wish).ok();
    let exposed = |wish: &str| {
        let wish = port_of(wish);
        definition
            .config
            .exposed_ports
            .iter()
            .flatten()
            .any(|(port, _)| wish.is_some() && ports::parse(port).ok() == wish)
    };
    let published = |wish: &str| {
        let Some((port, protocol)) = port_of(wish) else { return false };
        let open = state.running().map_or(&[][..], |running| &running.sandbox.published);
        open.iter().any(|p| (p.container_port.0, p.protocol) == (port, protocol))
    };
    let in_network = |wish: &str| {
        let joined = state.running().map_or(&[][..], |running| &running.sandbox.endpoints);
        definition.host_config.network_mode == wish || joined.iter().any(|e| e.network_id.starts_with(wish))
    };
    let mounted = |wish: &str| definition.mounts.iter().any(|m| m.destination == wish || m.source == wish);
    filters.any("id", |id| definition.id.starts_with(id))
        && filters.any("name", named)
        && filters.labels("label", &labels)
        && filters.any("status", |status| state.name() == status)
        && filters.any("expose", exposed)
        && filters.any("publish", published)
        && filters.any("network", in_network)
        && filters.any("volume", mounted)
        && filters.any("health", |health| health == "none")
        && filters.any("is-task", |value| value == "false")
        && filters.any("isolation", |value| value.is_empty() || value == "default")
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
