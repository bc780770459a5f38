//! `docker export`: the whole root file system as one archive, without what is mounted in it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use caisson_images::files::{Packed, pack};
use caisson_runtime::{Rootfs, view};
use rustix::fs::OFlags;
use tokio::sync::oneshot;

use super::{Door, Way, path};
use crate::containers::{Containers, Ground, Handle};
use crate::error::ApiError;
use crate::http::reply::ChannelWriter;

impl Containers {
    /// Packs a container's root file system; that it can be read is told before the first byte. Returns when all is
    /// written, or nobody reads any more.
    pub(crate) async fn export(
        &self,
        handle: &Handle,
        told: oneshot::Sender<Result<(), ApiError>>,
        to: ChannelWriter,
    ) {
        let ground = self.ground();
        let mut told = Some(told);
        let mut tell = move |answer| told.take().is_some_and(|told| told.send(answer).is_ok());
        let door = match handle.door().await {
            Ok(door) => door,
            Err(error) => {
                tell(Err(error));
                return;
            }
        };
        let work = move || {
            let ids = ground.ids(&door);
            let packed = ground.look_at_root(&door, |root| {
                if !tell(Ok(())) {
                    return Ok(());
                }
                let top = path::open(&root, "/", OFlags::RDONLY | OFlags::DIRECTORY);
                let packed =
                    top.and_then(|top| pack(top.as_fd(), OsStr::new("."), b"", Packed::Files, &ids, to));
                packed.map_err(|e| ApiError::from_chain("the archive was cut short", &e))
            });
            match packed {
                Ok(()) => ground.tell(&door.definition, "export", &[]),
                Err(error) => {
                    if !tell(Err(error.clone())) {
                        tracing::warn!(%error, "could not export a container");
                    }
                }
            }
        };
        // A panic in there ends the stream, which the client sees.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

impl Ground {
    /// Shows a container's root file system without what is mounted in it, to be read.
    fn look_at_root(
        &self,
        door: &Door,
        work: impl FnOnce(OwnedFd) -> Result<(), ApiError> + Send,
    ) -> Result<(), ApiError> {
        let shown = match &door.way {
            Way::Running(namespace) => view::running_bare(namespace.as_fd(), work),
            Way::Stopped { .. } => {
                let Rootfs::Overlay { lower, upper, .. } = self.rootfs(&door.definition)? else {
                    return Err(ApiError::internal("the container has no layers"));
                };
                let layers: Vec<_> = std::iter::once(upper).chain(lower).collect();
                view::layers(&layers, &self.view, work)
            }
        };
        shown.map_err(|failure| ApiError::internal(failure.message))?
    }
}
