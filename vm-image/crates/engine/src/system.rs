//! What this system is: for `/version`, `/info`, and for what the engine must know of the kernel.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Facts that do not change while the engine runs.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) machine: String,
    pub(crate) operating_system: String,
    pub(crate) os_version: String,
    pub(crate) memory: u64,
    pub(crate) cpus: usize,
    /// Controllers of the unified hierarchy; empty on a kernel that has none to give.
    pub(crate) controllers: Vec<String>,
}

impl Host {
    pub(crate) fn probe() -> Self {
        let uname = rustix::system::uname();
        let release = OsRelease::read();
        let sysinfo = rustix::system::sysinfo();
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            operating_system: release.pretty_name,
            os_version: release.version_id,
            memory: sysinfo.totalram as u64 * u64::from(sysinfo.mem_unit),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            controllers: controllers.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Go's name of the architecture.
    pub(crate) fn go_arch() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// The host's name, as it is now.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

struct OsRelease {
    pretty_name: String,
    version_id: String,
}

impl OsRelease {
    fn read() -> Self {
        let text =
            ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| std::fs::read_to_string(p).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|v| v.trim().trim_matches(['"', '\'']).to_owned())
        };
        Self {
            pretty_name: value("PRETTY_NAME").unwrap_or_else(|| "Linux".into()),
            version_id: value("VERSION_ID").unwrap_or_default(),
        }
    }
}

/// The file system that a directory is on, by dockerd's name of it (moby's `graphdriver.FsNames`).
pub(crate) fn file_system(directory: &Path) -> io::Result<&'static str> {
    // As wide as the kernel's numbers, which are of 32 bits.
    Ok(file_system_name(rustix::fs::statfs(directory)?.f_type as u32))
}

/// Of its number, see statfs(2).
fn file_system_name(magic: u32) -> &'static str {
    match magic {
        0x9123_683e => "btrfs",
        0x0000_f15f => "ecryptfs",
        0x0000_ef53 => "extfs",
        0xf2f5_2010 => "f2fs",
        0x6573_5546 => "fuse",
        0x3153_464a => "jfs",
        0x0000_6969 => "nfs",
        0x794c_7630 => "overlayfs",
        0x8584_58f6 => "ramfs",
        0x5265_4973 => "reiserfs",
        0x0102_1994 => "tmpfs",
        0x5846_5342 => "xfs",
        0x2fc1_2fc1 => "zfs",
        _ => "<unknown>",
    }
}

/// The engine's lasting id: a random UUID in a file of the data root.
pub(crate) fn engine_id(data_root: &Path) -> io::Result<String> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let id = uuid(rand::random());
    std::fs::write(&path, &id)?;
    Ok(id)
}

/// The mode of all that is in a base layer: what dockerd gives the empty files that it makes to be mounted over.
const DOCKERD_S_MODE: u32 = 0o755;

/// What the names of all base layers begin with; the first had no more of a name.
const BASE_LAYER: &str = "base-layer";

/// This engine's. Who changes what is in it takes the next number: containers that run have the layer of their engine mounted, and what
/// becomes of an overlay of which a layer changes is undefined (the kernel's `filesystems/overlayfs.rst`).
const BASE_LAYER_VERSION: u32 = 2;

/// Makes the layer that lies between a container's own and its image's, if an engine has not done so already: what must exist to be mounted
/// over, and the file by which programs know that they are in a container. One for all, so that none of it counts as a container's change.
pub(crate) fn make_base_layer(data_root: &Path) -> io::Result<PathBuf> {
    let layer = data_root.join(format!("{BASE_LAYER}-{BASE_LAYER_VERSION}"));
    if layer.try_exists()? {
        return Ok(layer);
    }
    let aside = layer.with_extension("new");
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fill_base_layer(&aside)?,
    }
    std::fs::rename(&aside, &layer)?;
    Ok(layer)
}

/// All of it is on disk then: under its name nobody looks into it again, also after a power cut.
fn fill_base_layer(layer: &Path) -> io::Result<()> {
    // Modes are set, for what is made obeys the umask.
    let settle = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(DOCKERD_S_MODE))?;
        std::fs::File::open(path)?.sync_all()
    };
    let directories = ["", "dev", "dev/pts", "dev/shm", "proc", "sys", "etc"].map(|name| layer.join(name));
    for directory in &directories {
        std::fs::create_dir(directory)?;
    }
    for file in [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        let file = layer.join(file);
        std::fs::File::create_new(&file)?;
        settle(&file)?;
    }
    // Older programs look there for what is mounted.
    std::os::unix::fs::symlink("/proc/mounts", layer.join("etc/mtab"))?;
    directories.iter().try_for_each(|directory| settle(directory))
}

/// Removes the base layers of other engines. To be called while no container runs: those that were started by another engine have its layer
/// mounted, and at their next start they get this one's.
pub(crate) fn remove_old_base_layers(layer: &Path) -> io::Result<()> {
    let Some(data_root) = layer.parent() else { return Ok(()) };
    for entry in std::fs::read_dir(data_root)? {
        let entry = entry?;
        let is_base_layer = entry.file_name().as_encoded_bytes().starts_with(BASE_LAYER.as_bytes());
        if is_base_layer && entry.path() != layer {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A version 4 UUID of these random bits (RFC 9562).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_keeps_its_id() {
        let root = tempfile::tempdir().unwrap();
        let id = engine_id(root.path()).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(engine_id(root.path()).unwrap(), id);
    }

    #[test]
    fn uuids_say_their_version_and_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_mounted_over_is_as_dockerd_makes_it() {
        let root = tempfile::tempdir().unwrap();
        let layer = make_base_layer(root.path()).unwrap();
        for name in ["", "dev/shm", "etc", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            let found = layer.join(name).metadata().unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o755, "{name}");
            assert!(found.is_dir() || found.len() == 0, "{name}");
        }
        assert_eq!(layer.join("etc/mtab").read_link().unwrap(), Path::new("/proc/mounts"));
    }

    #[test]
    fn a_layer_that_may_be_mounted_does_not_change() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join(BASE_LAYER);
        // The first engines' layer, and one that was not finished.
        for directory in [&old, &root.path().join("base-layer-2.new")] {
            std::fs::create_dir_all(directory.join("etc")).unwrap();
        }
        let layer = make_base_layer(root.path()).unwrap();
        assert!(old.join("etc").read_dir().unwrap().next().is_none());
        std::fs::remove_file(layer.join("etc/mtab")).unwrap();
        assert_eq!(make_base_layer(root.path()).unwrap(), layer);
        assert!(layer.join("etc/mtab").symlink_metadata().is_err());
        remove_old_base_layers(&layer).unwrap();
        let left: Vec<_> = root.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [layer]);
    }

    #[test]
    fn file_systems_have_dockerd_s_names() {
        let names = [0xef53, 0x5846_5342, 0x9123_683e, 1].map(file_system_name);
        assert_eq!(names, ["extfs", "xfs", "btrfs", "<unknown>"]);
        assert_eq!(file_system(Path::new("/dev/shm")).unwrap(), "tmpfs");
        assert!(file_system(Path::new("/none-such")).is_err());
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        let release = OsRelease::parse("NAME=x\nPRETTY_NAME=\"Caisson 1\"\nVERSION_ID=12\n");
        assert_eq!((release.pretty_name.as_str(), release.version_id.as_str()), ("Caisson 1", "12"));
        assert_eq!(OsRelease::parse("").pretty_name, "Linux");
    }
}
