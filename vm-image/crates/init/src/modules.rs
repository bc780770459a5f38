//! Kernel modules: which ones something needs, in which order they are loaded, and loading them.
//!
//! The image's build writes `/lib/modules/index` (vm-image/kernel/extract.sh): a line `module NAME DEPENDENCY,...` for
//! each module beside it, and a line `alias PATTERN NAME` for each name by which a device or the kernel may ask for
//! one. No `modules.dep`, no version directories: the image holds one kernel.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Where the modules and their index are, in the initrd as in the root.
pub(crate) const DIR: &str = "/lib/modules";
/// Where the kernel tells of those that are loaded.
const LOADED: &str = "/sys/module";

/// Why modules could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("could not read the index of modules at {0}")]
    Index(PathBuf, #[source] io::Error),
    #[error("could not load the module {0}")]
    Load(String, #[source] io::Error),
}

/// What the image's modules need and what they are asked for by.
#[derive(Debug, Default)]
pub(crate) struct Index {
    dependencies: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
}

impl Index {
    /// Reads the index of the modules in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, ModuleError> {
        let path = dir.join("index");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) => Err(ModuleError::Index(path, error)),
        }
    }

    fn parse(text: &str) -> Self {
        let mut index = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("module"), Some(name), dependencies) => {
                    let dependencies =
                        dependencies.unwrap_or_default().split(',').filter(|name| !name.is_empty());
                    index.dependencies.insert(name.into(), dependencies.map(canonical).collect());
                }
                (Some("alias"), Some(pattern), Some(name)) => {
                    index.aliases.push((canonical(pattern), name.into()));
                }
                _ => {}
            }
        }
        index
    }

    /// The modules that are wanted by this name: the one of that name, or those with a matching alias.
    pub(crate) fn wanted(&self, name: &str) -> Vec<&str> {
        let name = canonical(name);
        if let Some((module, _)) = self.dependencies.get_key_value(&name) {
            return vec![module];
        }
        let matching =
            self.aliases.iter().filter(|(pattern, _)| matches(pattern.as_bytes(), name.as_bytes()));
        matching.map(|(_, module)| module.as_str()).collect()
    }

    /// The module and all that it needs, each after what it needs itself. What is not in the index is built in.
    fn order<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let mut order = Vec::new();
        self.add_in_order(name, &mut order);
        order
    }

    fn add_in_order<'a>(&'a self, name: &'a str, order: &mut Vec<&'a str>) {
        // Modules cannot depend on each other in circles: the kernel's own build refuses that (depmod).
        let Some((name, dependencies)) = self.dependencies.get_key_value(name) else { return };
        if order.contains(&name.as_str()) {
            return;
        }
        for dependency in dependencies {
            self.add_in_order(dependency, order);
        }
        order.push(name);
    }

    /// Loads a module of `dir` with all that it needs; one that is loaded already is fine.
    pub(crate) fn load(&self, dir: &Path, name: &str) -> Result<(), ModuleError> {
        for module in self.order(name) {
            if is_live(Path::new(LOADED), module) {
                continue;
            }
            match load_file(&dir.join(module).with_extension("ko")) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
                Err(error) => return Err(ModuleError::Load(module.into(), error)),
            }
        }
        Ok(())
    }
}

/// Whether a module is loaded and has started, so that the kernel need not read its file to find that out.
fn is_live(loaded: &Path, module: &str) -> bool {
    fs::read_to_string(loaded.join(module).join("initstate")).is_ok_and(|state| state.trim_end() == "live")
}

fn load_file(path: &Path) -> io::Result<()> {
    Ok(rustix::system::finit_module(File::open(path)?, c"", 0)?)
}

/// `-` and `_` mean the same in a module's name and in what it is asked for by.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Whether a text matches a pattern with `*` and `?`, as in `modules.alias`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        (Some((b'?', pattern)), Some((_, text))) => matches(pattern, text),
        (Some((wanted, pattern)), Some((found, text))) => wanted == found && matches(pattern, text),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Loads the modules of all devices that are there, and of those that appear when these are loaded.
pub(crate) fn load_for_devices(dir: &Path, index: &Index) -> Result<(), ModuleError> {
    let mut loaded = Vec::new();
    loop {
        let wanted = device_aliases(Path::new("/sys/bus"));
        let mut wanted: Vec<&str> = wanted.iter().flat_map(|alias| index.wanted(alias)).collect();
        // hv_sock has no device of its own from which it could be told: its bus is enough.
        if Path::new("/sys/bus/vmbus/devices").exists() {
            wanted.extend(index.wanted("hv_sock"));
        }
        wanted.retain(|module| !loaded.contains(module));
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        for module in wanted {
            index.load(dir, module)?;
            loaded.push(module);
        }
    }
}

/// By what the devices of all buses ask for their modules. A device that vanishes meanwhile asks for nothing.
fn device_aliases(buses: &Path) -> Vec<String> {
    let mut aliases = Vec::new();
    for bus in entries(buses) {
        for device in entries(&bus.join("devices")) {
            if let Ok(alias) = fs::read_to_string(device.join("modalias")) {
                aliases.push(alias.trim_end().to_owned());
            }
        }
    }
    aliases.sort_unstable();
    aliases.dedup();
    aliases
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Loads modules before they are asked for. What fails is tried again by the kernel when it is used, and told to whoever
/// uses it.
pub(crate) fn load_ahead(names: &[&str]) {
    let dir = Path::new(DIR);
    let warn = |error| tracing::warn!("{:#}", anyhow::Error::new(error));
    match Index::read(dir) {
        Ok(index) => {
            let wanted = names.iter().flat_map(|name| index.wanted(name));
            wanted.filter_map(|module| index.load(dir, module).err()).for_each(warn);
        }
        Err(error) => warn(error),
    }
}

/// Loads what a name leads to, which may be nothing: for `modprobe`.
pub(crate) fn load_by_name(dir: &Path, name: &str) -> Result<Found, ModuleError> {
    let index = Index::read(dir)?;
    let wanted = index.wanted(name);
    for module in &wanted {
        index.load(dir, module)?;
    }
    Ok(if wanted.is_empty() { Found::Nothing } else { Found::Loaded })
}

/// Whether a name led to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Loaded,
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "module bridge stp,llc\n\
        module llc \n\
        module stp llc\n\
        module virtio_blk \n\
        module hv_storvsc hv_vmbus,scsi_mod,scsi_common\n\
        module scsi_mod scsi_common\n\
        module scsi_common \n\
        alias rtnl-link-bridge bridge\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias pci:v*d*sv*sd*bc0Csc?i* virtio_blk\n\
        nonsense\n";

    #[test]
    fn a_module_comes_after_all_that_it_needs_and_once() {
        let index = Index::parse(INDEX);
        assert_eq!(index.order("bridge"), ["llc", "stp", "bridge"]);
        assert_eq!(
            index.order("hv_storvsc"),
            ["scsi_common", "scsi_mod", "hv_storvsc"],
            "hv_vmbus is built in"
        );
        assert_eq!(index.order("ext4"), [""; 0], "built in");
    }

    #[test]
    fn only_a_module_that_has_started_counts_as_loaded() {
        let loaded = tempfile::tempdir().unwrap();
        for (module, state) in [("bridge", "live\n"), ("llc", "coming\n")] {
            fs::create_dir(loaded.path().join(module)).unwrap();
            fs::write(loaded.path().join(module).join("initstate"), state).unwrap();
        }
        assert_eq!(
            ["bridge", "llc", "stp"].map(|module| is_live(loaded.path(), module)),
            [true, false, false]
        );
    }

    #[test]
    fn modules_are_found_by_name_and_by_alias_and_dashes_do_not_matter() {
        let index = Index::parse(INDEX);
        for (name, found) in [
            ("bridge", vec!["bridge"]),
            ("rtnl-link-bridge", vec!["bridge"]),
            ("rtnl_link_bridge", vec!["bridge"]),
            ("virtio-blk", vec!["virtio_blk"]),
            ("virtio:d00000002v00001AF4", vec!["virtio_blk"]),
            ("virtio:d00000013v00001AF4", vec![]),
            ("pci:v00001AF4d00001042sv00001AF4sd00001100bc0Csc3i00", vec!["virtio_blk"]),
            ("netdev-eth0", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(index.wanted(name), found, "{name}");
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
            ("*b*", "abc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_devices_that_are_there_ask_for_their_modules() {
        let buses = tempfile::tempdir().unwrap();
        for (device, alias) in [("virtio/devices/virtio0", "virtio:d2v1\n"), ("pci/devices/0000", "pci:v1\n")]
        {
            fs::create_dir_all(buses.path().join(device)).unwrap();
            fs::write(buses.path().join(device).join("modalias"), alias).unwrap();
        }
        fs::create_dir_all(buses.path().join("virtio/devices/virtio1")).unwrap();
        assert_eq!(device_aliases(buses.path()), ["pci:v1", "virtio:d2v1"]);
    }
}
