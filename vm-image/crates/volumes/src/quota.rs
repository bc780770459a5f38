//! The option `size`: how much a volume may take of the disk, by project quotas of its file system.
//!
//! A volume with a size is a project of its own. Its number is in its record, and becomes its directory's whenever it is mounted, as
//! in dockerd: what the directory itself says is its containers' to change. The limit goes before the volume's files do. Volumes have
//! the upper half of all numbers, and leave the lower one to the layers of containers, so that none is in use by both.
//!
//! A container's root may give its files any number, so what is written down does not tell which are in use: the kernel does, which counts
//! the files of each. And a number is drawn by chance, so that nobody knows whose is which.
//!
//! With a device it is what is mounted that becomes part of the project, if its file system has any; its limit stays on it, as under dockerd.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use caisson_sys::quota;

use crate::error::{At, VolumeError};
use crate::options;
use crate::volume::Volume;

/// The lowest number that a volume may have as a project.
pub const FIRST_PROJECT: u32 = 1 << 31;
/// Those that volumes may have. The highest of all numbers is the kernel's word for none.
const PROJECTS: Range<u32> = FIRST_PROJECT..u32::MAX;

/// How many numbers are tried. All but a few of so many are free, whatever containers do: each that is used has a file.
const TRIES: usize = 1000;

/// A number that no file of the file system of `file` has as its project, and no limit is for. It is free until it is used: of those who ask
/// for one, each has to use it before the next asks.
///
/// # Errors
/// What `quotactl(2)` says; and if there seems to be none.
pub fn free_project(file: BorrowedFd<'_>, among: Range<u32>) -> io::Result<u32> {
    choose(among, |project| quota::is_free(file, project))
}

fn choose(among: Range<u32>, is_free: impl Fn(u32) -> io::Result<bool>) -> io::Result<u32> {
    for _ in 0..TRIES {
        let project = rand::random_range(among.clone());
        if is_free(project)? {
            return Ok(project);
        }
    }
    Err(io::Error::other("no project is free"))
}

/// The projects of the file system of all volumes.
#[derive(Debug)]
pub(crate) struct Projects {
    /// Whether one is free where the volumes are, by the kernel; `None` where there are none.
    is_free: Option<fn(&Path, u32) -> io::Result<bool>>,
}

impl Projects {
    /// Looks at the directory of all volumes.
    pub(crate) fn probe(root: &Path) -> Self {
        let is_on = File::open(root).is_ok_and(|root| quota::is_on(root.as_fd()));
        Self { is_free: is_on.then_some(|root, project| quota::is_free(File::open(root)?.as_fd(), project)) }
    }

    /// As on a file system of which nothing is used.
    #[cfg(test)]
    pub(crate) fn unused() -> Self {
        Self { is_free: Some(|_, _| Ok(true)) }
    }

    /// Whether volumes can have a size.
    pub(crate) fn are_there(&self) -> bool {
        self.is_free.is_some()
    }

    /// A number for a volume that may take so many bytes; 0 is no limit, and needs none. The kernel knows none of a volume that was never
    /// mounted, so it is not one of those that are `taken` either.
    pub(crate) fn take(
        &self,
        root: &Path,
        bytes: u64,
        taken: impl Fn(u32) -> bool,
    ) -> io::Result<Option<u32>> {
        let Some(is_free) = self.is_free.filter(|_| bytes > 0) else { return Ok(None) };
        choose(PROJECTS, |project| Ok(!taken(project) && is_free(root, project)?)).map(Some)
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

/// Ends the limit of a volume that goes.
pub(crate) fn give_back(root: &Path, project: u32) -> io::Result<()> {
    quota::limit(File::open(root)?.as_fd(), project, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_use_is_passed_over() {
        for free in 10..20 {
            assert_eq!(choose(10..20, |project| Ok(project == free)).unwrap(), free);
        }
        assert!(choose(10..20, |_| Ok(false)).is_err(), "it ends where there is none");
        let failed = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(choose(10..20, |_| Err(failed())).unwrap_err().kind(), failed().kind());
    }

    #[test]
    fn numbers_are_for_sizes_and_in_the_upper_half() {
        let take = |bytes, taken: fn(u32) -> bool| Projects::unused().take(Path::new("/"), bytes, taken);
        assert_eq!(take(0, |_| false).unwrap(), None);
        for _ in 0..100 {
            assert!(PROJECTS.contains(&take(1, |_| false).unwrap().unwrap()));
        }
        assert!(take(1, |project| project % 2 == 0).unwrap().unwrap() % 2 == 1);
    }

    #[test]
    fn where_there_are_no_projects_a_size_is_refused() {
        let projects = Projects::probe(Path::new("/proc"));
        assert!(!projects.are_there());
        assert_eq!(projects.take(Path::new("/proc"), 1, |_| false).unwrap(), None);
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
        let told = Projects::unused().hold(&volume).unwrap_err().to_string();
        assert!(
            told.starts_with("error while mounting volume '/proc': failed to set projid for /proc: "),
            "{told}"
        );
        assert!(Projects::unused().hold(&Volume { project: None, ..volume }).is_ok());
    }
}
