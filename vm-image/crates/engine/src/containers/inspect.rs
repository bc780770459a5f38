//! All about one container: `docker inspect`.

use caisson_docker_api::container::{Config, Container, GraphDriver, HostConfig};

use super::record::{Definition, Directory};
use super::{Containers, Handle, networks};

impl Containers {
    /// All about one container. Blocks for the sizes.
    pub(crate) fn inspect(&self, handle: &Handle, size: bool) -> Container {
        let state = handle.state();
        let definition = &*handle.definition();
        let directory = self.directory(&definition.id);
        let sizes = size.then(|| self.sizes(handle));
        Container {
            id: definition.id.clone(),
            created: definition.created,
            path: definition.path.clone(),
            args: definition.args.clone(),
            state: caisson_docker_api::container::State {
                health: self.health_of(handle, &state).map(|health| health.describe()),
                ..state.describe()
            },
            image: definition.image.clone(),
            resolv_conf_path: if_made(directory.resolv_conf()),
            hostname_path: if_made(directory.hostname()),
            hosts_path: if_made(directory.hosts()),
            log_path: if_made(directory.log(&definition.id)),
            name: format!("/{}", definition.name),
            restart_count: handle.watch().borrow().restarts,
            driver: "overlay2".into(),
            platform: "linux".into(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: String::new(),
            exec_ids: Some(self.ground.execs.of(&definition.id)).filter(|ids| !ids.is_empty()),
            host_config: HostConfig { links: self.told_links(definition), ..definition.host_config.clone() },
            graph_driver: self.graph_driver(definition, &directory),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            mounts: definition.told_mounts(),
            config: config(definition),
            network_settings: networks::show::settings(definition, &state, &self.ground.networks),
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

/// The configuration, with the hardware address where clients of the time of one network look for it.
fn config(definition: &Definition) -> Config {
    let main = definition.networks.get(networks::network_of(&definition.host_config.network_mode));
    let mac_address = main.map(|wish| wish.mac_address.clone()).unwrap_or_default();
    Config { mac_address, ..definition.config.clone() }
}

/// A file's path; empty, as in dockerd, until there was a start.
fn if_made(path: std::path::PathBuf) -> String {
    if path.exists() { path.display().to_string() } else { String::new() }
}
