//! The names by which containers find each other.

use caisson_networks::Link;

use crate::containers::record::Definition;

/// On a network that users have made, in dockerd's order: the container's name, its aliases there, its short id, its
/// host name; each once.
pub(crate) fn on_network(definition: &Definition, aliases: Option<&Vec<String>>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let own = [definition.short_id().to_owned(), definition.config.hostname.clone()];
    let all =
        std::iter::once(definition.name.clone()).chain(aliases.into_iter().flatten().cloned()).chain(own);
    for name in all.filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `container:alias`; without an alias it is the container's name.
pub(crate) fn link(text: &str) -> Link {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let plain = |name: &str| name.trim_start_matches('/').to_owned();
    Link { container: plain(container), alias: plain(alias) }
}
