//! The container's user as numbers, for `docker cp -a`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use caisson_runtime::view;
use rustix::fs::OFlags;

use super::path;
use crate::error::ApiError;

/// The numbers of `user[:group]`, looked up in the container's own lists; of no user, `None`.
pub(super) fn owner(root: &OwnedFd, user: &str) -> Result<Option<(u32, u32)>, ApiError> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    let read = |file: &str| {
        list(root, file).map_err(|e| ApiError::from_chain("could not read the container's users", &e))
    };
    let (mut uid, mut gid) = (0, 0);
    if !name.is_empty() {
        let users = read("/etc/passwd")?;
        let number = name.parse::<u32>().ok();
        let entry = users.iter().find(|entry| match number {
            Some(number) => field(entry, 2) == Some(number),
            None => entry.first().is_some_and(|first| first == name),
        });
        (uid, gid) = match (entry, number) {
            (Some(entry), _) => (field(entry, 2).unwrap_or(0), field(entry, 3).unwrap_or(0)),
            (None, Some(number)) => (number, 0),
            (None, None) => {
                return Err(ApiError::invalid(format!(
                    "failed to look up user {name:?} in container: no matching entries in passwd file"
                )));
            }
        };
    }
    if !group.is_empty() {
        gid = match group.parse() {
            Ok(number) => number,
            Err(_) => {
                let groups = read("/etc/group")?;
                let entry = groups.iter().find(|entry| entry.first().is_some_and(|first| first == group));
                entry.and_then(|entry| field(entry, 2)).ok_or_else(|| {
                    ApiError::invalid(format!(
                        "failed to look up group {group:?} in container: no matching entries in group file"
                    ))
                })?
            }
        };
    }
    Ok(Some((uid, gid)))
}

fn field(entry: &[String], index: usize) -> Option<u32> {
    entry.get(index)?.parse().ok()
}

fn list(root: &OwnedFd, file: &str) -> io::Result<Vec<Vec<String>>> {
    let held = match path::open(root, file, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let text = view::read(held.as_fd())?;
    Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode};

    use super::*;

    #[test]
    fn users_and_groups_are_the_container_s() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/passwd"), "root:x:0:0::/:\nweb:x:5:6::/:\n").unwrap();
        std::fs::write(directory.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let root = rustix::fs::openat(CWD, directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .unwrap();
        for (user, numbers) in [
            ("", None),
            ("web", Some((5, 6))),
            ("5", Some((5, 6))),
            ("77", Some((77, 0))),
            ("web:staff", Some((5, 50))),
            (":9", Some((0, 9))),
        ] {
            assert_eq!(owner(&root, user).unwrap(), numbers, "{user:?}");
        }
        assert!(owner(&root, "nobody").is_err() && owner(&root, "web:nobody").is_err());
    }

    /// A socket cannot be opened, so that whoever tries is seen.
    #[test]
    fn a_list_that_is_no_file_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let root = rustix::fs::openat(CWD, directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        let _keep = std::os::unix::net::UnixListener::bind(directory.path().join("etc/passwd")).unwrap();
        assert_eq!(owner(&root, "77").unwrap(), Some((77, 0)));
    }
}
