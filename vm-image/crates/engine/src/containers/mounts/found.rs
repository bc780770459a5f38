//! The volumes of a container that runs and whose record cannot be read: those that its first process has mounted.
//!
//! Both tables of mounts are the kernel's (`proc_pid_mountinfo(5)`). A volume is known by its device and its place on that, of which the
//! engine's own table tells: a volume's device has been mounted there, too, before the container was started.

use std::fs;
use std::path::{Path, PathBuf};

use caisson_shim::proto::State;
use tracing::warn;

use crate::containers::Ground;
use crate::containers::shim::Word;
use crate::error::chain;

impl Ground {
    /// Holds the volumes of a container of which there is only its shim's word, until the next engine looks for it. All volumes, if its mounts
    /// are not to be known: who prunes them is refused too much then, and loses nothing. Blocks.
    pub(crate) fn hold_found_volumes(&self, id: &str, word: &Word) {
        let tables = match word {
            Word::Gone | Word::Stands(State::Created | State::Exited(_)) => return,
            Word::None => None,
            Word::Stands(State::Running { pid, .. }) => tables(*pid),
        };
        if tables.is_none() {
            warn!(id, "all volumes are held for a container of which nothing is known but that it runs");
        }
        for volume in self.volumes.list() {
            if tables.as_ref().is_some_and(|(here, there)| !is_mounted(&volume.path, here, there)) {
                continue;
            }
            match self.volumes.hold(&volume.name, id) {
                Ok(_) => self.volumes.found_mounted(&volume.name, id),
                Err(error) => warn!(id, error = %chain(&error), "a container's volume is not there"),
            }
        }
    }
}

/// What is mounted here, and what there is for a process.
fn tables(pid: u32) -> Option<(String, String)> {
    let read = |process: &str| {
        let table = fs::read_to_string(format!("/proc/{process}/mountinfo"));
        table.inspect_err(|error| warn!(process, %error, "could not read a table of mounts")).ok()
    };
    Some((read("thread-self")?, read(&pid.to_string())?))
}

/// Whether a directory of here, or something in it, is mounted there.
fn is_mounted(directory: &Path, here: &str, there: &str) -> bool {
    let Some((device, place)) = place_of(directory, here) else { return false };
    mounts(there).any(|mount| mount.device == device && Path::new(mount.root).starts_with(&place))
}

/// The device that a directory is on, and where on it.
fn place_of<'t>(directory: &Path, table: &'t str) -> Option<(&'t str, PathBuf)> {
    let directory = escaped(directory);
    let above = mounts(table).filter(|mount| directory.starts_with(mount.point));
    // Of two at one point the later one covers the other.
    let mount = above.max_by_key(|mount| mount.point.len())?;
    Some((mount.device, Path::new(mount.root).join(directory.strip_prefix(mount.point).ok()?)))
}

/// As paths are in a table.
fn escaped(path: &Path) -> PathBuf {
    let escapes = [('\\', "\\134"), (' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")];
    let path = path.to_string_lossy().into_owned();
    escapes.into_iter().fold(path, |path, (letter, told)| path.replace(letter, told)).into()
}

struct Mount<'t> {
    device: &'t str,
    /// What of the device is mounted.
    root: &'t str,
    point: &'t str,
}

fn mounts(table: &str) -> impl Iterator<Item = Mount<'_>> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some(Mount { device: fields.next()?, root: fields.next()?, point: fields.next()? })
    })
}

#[cfg(test)]
mod tests {
    use caisson_volumes::NewVolume;

    use super::super::super::testing::Home;
    use super::*;

    const HERE: &str = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                        2 1 8:2 /root /data\\040root rw - ext4 /dev/b rw\n\
                        3 2 0:9 / /data\\040root/device rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_volume_is_known_wherever_it_is_mounted() {
        let is_there = |name: &str, mounted: &str| {
            let there =
                format!("7 6 0:8 / / rw - overlay overlay rw\n8 7 {mounted} /x rw - ext4 /dev/b rw\n");
            is_mounted(&Path::new("/data root").join(name), HERE, &there)
        };
        assert!(is_there("a", "8:2 /root/a"));
        assert!(is_there("a", "8:2 /root/a/part"));
        assert!(is_there("device", "0:9 /"));
        for other in ["8:2 /root/ab", "8:2 /a", "8:1 /root/a", "8:2 /root", "0:9 /"] {
            assert!(!is_there("a", other), "{other}");
        }
    }

    #[tokio::test]
    async fn of_whom_nothing_is_known_keeps_all() {
        let home = Home::new().await;
        let ground = &home.containers.ground;
        for name in ["one", "other"] {
            ground.volumes.create(NewVolume { name: name.into(), ..NewVolume::default() }, None).unwrap();
        }
        ground.hold_found_volumes("ended", &Word::Gone);
        ground.hold_found_volumes("late", &Word::None);
        assert!(ground.volumes.list().iter().all(|volume| ground.volumes.holders(&volume.name) == ["late"]));
    }
}
