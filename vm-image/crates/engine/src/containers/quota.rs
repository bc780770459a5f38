//! `--storage-opt size=`: how much a container's own layer may take of the disk, by project quotas of its file system.
//!
//! A container with a size is a project of its own: its layer and overlayfs' work directory beside it, so that files may move from the one
//! to the other. The number is kept by the directories themselves, and only the work directory is believed: a container's root can give all
//! of the layer any number. So it is the kernel that says which numbers are in use, see [`free_project`]; those from [`FIRST_PROJECT`] on are
//! the volumes'. The limit goes before the files do: whoever is cut short there leaves both, or files by which their number is in use.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use caisson_sys::quota;
use caisson_volumes::{FIRST_PROJECT, free_project};

use super::record::Directory;
use crate::error::ApiError;
use crate::sizes;

/// The numbers that containers may have; 0 is none.
const PROJECTS: Range<u32> = 1..FIRST_PROJECT;

/// The projects of a file system; `None` where it has none to give.
#[derive(Debug)]
pub(crate) struct Quota {
    /// Held from the choice of a number until it is in use.
    choosing: Option<Mutex<()>>,
}

impl Quota {
    /// Looks at the directory of all containers.
    pub(crate) fn probe(containers: &Path) -> Self {
        let on = File::open(containers).is_ok_and(|directory| quota::is_on(directory.as_fd()));
        Self { choosing: on.then(Mutex::default) }
    }

    /// What a new container asks for, in bytes; 0 for no limit.
    ///
    /// # Errors
    /// dockerd's.
    pub(crate) fn parse(&self, options: Option<&BTreeMap<String, String>>) -> Result<u64, ApiError> {
        let options = options.into_iter().flatten();
        if self.choosing.is_none() && options.clone().any(|(name, _)| name.eq_ignore_ascii_case("size")) {
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
        let Some(choosing) = self.choosing.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        let (upper, work) = (File::open(directory.upper())?, File::open(directory.work())?);
        let project = {
            let _one_at_a_time = choosing.lock().unwrap_or_else(PoisonError::into_inner);
            let project = free_project(work.as_fd(), PROJECTS)?;
            quota::join(work.as_fd(), project)?;
            project
        };
        quota::limit(upper.as_fd(), project, bytes)?;
        quota::join(upper.as_fd(), project)
    }
}

/// Ends what a container was held to. To be done before its files are removed, and not while it may run.
pub(crate) fn release(directory: &Directory) -> io::Result<()> {
    // Who has no such directory, or no projects where it is, is held to nothing.
    let Ok(work) = File::open(directory.work()) else { return Ok(()) };
    let (Ok(own), Ok(around)) =
        (quota::project(work.as_fd()), File::open(directory.path()).and_then(|d| quota::project(d.as_fd())))
    else {
        return Ok(());
    };
    // All containers may be in somebody else's project, which is that one's to limit.
    if own == around || !PROJECTS.contains(&own) {
        return Ok(());
    }
    quota::limit(work.as_fd(), own, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused_in_dockerd_s_words() {
        let parse = |quota: &Quota, name: &str, value: &str| {
            quota.parse(Some(&[(name.to_owned(), value.to_owned())].into())).map_err(|error| error.message)
        };
        let (has, has_not) = (Quota { choosing: Some(Mutex::default()) }, Quota { choosing: None });
        assert_eq!(parse(&has, "size", "10m"), Ok(10 << 20));
        assert_eq!(parse(&has, "SIZE", "1g"), Ok(1 << 30));
        assert_eq!(parse(&has, "size", "ten"), Err("invalid size: 'ten'".into()));
        assert_eq!(parse(&has, "inodes", "1"), Err("unknown option inodes".into()));
        assert_eq!(parse(&has_not, "inodes", "1"), Err("unknown option inodes".into()));
        assert!(parse(&has_not, "size", "1g").unwrap_err().starts_with("--storage-opt is supported only"));
        assert_eq!(has_not.parse(None), Ok(0));
    }
}
