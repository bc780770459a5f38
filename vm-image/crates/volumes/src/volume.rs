//! One volume, as others see it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use time::OffsetDateTime;

use crate::mount;
use crate::name;
use crate::options::Device;

/// The only driver.
pub const DRIVER: &str = "local";

/// The label of a volume that was given no name.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Its name; empty for an anonymous one.
    pub name: String,
    /// Its driver; empty for `local`.
    pub driver: String,
    /// The driver's options: `type`, `device`, `o`, `size`. `None` is told as `null`.
    pub options: Option<BTreeMap<String, String>>,
    /// Its labels. `None` is told as `null`.
    pub labels: Option<BTreeMap<String, String>>,
}

impl NewVolume {
    /// Gives one without a name a random one, and the label that says so.
    pub fn name_anonymous(&mut self) {
        if self.name.is_empty() {
            self.name = name::random();
            self.labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
    }
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: OffsetDateTime,
    /// The driver's options, as they were given.
    pub options: Option<BTreeMap<String, String>>,
    /// Its labels, as they were given.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its directory.
    pub path: PathBuf,
    /// What it is held to its size by.
    pub(crate) project: Option<u32>,
}

impl Volume {
    /// Whether it was given no name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
    }

    /// Whether its files are the containers' alone. Those of a directory, a disk or a server that its options name belong to whom they
    /// belong; a tmpfs begins empty.
    pub fn is_containers_own(&self) -> bool {
        Device::of(self.options.as_ref()).is_none_or(|device| mount::makes_new_files(&device))
    }

    /// Whether it was made with options: what is in such a one is not the engine's to count or to prune.
    pub fn has_options(&self) -> bool {
        self.options.as_ref().is_some_and(|options| !options.is_empty())
    }
}
