//! `--userns-remap`: who the users of containers are on this system, by the ranges of ids that it grants to one of its users
//! (`subuid(5)`, `subgid(5)`).
//!
//! What is asked for, and what is said of it, are dockerd's. `default` takes the ranges of `dockremap`, and where nobody has granted that
//! name any yet it grants it the next free ones, as dockerd does by `usermod`; there need be no such user.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use caisson_images::files::{IdRange, Ids};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use tracing::{info, warn};

/// What stands for the user whom dockerd makes for this.
const DEFAULT: &str = "default";
/// Who that is.
const DEFAULT_USER: &str = "dockremap";
/// The first id that is granted to anybody, and how many: `useradd`'s (`SUB_UID_MIN`, `SUB_UID_COUNT`).
const FIRST_GRANTED: u32 = 100_000;
const GRANTED: u32 = 65_536;

/// The containers' users on this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remap {
    ids: Ids,
}

impl Remap {
    /// Reads what was asked for; `None` for root, who is root in containers without this.
    pub(crate) fn parse(asked: &str) -> anyhow::Result<Option<Self>> {
        Files::default().remap(asked)
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The containers' root on this system, user and group.
    pub(crate) fn root(&self) -> (u32, u32) {
        self.ids.outside(0, 0).expect("the first range begins with root")
    }

    /// The directory in the data root of all that belongs to containers with these users: dockerd's name for it.
    pub(crate) fn data_directory(&self) -> String {
        let (uid, gid) = self.root();
        format!("{uid}.{gid}")
    }

    /// What the kernel is told, as `uid_map` and `gid_map` have it.
    pub(crate) fn maps(&self) -> (String, String) {
        let write = |ranges: &[IdRange]| {
            let mut text = String::new();
            for range in ranges {
                let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
            }
            text
        };
        (write(&self.ids.users), write(&self.ids.groups))
    }

    /// The same, as a container's spec has it.
    pub(crate) fn mappings(&self) -> (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>) {
        let mapping = |range: &IdRange| {
            let mapping = LinuxIdMappingBuilder::default().container_id(range.inside).host_id(range.outside);
            mapping.size(range.count).build().expect("all fields are set")
        };
        let list = |ranges: &[IdRange]| ranges.iter().map(mapping).collect();
        (list(&self.ids.users), list(&self.ids.groups))
    }
}

/// Where the system keeps its users and what they are granted.
struct Files {
    passwd: PathBuf,
    group: PathBuf,
    subuid: PathBuf,
    subgid: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        let [passwd, group, subuid, subgid] =
            ["passwd", "group", "subuid", "subgid"].map(|name| Path::new("/etc").join(name));
        Self { passwd, group, subuid, subgid }
    }
}

/// Somebody of whom a list says something: a name and an id.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    id: u32,
}

impl Files {
    fn remap(&self, asked: &str) -> anyhow::Result<Option<Remap>> {
        let parts: Vec<&str> = asked.split(':').collect();
        ensure!(
            parts.len() <= 2 && !parts[0].is_empty(),
            "invalid user/group specification in --userns-remap: {asked:?}"
        );
        let user = self.user(parts[0])?;
        match parts.get(1) {
            Some(group) => {
                drop(find(&self.group, group)?.with_context(|| format!("there is no group {group:?}"))?)
            }
            None if parts[0] == DEFAULT => {}
            None => self.group_of(&user, parts[0])?,
        }
        if user.name == "root" {
            warn!("root cannot be remapped to itself: containers' users are this system's");
            return Ok(None);
        }
        if parts[0] == DEFAULT {
            self.grant(&self.subuid)?;
            self.grant(&self.subgid)?;
        }
        let ids = Ids { users: granted(&self.subuid, &user)?, groups: granted(&self.subgid, &user)? };
        info!(user = user.name, "containers have users of their own");
        Ok(Some(Remap { ids }))
    }

    fn user(&self, asked: &str) -> anyhow::Result<Entry> {
        if asked == DEFAULT {
            // Who is not there is known by his name alone: no id of a list is that of nobody.
            let nobody = Entry { name: DEFAULT_USER.into(), id: u32::MAX };
            return Ok(find(&self.passwd, DEFAULT_USER)?.unwrap_or(nobody));
        }
        find(&self.passwd, asked)?
            .with_context(|| format!("there is no user {asked:?} in {}", self.passwd.display()))
    }

    /// Who is named without a group must have one of his name, or his number.
    fn group_of(&self, user: &Entry, asked: &str) -> anyhow::Result<()> {
        let wanted = if asked.parse::<u32>().is_ok() { user.id.to_string() } else { user.name.clone() };
        find(&self.group, &wanted)?
            .with_context(|| format!("there is no group {wanted:?}: name one, {asked}:GROUP"))?;
        Ok(())
    }

    /// Grants the next free ids to whom dockerd would have made, if he has none.
    fn grant(&self, list: &Path) -> anyhow::Result<()> {
        let text = read(list)?;
        if ranges(&text).any(|(owner, ..)| owner == DEFAULT_USER) {
            return Ok(());
        }
        let end = |(_, first, count): (&str, u32, u32)| first.saturating_add(count);
        let first = ranges(&text).map(end).max().unwrap_or(0).max(FIRST_GRANTED);
        ensure!(first.checked_add(GRANTED).is_some(), "{} has no free ids left", list.display());
        let line = format!("{DEFAULT_USER}:{first}:{GRANTED}\n");
        let mut file = fs::File::options().create(true).append(true).open(list);
        let written = file
            .as_mut()
            .map_err(|error| std::io::Error::from(error.kind()))
            .and_then(|file| file.write_all(line.as_bytes()));
        written.with_context(|| format!("could not add {:?} to {}", line.trim_end(), list.display()))
    }
}

/// The ranges that a list grants to somebody, one after the other as a container sees them.
fn granted(list: &Path, user: &Entry) -> anyhow::Result<Vec<IdRange>> {
    let text = read(list)?;
    let number = user.id.to_string();
    let mut inside = 0u32;
    let mut found = Vec::new();
    for (_, outside, count) in ranges(&text).filter(|(owner, ..)| *owner == user.name || *owner == number) {
        found.push(IdRange { inside, outside, count });
        inside = inside.checked_add(count).with_context(|| format!("{} grants too much", list.display()))?;
    }
    if found.is_empty() {
        bail!(
            "{} grants no ids to {}: add a line like {}:{FIRST_GRANTED}:{GRANTED}",
            list.display(),
            user.name,
            user.name
        );
    }
    Ok(found)
}

/// `name:first:count`, a line each.
fn ranges(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let range = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (range.2 > 0).then_some(range)
    })
}

/// Who has this name, or this number, in `passwd(5)` or `group(5)`.
fn find(list: &Path, asked: &str) -> anyhow::Result<Option<Entry>> {
    let number = asked.parse::<u32>().ok();
    let text = read(list)?;
    let mut entries = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some(Entry { name: name.to_owned(), id })
    });
    Ok(entries.find(|entry| number.map_or(entry.name == asked, |number| entry.id == number)))
}

/// The whole of a list; nothing if there is none.
fn read(list: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(list) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("could not read {}", list.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(passwd: &str, group: &str, subuid: &str, subgid: &str) -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = Files {
            passwd: write("passwd", passwd),
            group: write("group", group),
            subuid: write("subuid", subuid),
            subgid: write("subgid", subgid),
        };
        (directory, files)
    }

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn a_user_s_ranges_follow_each_other() {
        let passwd = "root:x:0:0::/:\nann:x:1000:1000::/:\n";
        let subuid = "bob:1:2\nann:100000:10\n1000:500000:20\nbroken\n";
        let (_keep, files) =
            files(passwd, "root:x:0:\nann:x:1000:\nstaff:x:50:\n", subuid, "ann:200000:65536\n");
        for asked in ["ann", "1000", "ann:staff", "ann:50", "1000:ann"] {
            let remap = files.remap(asked).unwrap().unwrap();
            assert_eq!(remap.ids.users, [range(0, 100_000, 10), range(10, 500_000, 20)], "{asked}");
            assert_eq!(
                (remap.root(), remap.data_directory().as_str()),
                ((100_000, 200_000), "100000.200000")
            );
            assert_eq!(remap.maps(), ("0 100000 10\n10 500000 20\n".into(), "0 200000 65536\n".into()));
        }
        assert_eq!(files.remap("root").unwrap(), None);
        for asked in ["", "nobody", "1001", "ann:none", "a:b:c", "ann:51"] {
            assert!(files.remap(asked).is_err(), "{asked:?}");
        }
    }

    #[test]
    fn who_is_granted_nothing_is_told_what_to_write() {
        let (_keep, files) = files("ann:x:1000:1000::/:\n", "ann:x:1000:\n", "", "");
        let why = files.remap("ann").unwrap_err().to_string();
        assert!(why.ends_with("grants no ids to ann: add a line like ann:100000:65536"), "{why}");
    }

    #[test]
    fn the_default_is_granted_the_next_free_ids_once() {
        let (_keep, files) = files("", "", "ann:100000:65536\n", "");
        for _ in 0..2 {
            let remap = files.remap("default").unwrap().unwrap();
            assert_eq!(remap.data_directory(), "165536.100000");
        }
        assert_eq!(fs::read_to_string(&files.subgid).unwrap(), "dockremap:100000:65536\n");
    }
}
