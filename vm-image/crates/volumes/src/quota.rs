//! The option `size`: how much a volume may take of the disk, by project quotas of its file system.
//!
//! A volume with a size is a project of its own. Its number is in its record, and becomes its directory's whenever it is mounted, as
//! in dockerd: what the directory itself says is its containers' to change. The limit goes when the volume's files are removed. Volumes have
//! the upper half of all numbers, and leave the lower one to the layers of containers, so that none is in use by both.
//!
//! With a device it is what is mounted that becomes part of the project, if its file system has any; its limit stays on it, as under dockerd.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use caisson_sys::quota;

use crate::error::{At, VolumeError};
use crate::options;
use crate::volume::Volume;

/// The lowest number that a volume may have as a project.
pub const FIRST_PROJECT: u32 = 1 << 31;

/// The projects of the file system of all volumes; `None` where it has none to give.
#[derive(Debug)]
pub(crate) struct Projects {
    /// The lowest number that was never used.
    next: Option<AtomicU32>,
}

impl Projects {
    /// Looks at the directory of all volumes, of which `last` is the highest project.
    pub(crate) fn probe(root: &Path, last: Option<u32>) -> Self {
        let is_on = File::open(root).is_ok_and(|root| quota::is_on(root.as_fd()));
        if is_on { Self::after(last) } else { Self { next: None } }
    }

    pub(crate) fn after(last: Option<u32>) -> Self {
        Self { next: Some(AtomicU32::new(last.map_or(FIRST_PROJECT, |last| last + 1))) }
    }

    /// Whether volumes can have a size.
    pub(crate) fn are_there(&self) -> bool {
        self.next.is_some()
    }

    /// A number that no other volume has, for one that may take so many bytes; 0 is no limit, and needs none.
    pub(crate) fn take(&self, bytes: u64) -> Option<u32> {
        let next = self.next.as_ref().filter(|_| bytes > 0)?;
        Some(next.fetch_add(1, Ordering::Relaxed))
    }

    /// Holds a volume to its size, if it has one, before anybody uses it.
    pub(crate) fn hold(&self, volume: &Volume) -> Result<(), VolumeError> {
        let Some(project) = volume.project else { return Ok(()) };
        let path = volume.path.display().to_string();
        if !self.are_there() {
            return Err(VolumeError::NoQuota { path });
        }
        let directory = File::open(&volume.path).at("open", &volume.path)?;
        let failed = |action: String| {
            let path = path.clone();
            move |reason: io::Error| VolumeError::Quota { path, action, reason }
        };
        quota::join(directory.as_fd(), project).map_err(failed("set projid for".into()))?;
        quota::limit(directory.as_fd(), project, options::size(volume.options.as_ref()))
            .map_err(failed(format!("set quota limit for projid {project} on")))
    }
}

/// Gives the number of a volume without files back.
pub(crate) fn give_back(root: &Path, project: u32) -> io::Result<()> {
    quota::limit(File::open(root)?.as_fd(), project, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_once_and_only_for_sizes() {
        let projects = Projects::after(None);
        assert_eq!(projects.take(0), None);
        assert_eq!(projects.take(1), Some(FIRST_PROJECT));
        assert_eq!(projects.take(1), Some(FIRST_PROJECT + 1));
        assert_eq!(Projects::after(Some(FIRST_PROJECT + 7)).take(1), Some(FIRST_PROJECT + 8));
    }

    #[test]
    fn where_there_are_no_projects_a_size_is_refused() {
        let projects = Projects::probe(Path::new("/proc"), None);
        assert_eq!((projects.are_there(), projects.take(1)), (false, None));
        let volume = Volume {
            name: "moved".into(),
            created: time::OffsetDateTime::UNIX_EPOCH,
            options: Some([("size".to_owned(), "1m".to_owned())].into()),
            labels: None,
            path: "/proc".into(),
            project: Some(FIRST_PROJECT),
        };
        assert_eq!(
            projects.hold(&volume).unwrap_err().to_string(),
            "error while mounting volume '/proc': size quota requested for volume but no quota support"
        );
        // As a device without projects, of which tmpfs is one.
        let told = Projects::after(None).hold(&volume).unwrap_err().to_string();
        assert!(
            told.starts_with("error while mounting volume '/proc': failed to set projid for /proc: "),
            "{told}"
        );
        assert!(Projects::after(None).hold(&Volume { project: None, ..volume }).is_ok());
    }
}
