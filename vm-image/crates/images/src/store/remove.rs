//! `docker rmi`: which names and which images go, and what stands against it, as dockerd's image service has it.
//!
//! Something that stands against it is *hard* (an image made from this one, a running container) or *soft* (another
//! name, a stopped container); force overcomes the soft ones.
//!
//! Where a name leads to the same image for several platforms, all of these go with the last name that leads to them, or
//! one of them when its platform or its id is given.

use std::collections::BTreeSet;

use super::{Change, FindError, Store};
use crate::digest::{ChainId, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::image::{ContainerUse, Removed};
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};

/// How to remove.
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions {
    /// Remove what stopped containers use, and every name.
    pub force: bool,
    /// Leave untagged parents.
    pub no_prune: bool,
    /// Remove only what is for these platforms; takes [`force`](Self::force). All if there are none.
    pub platforms: Vec<Platform>,
}

/// Why nothing (more) was removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Platforms were named, but not force.
    #[error("Content will be removed from all images referencing this variant. Use —-force to force delete.")]
    PlatformsUnforced,
    /// The name cannot be read.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A container was made from the image, and this is its only name.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    LastName {
        /// The name as it was given.
        name: String,
        /// The container's short id.
        container: String,
        /// The image's short id.
        image: String,
    },
    /// Something stands against it.
    #[error("conflict: unable to delete {image} ({}) - {why}", if why.is_hard() { "cannot be forced" } else { "must be forced" })]
    InUse {
        /// The image's short id.
        image: String,
        /// What it is.
        why: Obstacle,
    },
    /// The disk failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Classified for RemoveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Find(error) => error.kind(),
            Self::PlatformsUnforced | Self::Reference(_) => ErrorKind::Invalid,
            Self::LastName { .. } | Self::InUse { .. } => ErrorKind::Conflict,
            Self::State(_) => ErrorKind::Internal,
        }
    }
}

/// A removal that was refused, or that failed half-way.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct RemoveFailed {
    /// Why nothing (more) was removed.
    pub why: Box<RemoveError>,
    /// What was removed before, and stays so.
    pub done: Vec<Removed>,
}

impl Classified for RemoveFailed {
    fn kind(&self) -> ErrorKind {
        self.why.kind()
    }
}

/// What stands against a removal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Another image was made from it.
    #[error("image has dependent child images")]
    Children,
    /// A container of it runs.
    #[error("image is being used by running container {0}")]
    Running(String),
    /// It has names.
    #[error("image is referenced in multiple repositories")]
    Names,
    /// A container of it is stopped.
    #[error("image is being used by stopped container {0}")]
    Stopped(String),
}

impl Obstacle {
    fn is_hard(&self) -> bool {
        matches!(self, Self::Children | Self::Running(_))
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Stopped(_))
    }
}

/// Which soft obstacles count.
#[derive(Clone, Copy)]
struct Soft {
    names: bool,
    stopped: bool,
}

impl Store {
    /// Takes a name from an image, and removes the image if it was the last, as `docker rmi` does.
    ///
    /// `in_use` tells the containers of an image; it is called while the store waits for it, so it must not change
    /// the store.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        in_use: &dyn Fn(&ImageId) -> Vec<ContainerUse>,
    ) -> Result<Vec<Removed>, RemoveFailed> {
        let mut removal = Removal { change: self.change(), in_use, options, done: Vec::new() };
        let result = removal.run(name);
        let Removal { change, done, .. } = removal;
        // The files of the layers go when nobody waits for the store any more.
        let swept = change.sweep().map(drop).map_err(RemoveError::from);
        match result.and(swept) {
            Ok(()) => Ok(done),
            Err(why) => Err(RemoveFailed { why: Box::new(why), done }),
        }
    }
}

struct Removal<'a> {
    change: Change<'a>,
    in_use: &'a dyn Fn(&ImageId) -> Vec<ContainerUse>,
    options: RemoveOptions,
    done: Vec<Removed>,
}

impl Removal<'_> {
    fn run(&mut self, name: &str) -> Result<(), RemoveError> {
        let all = self.change.find_all(name)?;
        if let [platform] = &self.options.platforms[..]
            && all.len() == 1
        {
            self.change.state.find_only_for(name, platform)?;
        } else if !self.options.platforms.is_empty() {
            return self.of_platforms(name);
        }
        match all[..] {
            [id, ..] if is_beginning_of_id(&id, name) => self.by_id(id),
            _ => self.by_name(name, &all),
        }
    }

    /// Takes a name, and removes what is left without any.
    fn by_name(&mut self, name: &str, all: &[ImageId]) -> Result<(), RemoveError> {
        self.untag(name, all)?;
        let force = self.options.force;
        for id in all {
            if self.names(id).is_empty() {
                self.delete(*id, force, true)?;
            }
        }
        Ok(())
    }

    /// Removes an image with its names, and what these lead to for other platforms.
    fn by_id(&mut self, id: ImageId) -> Result<(), RemoveError> {
        let force = self.options.force;
        if self.change.image(&id).is_some_and(|image| image.is_behind_another) {
            return self.delete_behind_another(id, !force);
        }
        let others = self.change.state.names.others(&id);
        if is_single(&self.names(&id)) {
            for id in std::iter::once(&id).chain(&others) {
                self.check(id, Soft { names: false, stopped: !force })?;
            }
            self.untag_all(id)?;
        }
        self.delete(id, force, false)?;
        for other in others {
            if self.names(&other).is_empty() {
                self.delete(other, force, true)?;
            }
        }
        Ok(())
    }

    /// Removes what a name leads to for some platforms, from all names that lead to it.
    fn of_platforms(&mut self, name: &str) -> Result<(), RemoveError> {
        if !self.options.force {
            return Err(RemoveError::PlatformsUnforced);
        }
        for platform in std::mem::take(&mut self.options.platforms) {
            let id = self.change.state.find_only_for(name, &platform)?;
            self.delete_behind_another(id, false)?;
        }
        Ok(())
    }

    /// Removes an image from among those that names lead to; the names go on leading to the others.
    fn delete_behind_another(&mut self, image: ImageId, stopped: bool) -> Result<(), RemoveError> {
        self.check(&image, Soft { names: false, stopped })?;
        let gone = self.change.leave_names(&image)?;
        self.done.extend(gone.into_iter().map(|reference| Removed::Untagged { reference, image }));
        self.delete(image, true, false)
    }

    fn names(&self, id: &ImageId) -> Vec<Reference> {
        self.change.state.names.of(id)
    }

    /// Takes the name, and the digests of its repository if no tag of it is left.
    fn untag(&mut self, name: &str, all: &[ImageId]) -> Result<(), RemoveError> {
        let [id, ..] = *all else { return Ok(()) };
        if !self.options.force
            && is_single(&self.names(&id))
            && let Some((image, container)) =
                all.iter().find_map(|id| Some((id, (self.in_use)(id).into_iter().next()?)))
        {
            let container = short(&container.id);
            return Err(RemoveError::LastName { name: name.to_owned(), container, image: image.short() });
        }
        let reference = Reference::parse(name)?.or_latest();
        self.take_names(id, vec![reference.clone()])?;
        if reference.digest().is_none() {
            self.untag_digests_without_tag(&reference, id)?;
        }
        Ok(())
    }

    fn untag_digests_without_tag(&mut self, gone: &Reference, id: ImageId) -> Result<(), RemoveError> {
        let of_repository: Vec<Reference> =
            self.names(&id).into_iter().filter(|name| name.name() == gone.name()).collect();
        match of_repository.iter().all(|name| name.digest().is_some()) {
            true => self.take_names(id, of_repository),
            false => Ok(()),
        }
    }

    fn untag_all(&mut self, id: ImageId) -> Result<(), RemoveError> {
        self.take_names(id, self.names(&id))
    }

    fn take_names(&mut self, image: ImageId, names: Vec<Reference>) -> Result<(), RemoveError> {
        if !names.is_empty() {
            self.change.remove_names(&names)?;
        }
        self.done.extend(names.into_iter().map(|reference| Removed::Untagged { reference, image }));
        Ok(())
    }

    /// Removes an image with all its names, then its parents that nothing leads to. When `quiet`, an obstacle is no
    /// error if the image can still be reached or is used by a container.
    fn delete(&mut self, id: ImageId, force: bool, quiet: bool) -> Result<(), RemoveError> {
        if let Err(conflict) = self.check(&id, Soft { names: !force, stopped: !force }) {
            let used = matches!(&conflict, RemoveError::InUse { why, .. } if why.is_container());
            let dangling = self.names(&id).is_empty() && self.change.state.children(&id) == 0;
            return if quiet && (!dangling || used) { Ok(()) } else { Err(conflict) };
        }
        let Some(known) = self.change.state.images.get(&id) else { return Ok(()) };
        let (parent, chain) = (known.record.parent, known.config.chain());
        self.untag_all(id)?;
        self.change.remove_image(&id)?;
        self.done.push(Removed::Image(id));
        self.report_layers(&chain);
        match parent {
            Some(parent) if !self.options.no_prune => self.delete(parent, false, true),
            _ => Ok(()),
        }
    }

    /// The layers that went with an image: from its topmost down to the first that something else stands on.
    fn report_layers(&mut self, chain: &[ChainId]) {
        let state = &self.change.state;
        let of_images = state.images.values().flat_map(|known| known.config.chain());
        let of_holds = state.holds.values().flat_map(|held| ChainId::of_stack(&held.layers));
        let needed: BTreeSet<ChainId> = of_images.chain(of_holds).collect();
        let gone = chain.iter().rev().take_while(|id| !needed.contains(id));
        self.done.extend(gone.map(|id| Removed::Layer(*id)));
    }

    fn check(&self, id: &ImageId, soft: Soft) -> Result<(), RemoveError> {
        match self.obstacle(id, soft) {
            Some(why) => Err(RemoveError::InUse { image: id.short(), why }),
            None => Ok(()),
        }
    }

    fn obstacle(&self, id: &ImageId, soft: Soft) -> Option<Obstacle> {
        if self.change.state.children(id) > 0 {
            return Some(Obstacle::Children);
        }
        let containers = (self.in_use)(id);
        let with =
            |running| containers.iter().find(|container| container.running == running).map(|c| short(&c.id));
        if let Some(running) = with(true) {
            return Some(Obstacle::Running(running));
        }
        if soft.names && !self.names(id).is_empty() {
            return Some(Obstacle::Names);
        }
        with(false).filter(|_| soft.stopped).map(Obstacle::Stopped)
    }
}

/// Whether all names are of one repository, with at most one tag among them. Not if there are none.
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return names.len() == 1;
    }
    let tags: Vec<_> = names.iter().filter(|name| name.digest().is_none()).collect();
    let repositories: BTreeSet<_> = names.iter().map(Reference::name).collect();
    tags.len() <= 1 && repositories.len() == 1
}

fn is_beginning_of_id(id: &ImageId, text: &str) -> bool {
    id.to_string().starts_with(text) || id.0.hex().starts_with(text)
}

fn short(container: &str) -> String {
    container.chars().take(12).collect()
}
