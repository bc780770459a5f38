//! What a run needs of its mounts before it starts, and gives back when it has ended.

use std::fs;
use std::path::Path;

use tracing::warn;

use super::Mounting;
use crate::containers::Ground;
use crate::containers::record::Definition;
use crate::error::{ApiError, ErrorKind, chain};
use crate::volumes;

impl Ground {
    /// Mounts the devices of a container's volumes, and makes the sources of its binds that may be missing. Blocks.
    ///
    /// What was done is undone by [`withdraw`](Self::withdraw), also after an error.
    pub(crate) fn supply(&self, definition: &Definition) -> Result<(), ApiError> {
        for mounting in &definition.mounts {
            match mounting.point.kind.as_str() {
                "volume" => self.supply_volume(definition, mounting)?,
                "bind" => supply_bind(mounting)?,
                _ => {}
            }
        }
        self.tell_of_mounts(definition);
        Ok(())
    }

    /// Tells that a container's volumes are mounted.
    pub(crate) fn tell_of_mounts(&self, definition: &Definition) {
        for mounting in definition.mounts.iter().filter(|mounting| mounting.volume().is_some()) {
            let point = &mounting.point;
            let told = [
                ("container", definition.id.clone()),
                ("destination", point.destination.clone()),
                ("read/write", point.rw.to_string()),
                ("propagation", point.propagation.clone()),
            ];
            volumes::tell(&self.events, "mount", &point.name, &told);
        }
    }

    /// Tells that they are not any more.
    pub(crate) fn tell_of_unmounts(&self, definition: &Definition) {
        for name in definition.mounts.iter().filter_map(Mounting::volume) {
            volumes::tell(&self.events, "unmount", name, &[("container", definition.id.clone())]);
        }
    }

    /// Those of its volumes whose files are not the containers' alone.
    pub(crate) fn foreign_volumes(&self, definition: &Definition) -> Vec<String> {
        let names = definition.mounts.iter().filter_map(Mounting::volume);
        let is_foreign = |name: &&str| self.volumes.get(name).is_ok_and(|volume| !volume.is_containers_own());
        names.filter(is_foreign).map(str::to_owned).collect()
    }

    fn supply_volume(&self, definition: &Definition, mounting: &Mounting) -> Result<(), ApiError> {
        let path =
            self.volumes.mount(&mounting.point.name, &definition.id).map_err(|e| volumes::error(&e))?;
        if mounting.subpath.is_empty() {
            return Ok(());
        }
        let inside = path.join(&mounting.subpath);
        match fs::metadata(&inside) {
            Ok(_) => Ok(()),
            Err(error) => Err(ApiError::new(
                ErrorKind::NotFound,
                format!("cannot access path {}: {error}", inside.display()),
            )),
        }
    }

    /// Ends what [`supply`](Self::supply) began. Blocks.
    pub(crate) fn withdraw(&self, definition: &Definition) {
        for mounting in &definition.mounts {
            let Some(name) = mounting.volume() else { continue };
            if let Err(error) = self.volumes.unmount(name, &definition.id) {
                warn!(volume = name, error = %chain(&error), "could not unmount a volume");
            }
        }
        self.tell_of_unmounts(definition);
    }
}

fn supply_bind(mounting: &Mounting) -> Result<(), ApiError> {
    let point = &mounting.point;
    let source = Path::new(&point.source);
    if mounting.make_source && !source.exists() {
        fs::create_dir_all(source).map_err(|e| {
            ApiError::internal(format!("error while creating mount source path '{}': {e}", point.source))
        })?;
    }
    match point.propagation.as_str() {
        "shared" | "rshared" => check_peers(source, false),
        "slave" | "rslave" => check_peers(source, true),
        _ => Ok(()),
    }
}

/// A mount can be shared with the container, or follow, only if it is shared on this system.
fn check_peers(source: &Path, or_slave: bool) -> Result<(), ApiError> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| ApiError::from_chain("could not read the table of mounts", &e))?;
    let real = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let Some((place, peers)) = mount_of(&table, &real) else { return Ok(()) };
    let has = |prefix: &str| peers.split(' ').any(|field| field.starts_with(prefix));
    if has("shared:") || or_slave && has("master:") {
        return Ok(());
    }
    let wanted = if or_slave { "a shared or slave mount" } else { "a shared mount" };
    Err(ApiError::internal(format!("path {} is mounted on {place} but it is not {wanted}", source.display())))
}

/// The mount that a path is on: its place, and the fields about its peers (`proc_pid_mountinfo(5)`).
fn mount_of<'t>(table: &'t str, path: &Path) -> Option<(&'t str, &'t str)> {
    let mounts = table.lines().filter_map(|line| {
        let (fields, _) = line.split_once(" - ")?;
        let mut fields = fields.splitn(7, ' ');
        let place = fields.nth(4)?;
        Some((place, fields.nth(1).unwrap_or_default()))
    });
    // Of two at one place the later one covers the other.
    mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_nearest_mount() {
        let table = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n\
                     2 1 8:2 / /mnt rw,relatime - ext4 /dev/b rw\n\
                     3 1 8:2 / /mnt/x rw,relatime master:4 propagate_from:2 - ext4 /dev/b rw\n";
        let found = |path: &str| mount_of(table, Path::new(path)).unwrap();
        assert_eq!(found("/etc"), ("/", "shared:1"));
        assert_eq!(found("/mnt/y"), ("/mnt", ""));
        assert_eq!(found("/mnt/x/y"), ("/mnt/x", "master:4 propagate_from:2"));
        assert_eq!(found("/mntx"), ("/", "shared:1"));
    }
}
