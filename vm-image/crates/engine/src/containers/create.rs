//! Making a container: its configuration completed from the image's, its name reserved, its files laid out.

use std::io;

use caisson_docker_api::Empty;
use caisson_docker_api::container::{Config, HostConfig, NetworkingConfig, Strings};
use caisson_docker_api::time::Timestamp;
use caisson_images::{Image, Platform, RunConfig};
use tracing::{Instrument, info, trace_span};

use super::mounts::Mounting;
use super::mounts::making::Making;
use super::record::{Definition, Directory, Lasting};
use super::spec::raw_sockets;
use super::state::{Created, State};
use super::task::History;
use super::{Containers, Ground, environment, names, networks, ports, remove, spec, users, validate};
use crate::error::{ApiError, chain};

/// What a client asks for.
#[derive(Debug, Default)]
pub(crate) struct CreateOptions {
    /// Empty for a random one.
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(crate) networking: NetworkingConfig,
    /// The platform that the image must be for.
    pub(crate) platform: Option<Platform>,
    /// A bind that is read-only is so at its top, not below: what clients of API versions before 1.44 expect.
    pub(crate) shallow_read_only: bool,
}

impl Containers {
    /// Makes a container: its id, and what will not be as asked.
    pub(crate) async fn create(&self, options: CreateOptions) -> Result<(String, Vec<String>), ApiError> {
        let CreateOptions { name, mut config, mut host_config, networking, platform, shallow_read_only } =
            options;
        let mut warnings = validate::check(&config, &mut host_config, &self.ground.support)?;
        self.ground.quota.parse(host_config.storage_opt.as_ref())?;
        if self.ground.remap_of(&host_config).is_some() {
            users::check(&host_config)?;
        }
        let image = self.find_image(&config.image, platform.as_ref(), &mut warnings)?;
        if let Some(file) = &self.ground.environment {
            environment::add(&mut config, file);
        }
        if let Some(image) = &image {
            merge(&mut config, &image.config.run());
        }
        let (path, args) = command(&mut config)?;
        let raw_sockets = raw_sockets::are_asked_for(&host_config)?;
        complete(&mut host_config);
        self.resolve_shared(&mut host_config)?;
        warnings.extend(spec::rights::SecurityOptions::parse(&host_config)?.warnings());
        ports::expose_published(&mut config, &host_config);
        warnings.extend(ports::warning(&config, &host_config));
        if host_config.network_mode == "host" && !ports::bindings(&config, &host_config)?.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".into());
        }
        // One that is not there is for the start to complain of.
        let other = host_config.network_mode.strip_prefix("container:");
        if let Some(Ok(other)) = other.map(|other| self.find(other)) {
            host_config.network_mode = format!("container:{}", other.id);
        }
        let mut networks =
            networks::wishes::of_new(&mut config, &host_config, networking, &self.ground.networks)?;
        networks::wishes::move_links(&mut host_config, &mut networks);
        let links = self.take_links(&mut host_config)?;
        let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        if config.hostname.is_empty() {
            let of_host = host_config.network_mode == "host" || host_config.uts_mode == "host";
            config.hostname = if of_host { crate::system::hostname() } else { id[..12].to_owned() };
        }
        let claimed = self.claim(&id, &config, &host_config, shallow_read_only);
        // Kept until the container is there, or is not to be.
        let (mounts, _making) = claimed.instrument(trace_span!("create: mounts claimed")).await?;
        let release = |mounts: &[Mounting]| self.ground.release_volumes(&id, mounts.iter(), true);
        let name = self.reserve(&name, &id).inspect_err(|_| release(&mounts))?;
        let image = image.map(|image| image.id);
        let definition = Definition {
            id: id.clone(),
            name: name.clone(),
            created: Timestamp::now(),
            image: image.as_ref().map(ToString::to_string).unwrap_or_default(),
            config,
            host_config,
            networks,
            links,
            mounts,
            raw_sockets,
            path,
            args,
        };
        let laid_out = self.lay_out(&definition, image).instrument(trace_span!("create: files written"));
        if let Err(error) = laid_out.await {
            self.register.release_name(&name);
            release(&definition.mounts);
            return Err(error);
        }
        info!(id = definition.short_id(), name, "container created");
        let handle = self.adopt(definition, State::Created(Created::default()), History::default());
        self.ground.tell(&handle.definition(), "create", &[]);
        Ok((id, warnings))
    }

    async fn claim(
        &self,
        id: &str,
        config: &Config,
        host: &HostConfig,
        shallow_read_only: bool,
    ) -> Result<(Vec<Mounting>, Option<Making>), ApiError> {
        let (containers, id, config, host) = (self.clone(), id.to_owned(), config.clone(), host.clone());
        let claim = move || containers.claim_mounts(&id, &config, &host, shallow_read_only);
        tokio::task::spawn_blocking(claim).await?
    }

    fn reserve(&self, name: &str, id: &str) -> Result<String, ApiError> {
        if name.is_empty() {
            return Ok(self.register.reserve_random(id));
        }
        let name = names::check(name)?;
        self.register.reserve(&name, id)?;
        Ok(name)
    }

    /// The image, which must be there; `None` for no image at all, which only an error can come of.
    fn find_image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Image>, ApiError> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self.ground.images.find_for(name, platform);
        let image = found.map_err(|e| crate::images::error(&e))?;
        let here = Platform::here();
        if platform.is_none() && !image.config.is_for(&here) {
            warnings.push(format!(
                "The requested image's platform ({}) does not match the detected host platform ({here}) and no specific platform was requested",
                image.config.platform()
            ));
        }
        Ok(Some(image))
    }

    /// Everything on disk. What was done is undone if something fails, and at the next start if the engine is killed before the end.
    async fn lay_out(
        &self,
        definition: &Definition,
        image: Option<caisson_images::ImageId>,
    ) -> Result<(), ApiError> {
        let (ground, definition) = (self.ground.clone(), definition.clone());
        let work = move || {
            let directory = ground.directory(&definition.id);
            lay_out_in(&ground, &definition, &directory, image).inspect_err(|_| {
                if let Err(error) = remove::delete(directory.path(), Lasting::ThisBoot) {
                    tracing::warn!(error = %chain(&error), "could not remove a container that was not made");
                }
                if let Err(error) = ground.release_layers(&definition.id) {
                    tracing::warn!(error = %chain(&error), "could not let go of the images of a container that was not made");
                }
            })
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// The definition comes last: with it there is a container, which then has its size, its layers and what is in its volumes.
fn lay_out_in(
    ground: &Ground,
    definition: &Definition,
    directory: &Directory,
    image: Option<caisson_images::ImageId>,
) -> Result<(), ApiError> {
    let failed = |error: io::Error| ApiError::from_chain("could not make the container", &error);
    directory.make().map_err(failed)?;
    let bytes = ground.quota.parse(definition.host_config.storage_opt.as_ref())?;
    let held = ground.quota.hold(directory, bytes);
    held.map_err(|e| ApiError::from_chain("could not hold the container to its size", &e))?;
    ground.hold_mounted_images(definition)?;
    if let Some(image) = image {
        let layers = ground.images.hold(&definition.id, &image);
        ground.fill_volumes(definition, &layers.map_err(|error| crate::images::error(&error))?)?;
    }
    directory.define(definition).map_err(failed)
}

/// Fills in from the image what the user left open, as `docker run` promises.
fn merge(config: &mut Config, image: &RunConfig) {
    let or = |text: &mut String, other: &str| {
        if text.is_empty() {
            text.push_str(other);
        }
    };
    or(&mut config.user, &image.user);
    or(&mut config.working_dir, &image.working_dir);
    or(&mut config.stop_signal, &image.stop_signal);
    if !image.exposed_ports.is_empty() {
        let ports = config.exposed_ports.get_or_insert_default();
        ports.extend(image.exposed_ports.keys().map(|port| (port.clone(), Empty {})));
    }
    let name = |entry: &str| entry.split('=').next().map(str::to_owned);
    let missing = |entry: &&String| !config.env.iter().flatten().any(|known| name(known) == name(entry));
    let from_image: Vec<String> = image.env.iter().filter(missing).cloned().collect();
    if !from_image.is_empty() {
        config.env.get_or_insert_default().extend(from_image);
    }
    if !image.volumes.is_empty() {
        let volumes = image.volumes.keys().map(|path| (path.clone(), Empty {}));
        config.volumes.get_or_insert_default().extend(volumes);
    }
    config.volumes = config.volumes.take().filter(|volumes| !volumes.is_empty());
    let labels = config.labels.get_or_insert_default();
    for (key, value) in &image.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let empty = |list: &Option<Strings>| list.as_ref().is_none_or(|list| list.0.is_empty());
    if empty(&config.entrypoint) {
        if empty(&config.cmd) {
            config.cmd = image.cmd.clone().map(Strings).or(config.cmd.take());
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint.clone().map(Strings);
        }
    }
    if config.shell.is_none() {
        config.shell = image.shell.clone().map(Strings);
    }
    if let Some(of_image) = &image.healthcheck {
        let health = config.healthcheck.get_or_insert_default();
        if health.test.as_ref().is_none_or(Vec::is_empty) {
            health.test = (!of_image.test.is_empty()).then(|| of_image.test.clone());
        }
        for (number, of_image) in [
            (&mut health.interval, of_image.interval),
            (&mut health.timeout, of_image.timeout),
            (&mut health.start_period, of_image.start_period),
            (&mut health.start_interval, of_image.start_interval),
            (&mut health.retries, of_image.retries),
        ] {
            if *number == 0 {
                *number = of_image;
            }
        }
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout.and_then(|seconds| i32::try_from(seconds).ok());
    }
}

/// The program and its arguments: entry point and command in one.
fn command(config: &mut Config) -> Result<(String, Vec<String>), ApiError> {
    if config.entrypoint.as_ref().is_some_and(|words| words.0 == [""]) {
        config.entrypoint = None;
    }
    let words = |list: &Option<Strings>| list.as_ref().map(|list| list.0.clone()).unwrap_or_default();
    let mut all = words(&config.entrypoint).into_iter().chain(words(&config.cmd));
    let path = all.next().ok_or_else(|| ApiError::invalid("no command specified"))?;
    Ok((path, all.collect()))
}

/// Fills in what dockerd shows of a container whose user said nothing.
fn complete(host: &mut HostConfig) {
    let or = |text: &mut String, default: &str| {
        if text.is_empty() {
            text.push_str(default);
        }
    };
    if host.network_mode == "default" {
        host.network_mode.clear();
    }
    or(&mut host.network_mode, "bridge");
    or(&mut host.ipc_mode, "private");
    or(&mut host.cgroupns_mode, "private");
    or(&mut host.runtime, "caisson");
    or(&mut host.log_config.kind, "json-file");
    or(&mut host.restart_policy.name, "no");
    host.log_config.config.get_or_insert_default();
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(caisson_runtime::defaults::SHM_SIZE).expect("it is 64 MiB");
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.oom_kill_disable.get_or_insert(false);
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    spec::rights::complete_options(host);
    spec::rights::default_paths(host);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Home, definition};
    use super::*;

    #[tokio::test]
    async fn there_is_no_container_before_there_is_all_of_it() {
        let home = Home::new().await;
        let definition = definition("cut");
        let ground = &home.containers.ground;
        let directory = ground.directory(&definition.id);
        let none_such = format!("sha256:{}", "0".repeat(64)).parse().map(caisson_images::ImageId).unwrap();
        lay_out_in(ground, &definition, &directory, Some(none_such)).unwrap_err();
        assert!(directory.upper().exists() && directory.definition().unwrap().is_none());
        // An engine that was killed there has left it to the next.
        home.containers.restore().await.unwrap();
        assert!(!directory.path().exists() && home.containers.all().is_empty());
        lay_out_in(ground, &definition, &directory, None).unwrap();
        assert!(directory.definition().unwrap().is_some());
    }

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&word| word.to_owned()).collect())
    }

    fn image() -> RunConfig {
        RunConfig {
            env: vec!["PATH=/bin".into(), "A=image".into()],
            entrypoint: words(&["entry"]),
            cmd: words(&["image-cmd"]),
            working_dir: "/srv".into(),
            ..RunConfig::default()
        }
    }

    fn merged(mut config: Config) -> (Config, Result<(String, Vec<String>), ApiError>) {
        merge(&mut config, &image());
        let command = command(&mut config);
        (config, command)
    }

    #[test]
    fn the_user_s_word_is_above_the_image_s() {
        let (config, command) = merged(Config { env: words(&["A=user"]), ..Config::default() });
        assert_eq!(config.env, words(&["A=user", "PATH=/bin"]));
        assert_eq!(config.working_dir, "/srv");
        assert_eq!(command.unwrap(), ("entry".into(), vec!["image-cmd".into()]));
    }

    #[test]
    fn entry_point_and_command_replace_each_other_as_in_docker() {
        let of = |entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>| {
            let config =
                Config { entrypoint: entrypoint.map(Strings), cmd: cmd.map(Strings), ..Config::default() };
            merged(config).1
        };
        assert_eq!(of(None, words(&["x"])).unwrap(), ("entry".into(), vec!["x".into()]));
        assert_eq!(of(words(&["e"]), None).unwrap(), ("e".into(), vec![]));
        assert_eq!(of(words(&[""]), words(&["x"])).unwrap(), ("x".into(), vec![]));
        assert_eq!(of(words(&[""]), None).unwrap_err().message, "no command specified");
    }
}
