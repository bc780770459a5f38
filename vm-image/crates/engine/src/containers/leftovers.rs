//! What lies about where containers are, from engines and machines that ended in the middle of something: directories half removed, and
//! volumes of containers that were never made, or were to go with theirs.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing::warn;

use super::mounts::making::{MAKING, Making};
use super::record::Directory;
use super::remove::{DOOMED_WITH_VOLUMES, remove_files};
use super::{Containers, Ground};

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

impl Containers {
    /// When all containers have said what they hold: finishes the removal of those whose volumes were to go with them, removes the volumes
    /// of those that were never made, and unmounts what nobody uses.
    pub(super) async fn settle_volumes(&self) -> anyhow::Result<()> {
        let ground = self.ground.clone();
        let work = move || {
            let root = &ground.containers;
            for entry in std::fs::read_dir(root)? {
                settle_volumes_of(&ground, &entry?.path());
            }
            ground.volumes.settle();
            Ok::<_, io::Error>(())
        };
        tokio::task::spawn_blocking(work).await?.context("could not settle the volumes of removed containers")
    }

    /// Removes what was being removed, but for what [`settle_volumes`](Self::settle_volumes) sees to.
    pub(super) fn clear_doomed(&self) -> anyhow::Result<()> {
        for path in self.on_disk()? {
            let is_volumes_business =
                has_extension(&path, DOOMED_WITH_VOLUMES) || has_extension(&path, MAKING);
            if path.extension().is_some() && !is_volumes_business {
                clear_away(&path);
            }
        }
        Ok(())
    }

    /// The ids of the containers' directories.
    pub(super) fn ids_on_disk(&self) -> anyhow::Result<Vec<String>> {
        let ids = self.on_disk()?.into_iter().filter(|path| path.extension().is_none());
        Ok(ids.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    /// All that is where containers are.
    fn on_disk(&self) -> anyhow::Result<Vec<PathBuf>> {
        let root = &self.ground.containers;
        let entries = std::fs::read_dir(root).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
        entries.with_context(|| format!("could not read {}", root.display()))
    }
}

/// Removes a directory that is of no use any more.
pub(super) fn clear_away(path: &Path) {
    if let Err(error) = remove_files(path) {
        warn!(path = %path.display(), %error, "could not remove what is left of a container");
    }
}

/// What a directory that is no container's says of volumes is done, and it is removed.
fn settle_volumes_of(ground: &Ground, path: &Path) {
    if has_extension(path, MAKING) {
        match Making::noted(path) {
            Ok(noted) => noted.iter().for_each(|volume| ground.remove_anonymous(volume)),
            Err(error) => {
                warn!(path = %path.display(), %error, "could not read the volumes of a container that was not made")
            }
        }
        clear_away(path);
    } else if has_extension(path, DOOMED_WITH_VOLUMES) {
        if let Some(definition) = Directory::at(path).definition().ok().flatten() {
            ground.release_volumes(&definition.id, definition.mounts.iter(), true);
        }
        clear_away(path);
    }
}
