//! Who the container's process is: users and groups by the container's own files.
//!
//! The rules are those of `moby/sys/user` (`GetExecUser`), in its words: a number is always an id, never a name; a user who is named gets the
//! groups that list him; one who is given as a number gets them too if he has a name.

use std::path::Path;

use crate::failure::Failure;
use crate::rootfs::{Descriptors, Root};

/// Ids as Docker bounds them.
const MAX_ID: u64 = (1 << 31) - 1;

/// A process' ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All of them, the first group too (CVE-2023-25173).
    pub(crate) groups: Vec<u32>,
}

/// The container's `/etc/passwd` and `/etc/group`.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Accounts {
    pub(crate) fn read(root: &Root, own: &Descriptors) -> Result<Self, Failure> {
        let text = |path| root.read(Path::new(path), own);
        Ok(Self { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (name, _password) = (fields.next()?, fields.next());
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (name, _password) = (fields.next()?, fields.next());
            Some(Group {
                name,
                gid: fields.next()?.parse().ok()?,
                members: fields.next().unwrap_or_default(),
            })
        })
    }

    /// Who `user` (`name|uid[:group|gid]`, or nothing for root) is.
    pub(crate) fn identify(&self, user: &str) -> Result<Identity, Failure> {
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        let number = user.parse::<u64>().ok();
        let found = self.users().find(|candidate| match (user, number) {
            ("", _) => candidate.uid == 0,
            (_, Some(number)) => u64::from(candidate.uid) == number,
            (name, None) => candidate.name == name,
        });
        let (uid, gid) = match (&found, number) {
            (Some(found), _) => (found.uid, found.gid),
            (None, Some(number)) => (id(number)?, 0),
            (None, None) if user.is_empty() => (0, 0),
            (None, None) => {
                return Err(Failure::invalid(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )));
            }
        };
        let (gid, mut others) = match (group, &found) {
            ("", Some(found)) => (gid, self.groups_of(found.name)),
            ("", None) => (gid, Vec::new()),
            (group, _) => (self.group(group)?, Vec::new()),
        };
        others.insert(0, gid);
        Ok(Identity { uid, gid, groups: others })
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let lists = |group: &Group<'_>| group.members.split(',').any(|member| member == user);
        self.groups().filter(lists).map(|group| group.gid).collect()
    }

    /// The id of a group given by name or number.
    pub(crate) fn group(&self, group: &str) -> Result<u32, Failure> {
        let number = group.parse::<u64>().ok();
        let found = self.groups().find(|candidate| match number {
            Some(number) => u64::from(candidate.gid) == number,
            None => candidate.name == group,
        });
        match (found, number) {
            (Some(found), _) => Ok(found.gid),
            (None, Some(number)) => id(number),
            (None, None) => Err(Failure::invalid(format!(
                "unable to find group {group}: no matching entries in group file"
            ))),
        }
    }

    /// The home directory of a user; `/` if he has none.
    pub(crate) fn home(&self, uid: u32) -> &str {
        let found = self.users().find(|user| user.uid == uid);
        found.map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or("/")
    }
}

fn id(number: u64) -> Result<u32, Failure> {
    if number > MAX_ID {
        return Err(Failure::invalid(format!("uids and gids must be in range 0-{MAX_ID}")));
    }
    Ok(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv/web:/bin/false\n123:x:7:7::/:\n"
                    .into(),
            group: "root:x:0:\nwww:x:34:\ndisk:x:6:root,web\naudio:x:29:web\n".into(),
        }
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let found = accounts().identify(user).unwrap();
        (found.uid, found.gid, found.groups)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(ids(""), (0, 0, vec![0, 6]));
        assert_eq!(ids("web"), (33, 34, vec![34, 6, 29]));
        assert_eq!(ids("33"), (33, 34, vec![34, 6, 29]));
        assert_eq!(ids("web:audio"), (33, 29, vec![29]));
        assert_eq!(ids("1000"), (1000, 0, vec![0]));
        assert_eq!(ids("1000:1001"), (1000, 1001, vec![1001]));
        assert_eq!(ids(":disk"), (0, 6, vec![6]));
        assert_eq!(ids("123"), (123, 0, vec![0]), "a number is never a name");
    }

    #[test]
    fn a_container_without_files_has_a_root() {
        let found = Accounts::default().identify("").unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (0, 0, vec![0]));
        assert_eq!(Accounts::default().home(0), "/");
    }

    #[test]
    fn who_is_unknown_is_named() {
        let message = |user: &str| accounts().identify(user).unwrap_err().message;
        assert_eq!(message("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(message("web:none"), "unable to find group none: no matching entries in group file");
        assert_eq!(message("4294967296"), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn homes_are_by_number() {
        assert_eq!((accounts().home(33), accounts().home(1000)), ("/srv/web", "/"));
    }
}
