//! All about one container: `docker inspect`.

use std::collections::BTreeMap;

use caisson_docker_api::container::{Container, GraphDriver, NetworkSettings};
use caisson_docker_api::network::EndpointSettings;
use caisson_networks::{Endpoint, Networks};

use super::record::{Definition, Directory};
use super::state::State;
use super::{Containers, Handle, ports};

impl Containers {
    /// All about one container. Blocks for the sizes.
    pub(crate) fn inspect(&self, handle: &Handle, size: bool) -> Container {
        let state = handle.state();
        let definition = &*handle.definition;
        let directory = self.directory(&definition.id);
        let sizes = size.then(|| self.sizes(handle));
        Container {
            id: definition.id.clone(),
            created: definition.created,
            path: definition.path.clone(),
            args: definition.args.clone(),
            state: state.describe(),
            image: definition.image.clone(),
            resolv_conf_path: if_made(directory.resolv_conf()),
            hostname_path: if_made(directory.hostname()),
            hosts_path: if_made(directory.hosts()),
            log_path: if_made(directory.log(&definition.id)),
            name: format!("/{}", definition.name),
            restart_count: 0,
            driver: "overlay2".into(),
            platform: "linux".into(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: String::new(),
            exec_ids: None,
            host_config: definition.host_config.clone(),
            graph_driver: self.graph_driver(definition, &directory),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            mounts: definition.mounts.clone(),
            config: definition.config.clone(),
            network_settings: network_settings(definition, &state, &self.ground.networks),
        }
    }

    /// Where its layers are. There is no merged directory: only the container has one.
    fn graph_driver(&self, definition: &Definition, directory: &Directory) -> GraphDriver {
        let layers = self.ground.images.held(&definition.id).unwrap_or_default();
        let lower = std::iter::once(self.ground.base_layer.clone()).chain(layers);
        let lower: Vec<String> = lower.map(|path| path.display().to_string()).collect();
        let data = [
            ("ID", definition.id.clone()),
            ("LowerDir", lower.join(":")),
            ("UpperDir", directory.upper().display().to_string()),
            ("WorkDir", directory.work().display().to_string()),
        ];
        GraphDriver { data: data.map(|(key, value)| (key.to_owned(), value)).into(), name: "overlay2".into() }
    }
}

/// A file's path; empty, as in dockerd, until there was a start.
fn if_made(path: std::path::PathBuf) -> String {
    if path.exists() { path.display().to_string() } else { String::new() }
}

fn network_settings(definition: &Definition, state: &State, networks: &Networks) -> NetworkSettings {
    let endpoints = endpoints(definition, state, networks);
    let Some(running) = state.running() else {
        return NetworkSettings { networks: endpoints, ..NetworkSettings::default() };
    };
    let sandbox = &running.sandbox;
    let mut settings = NetworkSettings {
        sandbox_id: definition.id.clone(),
        sandbox_key: sandbox.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ports: ports::map(&definition.config, &sandbox.published),
        ..NetworkSettings::default()
    };
    // The fields of the time when there was one network tell of the default bridge.
    if let Some(bridge) = endpoints.get("bridge") {
        settings.endpoint_id.clone_from(&bridge.endpoint_id);
        settings.gateway.clone_from(&bridge.gateway);
        settings.ip_address.clone_from(&bridge.ip_address);
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.mac_address.clone_from(&bridge.mac_address);
    }
    settings.networks = endpoints;
    settings
}

/// The container's ends on its networks; of one that does not run, the networks that it will join.
pub(super) fn endpoints(
    definition: &Definition,
    state: &State,
    networks: &Networks,
) -> BTreeMap<String, EndpointSettings> {
    if let Some(running) = state.running() {
        return running.sandbox.endpoints.iter().map(|e| (e.network.clone(), endpoint(e))).collect();
    }
    let name = definition.host_config.network_mode.clone();
    let ran = !matches!(state, State::Created(_));
    let network_id = networks.inspect(&name).ok().filter(|_| ran).map(|n| n.id).unwrap_or_default();
    BTreeMap::from([(name, EndpointSettings { network_id, ..EndpointSettings::default() })])
}

fn endpoint(endpoint: &Endpoint) -> EndpointSettings {
    let mut settings = EndpointSettings {
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        ..EndpointSettings::default()
    };
    if let Some(link) = &endpoint.link {
        settings.mac_address = link.mac.to_string();
        settings.gateway = link.gateway.to_string();
        settings.ip_address = link.address.to_string();
        settings.ip_prefix_len = link.prefix;
    }
    settings
}
