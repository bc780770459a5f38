//! Unpacks a tar archive into a directory of a tree that nothing can leave.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::Ids;
use crate::layer::LayerError;
use crate::layer::apply::{self, Manner};

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// Whose the files become; `None` for those whom the archive names.
    pub owner: Option<(u32, u32)>,
    /// A directory is never replaced by what is none, nor the other way round.
    pub keep_kinds: bool,
    /// Who the archive's users and groups are on this system.
    pub ids: Ids,
}

/// Unpacks an archive, compressed or not, at a path of the tree `root`, over what is there. Every name in it is resolved
/// as a process with `root` as its root directory would, so that links lead to where they lead there.
///
/// # Errors
/// What is wrong with the archive, and what the disk says. What was unpacked until then stays, as in dockerd.
pub fn unpack(
    archive: impl Read + Send,
    root: OwnedFd,
    at: &Path,
    options: &UnpackOptions,
) -> Result<(), LayerError> {
    apply::copy(archive, root, at, Manner::Copy(options))
}
