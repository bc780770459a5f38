//! `/images`.

mod archive;
mod history;
mod import;
pub(super) mod list;
mod manifests;
mod pattern;
mod platform;
mod progress;
mod prune;
mod pull;
mod push;
mod save;
mod search;

pub(crate) use archive::{create, load};
pub(crate) use history::history;
pub(crate) use list::list;
pub(crate) use prune::prune;
pub(crate) use pull::credentials;
pub(crate) use push::push;
pub(crate) use save::{save_all, save_one};
pub(crate) use search::search;

use std::collections::BTreeMap;

use caisson_docker_api::Empty;
use caisson_docker_api::container::{GraphDriver, HealthConfig};
use caisson_docker_api::image::{Image as Told, ImageConfig, Metadata, Removed as ToldRemoved, RootFs};
use caisson_docker_api::time::Timestamp;
use caisson_images::{Image, ImageId, Reference, RemoveFailed, RemoveOptions, Removed, RunConfig};
use hyper::StatusCode;

use super::call::Call;
use super::reply::{self, Reply};
use crate::engine::Engine;
use crate::error::{ApiError, chain};
use crate::images;

/// `GET /images/{name}/json`.
pub(crate) async fn inspect(call: Call) -> Result<Reply, ApiError> {
    let with_manifests = call.form.bool("manifests") && call.version.at_least(48);
    let wanted = platform::asked(&call, 49)?;
    if with_manifests && wanted.is_some() {
        return Err(ApiError::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let engine = call.engine.clone();
    let told = tokio::task::spawn_blocking(move || {
        let image = engine.images.find_for(&call.name, wanted.as_ref()).map_err(|e| images::error(&e))?;
        let described = engine.images.described(&image.id).filter(|_| call.version.at_least(48));
        let mut told = describe(&engine, image)?;
        if !call.version.at_least(44) {
            told.virtual_size = Some(told.size);
        }
        if let Some(described) = described {
            told.manifests = with_manifests.then(|| manifests::told(&engine, &described));
            told.descriptor = Some(match wanted {
                // Of one platform its manifest is told, as the containerd image store does.
                Some(_) => manifests::descriptor_of(&described, &told.id),
                None => manifests::descriptor(&described.target),
            });
        }
        Ok::<_, ApiError>(told)
    });
    Ok(reply::json(StatusCode::OK, &told.await??))
}

/// `POST /images/{name}/tag`.
pub(crate) async fn tag(call: Call) -> Result<Reply, ApiError> {
    let target = reference(call.form.get("repo"), call.form.get("tag"))?;
    let engine = call.engine.clone();
    tokio::task::spawn_blocking(move || {
        let image = engine.images.tag(&call.name, &target).map_err(|e| images::error(&e))?;
        tell(&engine, "tag", &image.id.to_string(), &target.familiar());
        Ok::<_, ApiError>(())
    })
    .await??;
    Ok(reply::empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`.
pub(crate) async fn remove(call: Call) -> Result<Reply, ApiError> {
    if call.name.trim().is_empty() {
        return Err(ApiError::invalid("image name cannot be blank"));
    }
    let options = RemoveOptions {
        force: call.form.bool("force"),
        no_prune: call.form.bool("noprune"),
        platforms: platform::all_asked(&call, 50)?,
    };
    let engine = call.engine.clone();
    let removed = tokio::task::spawn_blocking(move || match remove_told(&engine, &call.name, options) {
        (_, Some(failed)) => Err(failed),
        (removed, None) => Ok(removed),
    })
    .await??;
    Ok(reply::json(StatusCode::OK, &removed.iter().map(told_removed).collect::<Vec<_>>()))
}

/// Removes and tells of it; what was done before something failed is done. Blocks.
fn remove_told(engine: &Engine, name: &str, options: RemoveOptions) -> (Vec<Removed>, Option<ApiError>) {
    let users = |id: &ImageId| engine.containers.users_of(&id.to_string());
    let (removed, failed) = match engine.images.remove(name, options, &users) {
        Ok(removed) => (removed, None),
        Err(RemoveFailed { done, why }) => (done, Some(images::error(&*why))),
    };
    for one in &removed {
        match one {
            Removed::Untagged { image, .. } => tell(engine, "untag", &image.to_string(), &image.to_string()),
            Removed::Image(image) => tell(engine, "delete", &image.to_string(), &image.to_string()),
            Removed::Layer(_) => {}
        }
    }
    (removed, failed)
}

fn told_removed(one: &Removed) -> ToldRemoved {
    match one {
        Removed::Untagged { .. } => ToldRemoved::Untagged(one.subject()),
        Removed::Image(_) | Removed::Layer(_) => ToldRemoved::Deleted(one.subject()),
    }
}

/// The name that `repo` and `tag` make.
fn reference(repo: &str, tag: &str) -> Result<Reference, ApiError> {
    Reference::from_repo_and_tag(repo, tag).map_err(|e| ApiError::invalid(chain(&e)))
}

/// Tells of an image, with its labels while it is there.
pub(crate) fn tell(engine: &Engine, action: &str, id: &str, name: &str) {
    let mut attributes = engine.images.find(id).map(|image| image.labels()).unwrap_or_default();
    if !name.is_empty() {
        attributes.insert("name".to_owned(), name.to_owned());
    }
    engine.events.publish("image", action, id, attributes);
}

/// The same of what went to or came from a registry: dockerd names it, not its id.
fn tell_name(engine: &Engine, action: &str, id: &ImageId, name: &Reference) {
    let mut attributes = engine.images.find(&id.to_string()).map(|image| image.labels()).unwrap_or_default();
    attributes.insert("name".to_owned(), name.familiar_name());
    engine.events.publish("image", action, &name.familiar(), attributes);
}

fn describe(engine: &Engine, image: Image) -> Result<Told, ApiError> {
    let layers = engine.images.layers(&image.id).map_err(|e| images::error(&e))?;
    let config = &image.config;
    Ok(Told {
        id: image.id.to_string(),
        repo_tags: image.repo_tags(),
        repo_digests: image.repo_digests(),
        parent: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        comment: comment(config),
        created: config.created.clone().unwrap_or_default(),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        graph_driver: graph_driver(&layers),
        root_fs: RootFs {
            kind: "layers".into(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata {
            last_tag_time: image
                .last_tagged
                .map_or(Timestamp::ZERO, |at| Timestamp::from(std::time::SystemTime::from(at))),
        },
        config: told_config(config.run()),
        virtual_size: None,
        descriptor: None,
        manifests: None,
    })
}

/// An image's own comment, else that of its last step.
fn comment(config: &caisson_images::ImageConfig) -> String {
    let of_last = config.history.last().map(|step| &step.comment);
    Some(&config.comment).filter(|own| !own.is_empty()).or(of_last).cloned().unwrap_or_default()
}

fn graph_driver(layers: &[std::path::PathBuf]) -> GraphDriver {
    let mut data = BTreeMap::new();
    if let Some((top, lower)) = layers.split_first() {
        data.insert("UpperDir".to_owned(), top.display().to_string());
        if !lower.is_empty() {
            let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
    }
    GraphDriver { data, name: "overlay2".into() }
}

fn told_config(run: RunConfig) -> ImageConfig {
    let set = |keys: caisson_images::KeySet| {
        keys.into_keys().map(|key| (key, Empty {})).collect::<BTreeMap<_, _>>()
    };
    let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let map = |map: BTreeMap<String, String>| (!map.is_empty()).then_some(map);
    ImageConfig {
        args_escaped: run.args_escaped,
        cmd: run.cmd,
        entrypoint: run.entrypoint,
        env: list(run.env),
        exposed_ports: set(run.exposed_ports),
        healthcheck: run.healthcheck.map(|health| HealthConfig {
            test: list(health.test),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        labels: map(run.labels),
        on_build: list(run.on_build),
        shell: run.shell.unwrap_or_default(),
        stop_signal: run.stop_signal,
        user: run.user,
        volumes: (!run.volumes.is_empty()).then(|| set(run.volumes)),
        working_dir: run.working_dir,
    }
}
