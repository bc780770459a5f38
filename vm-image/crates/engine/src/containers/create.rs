//! Making a container: its configuration completed from the image's, its name reserved, its files laid out.

use caisson_docker_api::Empty;
use caisson_docker_api::container::{Config, HealthConfig, HostConfig, NetworkingConfig, Strings};
use caisson_docker_api::time::Timestamp;
use caisson_images::{Image, Platform, RunConfig};
use tracing::info;

use super::record::Definition;
use super::state::{Created, State};
use super::{Containers, mounts, names, ports, remove, spec, validate};
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
}

impl Containers {
    /// Makes a container: its id, and what will not be as asked.
    pub(crate) async fn create(&self, options: CreateOptions) -> Result<(String, Vec<String>), ApiError> {
        let CreateOptions { name, mut config, mut host_config, networking, platform } = options;
        validate::check(&config, &host_config, &networking)?;
        let mut warnings = Vec::new();
        let image = self.find_image(&config.image, platform.as_ref(), &mut warnings)?;
        if let Some(image) = &image {
            merge(&mut config, &image.config.run());
        }
        warnings.extend(validate::warnings(&config, &host_config));
        let (path, args) = command(&mut config)?;
        complete(&mut host_config)?;
        ports::expose_published(&mut config, &host_config);
        if host_config.network_mode == "host" && !ports::bindings(&config, &host_config)?.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".into());
        }
        let mounts = mounts::points(&host_config)?;
        let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        if config.hostname.is_empty() {
            let of_host = host_config.network_mode == "host" || host_config.uts_mode == "host";
            config.hostname = if of_host { crate::system::hostname() } else { id[..12].to_owned() };
        }
        let name = self.reserve(&name, &id)?;
        let image = image.map(|image| image.id);
        let definition = Definition {
            id: id.clone(),
            name: name.clone(),
            created: Timestamp::now(),
            image: image.as_ref().map(ToString::to_string).unwrap_or_default(),
            config,
            host_config,
            mounts,
            path,
            args,
        };
        if let Err(error) = self.lay_out(&definition, image).await {
            self.register.release_name(&name);
            return Err(error);
        }
        info!(id = definition.short_id(), name, "container created");
        let handle = self.adopt(definition, State::Created(Created::default()));
        self.ground.tell(&handle.definition, "create", &[]);
        Ok((id, warnings))
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
        let image = self.ground.images.find(name).map_err(|e| crate::images::error(&e))?;
        let of_image = Platform {
            os: image.config.os.clone(),
            architecture: image.config.architecture.clone(),
            variant: image.config.variant.clone(),
        };
        let known = !of_image.os.is_empty() && !of_image.architecture.is_empty();
        let here = Platform::here();
        match platform {
            Some(asked) if known && !asked.runs(&of_image) => Err(ApiError::not_found(format!(
                "image with reference {name} was found but its platform ({of_image}) does not match the specified platform ({asked})"
            ))),
            None if known && !here.runs(&of_image) => {
                warnings.push(format!(
                    "The requested image's platform ({of_image}) does not match the detected host platform ({here}) and no specific platform was requested"
                ));
                Ok(Some(image))
            }
            _ => Ok(Some(image)),
        }
    }

    /// Everything on disk. What was done is undone if something fails.
    async fn lay_out(
        &self,
        definition: &Definition,
        image: Option<caisson_images::ImageId>,
    ) -> Result<(), ApiError> {
        let (ground, definition) = (self.ground.clone(), definition.clone());
        let work = move || {
            let directory = ground.directory(&definition.id);
            let made = directory.make(&definition);
            let made = made.map_err(|e| ApiError::from_chain("could not make the container", &e));
            let held = made.and_then(|()| match image {
                Some(image) => {
                    let held = ground.images.hold(&definition.id, &image);
                    held.map(|_| ()).map_err(|error| crate::images::error(&error))
                }
                None => Ok(()),
            });
            held.inspect_err(|_| {
                if let Err(error) = remove::delete(directory.path()) {
                    tracing::warn!(error = %chain(&error), "could not remove a container that was not made");
                }
            })
        };
        tokio::task::spawn_blocking(work).await?
    }
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
    if let (None, Some(health)) = (&config.healthcheck, &image.healthcheck) {
        config.healthcheck = Some(HealthConfig {
            test: (!health.test.is_empty()).then(|| health.test.clone()),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        });
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
fn complete(host: &mut HostConfig) -> Result<(), ApiError> {
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
    host.memory_swappiness = host.memory_swappiness.filter(|n| *n != -1);
    host.oom_kill_disable = host.oom_kill_disable.filter(|disable| *disable);
    host.pids_limit = host.pids_limit.filter(|limit| *limit != 0);
    spec::rights::default_paths(host)
}

#[cfg(test)]
mod tests {
    use super::*;

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
