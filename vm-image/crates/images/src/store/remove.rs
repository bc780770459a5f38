//! `docker rmi`: which names and which images go, and what stands against it, as dockerd's image service has it.
//!
//! Something that stands against it is *hard* (an image made from this one, a running container) or *soft* (another
//! name, a stopped container); force overcomes the soft ones.

use std::collections::BTreeSet;

use super::{Change, FindError, Store};
use crate::digest::{ChainId, ImageId};
use crate::durable::StateError;
use crate::error::{Classified, ErrorKind};
use crate::image::{ContainerUse, Removed};
use crate::reference::{Reference, ReferenceError};

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Remove what stopped containers use, and every name.
    pub force: bool,
    /// Leave untagged parents.
    pub no_prune: bool,
}

/// Why nothing (more) was removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
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
            Self::Reference(_) => ErrorKind::Invalid,
            Self::LastName { .. } | Self::InUse { .. } => ErrorKind::Conflict,
            Self::State(_) => ErrorKind::Internal,
        }
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
    /// the store. On an error that comes after something was done, that stays done.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        in_use: &dyn Fn(&ImageId) -> Vec<ContainerUse>,
    ) -> Result<Vec<Removed>, RemoveError> {
        let mut removal = Removal { change: self.change(), in_use, options, done: Vec::new() };
        let result = removal.run(name);
        let Removal { change, done, .. } = removal;
        // The files of the layers go when nobody waits for the store any more.
        let swept = change.sweep().map(drop);
        result?;
        swept?;
        Ok(done)
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
        let id = self.change.find(name)?;
        let by_name = !is_beginning_of_id(&id, name);
        if by_name {
            if self.untag(name, id)? {
                return Ok(());
            }
        } else if is_single(&self.names(&id)) {
            let soft = Soft { names: false, stopped: !self.options.force };
            self.check(&id, soft)?;
            self.untag_all(id)?;
        }
        self.delete(id, self.options.force, by_name)
    }

    fn names(&self, id: &ImageId) -> Vec<Reference> {
        self.change.state.names.of(id)
    }

    /// Takes the name, and the digests of its repository if no tag of it is left. `true` if others remain.
    fn untag(&mut self, name: &str, id: ImageId) -> Result<bool, RemoveError> {
        if !self.options.force
            && is_single(&self.names(&id))
            && let Some(container) = (self.in_use)(&id).first()
        {
            let container = short(&container.id);
            return Err(RemoveError::LastName { name: name.to_owned(), container, image: id.short() });
        }
        let reference = Reference::parse(name)?.or_latest();
        self.take_names(id, vec![reference.clone()])?;
        if reference.digest().is_none() {
            self.untag_digests_without_tag(&reference, id)?;
        }
        Ok(!self.names(&id).is_empty())
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
