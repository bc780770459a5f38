//! `--storage-opt size=`: how much a container's own layer may take of the disk, by project quotas of its file system.
//!
//! A container with a size is a project of its own: its layer and overlayfs' work directory beside it, so that files may move from the one
//! to the other. The number is kept by the directories themselves. One that is free is found as dockerd finds it, one above the highest in
//! use, and what a project of that number was allowed before is overwritten. The numbers from [`FIRST_PROJECT`] on are the volumes'.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use caisson_sys::quota;
use caisson_volumes::FIRST_PROJECT;

use super::record::Directory;
use crate::error::ApiError;
use crate::sizes;

/// The projects of a file system; `None` where it has none to give.
#[derive(Debug)]
pub(crate) struct Quota {
    /// The lowest number that was never used.
    next: Option<Mutex<u32>>,
}

impl Quota {
    /// Looks at the directory of all containers, and at each of them.
    pub(crate) fn probe(containers: &Path) -> Self {
        let on = File::open(containers).is_ok_and(|directory| quota::is_on(directory.as_fd()));
        Self { next: on.then(|| Mutex::new(after(highest(containers)))) }
    }

    /// What a new container asks for, in bytes; 0 for no limit.
    ///
    /// # Errors
    /// dockerd's.
    pub(crate) fn parse(&self, options: Option<&BTreeMap<String, String>>) -> Result<u64, ApiError> {
        let options = options.into_iter().flatten();
        if self.next.is_none() && options.clone().any(|(name, _)| name.eq_ignore_ascii_case("size")) {
            return Err(ApiError::internal(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            ));
        }
        let mut size = 0;
        for (name, value) in options {
            match name.to_ascii_lowercase().as_str() {
                "size" => size = sizes::in_binary(value).map_err(ApiError::internal)?,
                other => return Err(ApiError::internal(format!("unknown option {other}"))),
            }
        }
        Ok(size)
    }

    /// Holds a new container to its size, before there is anything in its layer.
    pub(crate) fn hold(&self, directory: &Directory, bytes: u64) -> io::Result<()> {
        let Some(next) = self.next.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        let project = {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let project = *next;
            *next = after(project);
            project
        };
        let upper = File::open(directory.upper())?;
        quota::limit(upper.as_fd(), project, bytes)?;
        quota::join(upper.as_fd(), project)?;
        quota::join(File::open(directory.work())?.as_fd(), project)
    }
}

/// The highest project that a container is.
fn highest(containers: &Path) -> u32 {
    let projects = std::fs::read_dir(containers).into_iter().flatten().flatten().filter_map(|entry| {
        let upper = Directory::new(containers, &entry.file_name().to_string_lossy()).upper();
        quota::project(File::open(upper).ok()?.as_fd()).ok()
    });
    // A container may have given its own layer any number.
    projects.filter(|project| *project < FIRST_PROJECT).max().unwrap_or(0)
}

/// The number to go on with after this one.
fn after(project: u32) -> u32 {
    if project + 1 < FIRST_PROJECT { project + 1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volumes_numbers_are_left_to_them() {
        assert_eq!((after(0), after(1)), (1, 2));
        assert_eq!(after(FIRST_PROJECT - 1), 1);
    }

    #[test]
    fn sizes_are_read_or_refused_in_dockerd_s_words() {
        let parse = |quota: &Quota, name: &str, value: &str| {
            quota.parse(Some(&[(name.to_owned(), value.to_owned())].into())).map_err(|error| error.message)
        };
        let (has, has_not) = (Quota { next: Some(Mutex::new(1)) }, Quota { next: None });
        assert_eq!(parse(&has, "size", "10m"), Ok(10 << 20));
        assert_eq!(parse(&has, "SIZE", "1g"), Ok(1 << 30));
        assert_eq!(parse(&has, "size", "ten"), Err("invalid size: 'ten'".into()));
        assert_eq!(parse(&has, "inodes", "1"), Err("unknown option inodes".into()));
        assert_eq!(parse(&has_not, "inodes", "1"), Err("unknown option inodes".into()));
        assert!(parse(&has_not, "size", "1g").unwrap_err().starts_with("--storage-opt is supported only"));
        assert_eq!(has_not.parse(None), Ok(0));
    }
}
