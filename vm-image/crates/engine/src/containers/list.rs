//! Listing: `docker ps`.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use caisson_docker_api::container::{Summary, SummaryHostConfig, SummaryNetworks};
use caisson_docker_api::time::Timestamp;

use super::links::linked_names;
use super::networks::show::endpoints;
use super::state::State;
use super::{Containers, Handle, ports};
use crate::error::ApiError;
use crate::filters::Filters;

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

/// The ids of images by the names that were asked for.
type Images = HashMap<String, Vec<String>>;

impl Containers {
    /// The containers that are asked for, the newest first. Blocks.
    pub(crate) fn list(&self, options: ListOptions) -> Result<Vec<Summary>, ApiError> {
        let wanted = self.wanted(&options.filters)?;
        let any_state = options.all || options.limit > 0 || wanted.any_state();
        let now = Timestamp::now();
        let mut images = Images::new();
        let mut found = Vec::new();
        let all = self.all();
        let mut linked = linked_names(all.iter().map(Handle::definition));
        for handle in all {
            if options.limit > 0 && found.len() == options.limit {
                break;
            }
            let state = handle.state();
            let gone = matches!(state, State::Removed);
            if !gone && (any_state || state.is_active()) && wanted.fits(&handle, &state) {
                let mut summary = self.summary(&handle, &state, now, options.size);
                summary.names.extend(linked.remove(&*handle.id).unwrap_or_default());
                self.name_image(&mut summary, &mut images);
                found.push(summary);
            }
        }
        Ok(found)
    }

    /// An image whose name has gone to another, or is no more, is called by its id.
    fn name_image(&self, summary: &mut Summary, known: &mut Images) {
        if !known.contains_key(&summary.image) {
            let found = self.ground.images.find_all(&summary.image).unwrap_or_default();
            known.insert(summary.image.clone(), found.iter().map(ToString::to_string).collect());
        }
        if !summary.image_id.is_empty() && !known[&summary.image].contains(&summary.image_id) {
            summary.image.clone_from(&summary.image_id);
        }
    }

    fn summary(&self, handle: &Handle, state: &State, now: Timestamp, size: bool) -> Summary {
        let definition = &*handle.definition();
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
            // One without addresses has no ports of its own, as `inspect` has it.
            ports: if state.running().is_some_and(|running| {
                running.sandbox.endpoints.iter().any(|endpoint| endpoint.link.is_some())
            }) {
                ports::list(&definition.config, published)
            } else {
                Vec::new()
            },
            size_rw: sizes.map(|(own, _)| own).filter(|own| *own > 0),
            size_root_fs: sizes.map(|(_, all)| all),
            labels: definition.config.labels.clone().unwrap_or_default(),
            state: state.name().to_owned(),
            status: state.sentence(now, self.health_of(handle, state).map(|health| health.status())),
            host_config: SummaryHostConfig {
                network_mode: definition.host_config.network_mode.clone(),
                annotations: definition.host_config.annotations.clone(),
            },
            network_settings: SummaryNetworks {
                networks: endpoints(definition, state, &self.ground.networks),
            },
            mounts: definition.told_mounts(),
        }
    }

    /// The bytes of the container's own layer, and with its image's. Blocks.
    pub(crate) fn sizes(&self, handle: &Handle) -> (i64, i64) {
        let own = bytes_below(&self.directory(&handle.id).upper());
        let image = self.ground.images.find(&handle.definition().image).map_or(0, |image| image.size);
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        (signed(own), signed(own.saturating_add(image)))
    }
}

/// The bytes of all files below a directory, each counted once however many names it has.
fn bytes_below(path: &Path) -> u64 {
    let mut counted = HashSet::new();
    add_bytes_below(path, &mut counted)
}

fn add_bytes_below(path: &Path, counted: &mut HashSet<(u64, u64)>) -> u64 {
    // One that is going, or cannot be read, is as good as empty: sizes are for information.
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            bytes += add_bytes_below(&entry.path(), counted);
        } else if metadata.nlink() == 1 || counted.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.len();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("below")).unwrap();
        std::fs::write(root.path().join("below/a"), [0; 100]).unwrap();
        std::fs::hard_link(root.path().join("below/a"), root.path().join("b")).unwrap();
        std::fs::write(root.path().join("c"), [0; 11]).unwrap();
        assert_eq!(bytes_below(root.path()), 111);
    }
}
