//! The `options` of a mount in an OCI spec, as `mount(8)` spells them.

use caisson_sys::mount_attr::Propagation;
use rustix::mount::MountAttrFlags as Attr;

use crate::failure::Failure;

/// Bits of one mount to set and to clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

/// What the options of a mount ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// `bind` or `rbind`.
    pub(crate) bind: bool,
    /// `rbind`: with all that is mounted below.
    pub(crate) recursive_bind: bool,
    /// Of this mount.
    pub(crate) own: Attributes,
    /// Of this mount and all below it (`rro` and so on).
    pub(crate) recursive: Attributes,
    /// In order, each for this mount or (`true`) all below it too.
    pub(crate) propagation: Vec<(Propagation, bool)>,
    /// `x-subpath=…`: what of a bind's source is mounted, resolved so that it cannot lead out of it.
    pub(crate) subpath: Option<String>,
    /// `idmap`: its files are shown as those of the container's users, by its user namespace.
    pub(crate) id_mapped: bool,
    /// The file system's own, in order.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl Options {
    pub(crate) fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option.as_ref())?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), Failure> {
        if self.add_bind(option) || self.add_propagation(option) || self.add_attribute(option) {
            return Ok(());
        }
        match option {
            "" | "defaults" | "async" | "nomand" | "loud" | "norelatime" | "nostrictatime" | "noiversion"
            | "nolazytime" => {}
            "idmap" => self.id_mapped = true,
            "remount" | "ridmap" | "tmpcopyup" => {
                return Err(Failure::invalid(format!("mount option {option:?} is not supported")));
            }
            subpath if subpath.starts_with("x-subpath=") => {
                self.subpath = subpath.strip_prefix("x-subpath=").map(str::to_owned);
            }
            own => {
                let (key, value) = match own.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (own, None),
                };
                self.data.push((key.to_owned(), value));
            }
        }
        Ok(())
    }

    fn add_bind(&mut self, option: &str) -> bool {
        self.recursive_bind |= option == "rbind";
        let bind = matches!(option, "bind" | "rbind");
        self.bind |= bind;
        bind
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let (propagation, recursive) = match option {
            "private" => (Propagation::Private, false),
            "rprivate" => (Propagation::Private, true),
            "shared" => (Propagation::Shared, false),
            "rshared" => (Propagation::Shared, true),
            "slave" => (Propagation::Slave, false),
            "rslave" => (Propagation::Slave, true),
            "unbindable" => (Propagation::Unbindable, false),
            "runbindable" => (Propagation::Unbindable, true),
            _ => return false,
        };
        self.propagation.push((propagation, recursive));
        true
    }

    fn add_attribute(&mut self, option: &str) -> bool {
        let (change, attributes) = match (attribute(option), option.strip_prefix('r').and_then(attribute)) {
            // `ro`, `rw` and `relatime` begin with an r of their own.
            (Some(change), _) => (change, &mut self.own),
            (None, Some(change)) => (change, &mut self.recursive),
            (None, None) => return false,
        };
        attributes.set = (attributes.set & !change.clear) | change.set;
        attributes.clear = (attributes.clear & !change.set) | change.clear;
        true
    }
}

fn attribute(option: &str) -> Option<Attributes> {
    let set = |flag: Attr| Attributes { set: flag.bits().into(), clear: 0 };
    let clear = |flag: Attr| Attributes { set: 0, clear: flag.bits().into() };
    // The three kinds of access times are one field: a new value replaces the whole.
    let atime =
        |flag: Attr| Attributes { set: flag.bits().into(), clear: Attr::MOUNT_ATTR__ATIME.bits().into() };
    Some(match option {
        "ro" => set(Attr::MOUNT_ATTR_RDONLY),
        "rw" => clear(Attr::MOUNT_ATTR_RDONLY),
        "nosuid" => set(Attr::MOUNT_ATTR_NOSUID),
        "suid" => clear(Attr::MOUNT_ATTR_NOSUID),
        "nodev" => set(Attr::MOUNT_ATTR_NODEV),
        "dev" => clear(Attr::MOUNT_ATTR_NODEV),
        "noexec" => set(Attr::MOUNT_ATTR_NOEXEC),
        "exec" => clear(Attr::MOUNT_ATTR_NOEXEC),
        "nodiratime" => set(Attr::MOUNT_ATTR_NODIRATIME),
        "diratime" => clear(Attr::MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => set(Attr::MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => clear(Attr::MOUNT_ATTR_NOSYMFOLLOW),
        "noatime" => atime(Attr::MOUNT_ATTR_NOATIME),
        "relatime" | "atime" => atime(Attr::MOUNT_ATTR_RELATIME),
        "strictatime" => atime(Attr::MOUNT_ATTR_STRICTATIME),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RO: u64 = Attr::MOUNT_ATTR_RDONLY.bits() as u64;
    const NOSUID: u64 = Attr::MOUNT_ATTR_NOSUID.bits() as u64;

    fn parse(options: &[&str]) -> Options {
        Options::parse(options).unwrap()
    }

    #[test]
    fn dockers_bind_is_read_only_all_the_way_down() {
        let options = parse(&["rbind", "rprivate", "rro", "nosuid"]);
        assert!(options.bind && options.recursive_bind);
        assert_eq!((options.recursive.set, options.own.set), (RO, NOSUID));
        assert_eq!(options.propagation, [(Propagation::Private, true)]);
        assert!(options.data.is_empty());
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(parse(&["ro", "rw"]).own, Attributes { set: 0, clear: RO });
        assert_eq!(parse(&["rw", "ro"]).own, Attributes { set: RO, clear: 0 });
    }

    #[test]
    fn relatime_is_not_a_recursive_elatime() {
        let atime = Attr::MOUNT_ATTR__ATIME.bits().into();
        assert_eq!(parse(&["relatime"]).own, Attributes { set: 0, clear: atime });
        assert_eq!(parse(&["rnoatime"]).recursive.set, u64::from(Attr::MOUNT_ATTR_NOATIME.bits()));
    }

    #[test]
    fn the_rest_is_the_file_systems() {
        let options = parse(&["size=64k", "newinstance", "mode=0620"]);
        let text: Vec<_> = options.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(text, [("size", Some("64k")), ("newinstance", None), ("mode", Some("0620"))]);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let refused = Options::parse(&["ridmap"]).unwrap_err();
        assert_eq!(refused.message, "mount option \"ridmap\" is not supported");
    }
}
