//! A container's files, for clients: `docker cp` both ways, `diff`, `export`.
//!
//! Of a container that runs, its own mount namespace is entered, so that its volumes, its tmpfs and what it mounted itself
//! are there. Of one that does not, its layers are mounted in a namespace of the view's own, with its volumes and binds in
//! it; nobody else may mount them meanwhile, so that a start waits for a copy to end, as in dockerd. See
//! `caisson_runtime::view`.

mod changes;
mod copy;
mod export;
mod path;
mod user;

pub(crate) use copy::UnpackWishes;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use caisson_images::files::Ids;
use caisson_runtime::view::{self, Bind};
use caisson_runtime::{Failure, Rootfs};
use tokio::sync::OwnedMutexGuard;

use super::record::Definition;
use super::state::State;
use super::{Containers, Ground, Handle, spec};
use crate::error::{ApiError, chain};
use crate::remap::Remap;
use crate::volumes;

/// A way to a container's files, good for one view.
struct Door {
    way: Way,
    definition: std::sync::Arc<Definition>,
}

enum Way {
    /// Into the namespace of one that runs, where files have owners as this system numbers them.
    Running(OwnedFd),
    /// To the layers of one that does not, which nobody else mounts meanwhile.
    Stopped { _alone: OwnedMutexGuard<()> },
}

impl Handle {
    /// Opens the way to the container's files.
    async fn door(&self) -> Result<Door, ApiError> {
        let lock = self.files.clone().lock_owned().await;
        let definition = self.definition();
        let way = match self.state() {
            State::Running(running) => Way::Running(mount_namespace(running.pid, &definition.id)?),
            State::Removing(_) | State::Removed => {
                return Err(ApiError::conflict(format!("container {} is marked for removal", self.id)));
            }
            State::Created(_) | State::Restarting(_) | State::Exited(_) => Way::Stopped { _alone: lock },
        };
        Ok(Door { way, definition })
    }
}

/// Opens a process' mount namespace, if it is still a process of this container: numbers are used again.
fn mount_namespace(pid: u32, id: &str) -> Result<OwnedFd, ApiError> {
    let gone = |error: &std::io::Error| ApiError::from_chain("could not enter the container", error);
    let namespace = File::open(format!("/proc/{pid}/ns/mnt")).map_err(|e| gone(&e))?;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|e| gone(&e))?;
    if !cgroups.contains(id) {
        return Err(ApiError::conflict(format!("container {id} is not running")));
    }
    Ok(namespace.into())
}

impl Ground {
    /// Does something with a container's files; `work` gets its root directory. Blocks.
    ///
    /// That its volumes are mounted meanwhile is told as dockerd tells it, which mounts them for a container that runs as well.
    fn look<T: Send>(
        &self,
        door: &Door,
        work: impl FnOnce(OwnedFd) -> Result<T, ApiError> + Send,
    ) -> Result<T, ApiError> {
        let work = |root| {
            self.tell_of_mounts(&door.definition);
            let done = work(root);
            self.tell_of_unmounts(&door.definition);
            done
        };
        self.enter(door, work)
    }

    fn enter<T: Send>(
        &self,
        door: &Door,
        work: impl FnOnce(OwnedFd) -> Result<T, ApiError> + Send,
    ) -> Result<T, ApiError> {
        let failed = |failure: Failure| ApiError::internal(failure.message);
        match &door.way {
            Way::Running(namespace) => {
                let root = self.remap_of(&door.definition.host_config).map_or((0, 0), Remap::root);
                view::running(namespace.as_fd(), root, work).map_err(failed)?
            }
            Way::Stopped { .. } => {
                let rootfs = self.rootfs(&door.definition)?;
                let user = format!("{}-copy", door.definition.id);
                let seen = self
                    .mount_all(&door.definition, &user)
                    .and_then(|binds| view::stopped(&rootfs, &self.view, &binds, work).map_err(failed)?);
                self.unmount_all(&door.definition, &user);
                seen
            }
        }
    }

    /// Whose the files are that are seen through a door.
    fn ids(&self, door: &Door) -> Ids {
        match &door.way {
            Way::Running(_) => {
                let remap = self.remap_of(&door.definition.host_config);
                remap.map(|remap| remap.ids().clone()).unwrap_or_default()
            }
            // On the disk they are the container's own.
            Way::Stopped { .. } => Ids::default(),
        }
    }

    /// The layers of a container.
    pub(super) fn rootfs(&self, definition: &Definition) -> Result<Rootfs, ApiError> {
        let layers = self.images.held(&definition.id);
        let layers = layers.map_err(|e| ApiError::from_chain("the container's image is not usable", &e))?;
        let directory = self.directory(&definition.id);
        Ok(Rootfs::Overlay {
            lower: std::iter::once(self.base_layer.clone()).chain(layers).collect(),
            upper: directory.upper(),
            work: directory.work(),
        })
    }

    /// What is bound into a container that does not run, its volumes' devices mounted. What is not there is left out.
    fn mount_all(&self, definition: &Definition, user: &str) -> Result<Vec<Bind>, ApiError> {
        for mounting in &definition.mounts {
            if let Some(name) = mounting.volume() {
                self.volumes.mount(name, user).map_err(|e| volumes::error(&e))?;
            }
        }
        let mut binds = spec::binds(definition, &self.mounted_layers(definition)?);
        binds.retain(|bind| bind.kind != "bind" || bind.source.exists());
        Ok(binds)
    }

    fn unmount_all(&self, definition: &Definition, user: &str) {
        for name in definition.mounts.iter().filter_map(super::mounts::Mounting::volume) {
            if let Err(error) = self.volumes.unmount(name, user) {
                tracing::warn!(volume = name, error = %chain(&error), "could not unmount a volume");
            }
        }
    }
}

/// An error of the system about a container's files: not there, or dockerd's 500.
fn file_error(error: std::io::Error, path: &str, container: &str) -> ApiError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => missing(path, container),
        _ => {
            let text = error.to_string().to_lowercase();
            let text = text.split(" (os error").next().unwrap_or_default();
            ApiError::internal(format!("lstat {path}: {text}"))
        }
    }
}

fn missing(path: &str, container: &str) -> ApiError {
    ApiError::not_found(format!("Could not find the file {path} in container {container}"))
}

impl Containers {
    fn ground(&self) -> std::sync::Arc<Ground> {
        self.ground.clone()
    }
}
