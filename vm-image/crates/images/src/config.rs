//! An image's configuration: what is in its JSON, as Docker and the OCI image specification write it.
//!
//! Reading is lenient, because images were written by fifteen years of tools: a `null` is the same as an absent
//! field, and `Cmd` may be a single string. The bytes themselves are kept as they came, since their digest is the
//! image's id; a configuration is serialised only when this crate makes a new image.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::{ChainId, DiffId};
use crate::platform::Platform;

/// An image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The CPU architecture in Go's words (`amd64`); empty in very old images.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// Who made it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark of whoever made it, such as `docker import --message`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What containers of this image start with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    /// When it was made, in RFC 3339, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The version of Docker that made it, in older images.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// How each layer came to be, lowest first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The operating system; empty in very old images.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// Features of the operating system that it needs.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The version of the operating system, for Windows.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// The layers.
    pub rootfs: RootFs,
    /// The variant of the architecture (`v8`).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl ImageConfig {
    /// When it was made, if that is written and can be read.
    pub fn created_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.created.as_deref()?, &Rfc3339).ok()
    }

    /// What containers of this image start with; nothing at all when it has no such part.
    pub fn run(&self) -> RunConfig {
        self.config.clone().unwrap_or_default()
    }

    /// What it is for; fields that very old images lack are this engine's.
    pub fn platform(&self) -> Platform {
        let here = Platform::here();
        let or = |own: &String, here: String| if own.is_empty() { here } else { own.clone() };
        Platform {
            os: or(&self.os, here.os),
            architecture: or(&self.architecture, here.architecture),
            variant: self.variant.clone(),
        }
    }

    /// Whether it is for this platform, or for another that this one runs.
    pub fn is_for(&self, wanted: &Platform) -> bool {
        self.rank_for(wanted).is_some()
    }

    /// How well it does on this platform, the less the better; nothing if it does not run there. Many configurations leave
    /// their variant out: such a one is for any, if there is nothing better.
    pub(crate) fn rank_for(&self, wanted: &Platform) -> Option<usize> {
        if self.is_for_any() {
            return Some(0);
        }
        let own = self.platform();
        wanted.rank(&own).or_else(|| (own.variant.is_empty() && wanted.is_like(&own)).then_some(usize::MAX))
    }

    /// Whether it is for this platform and no other.
    pub(crate) fn is_only_for(&self, wanted: &Platform) -> bool {
        self.is_for_any() || wanted.is(&self.platform())
    }

    /// Very old images do not say what they are for.
    fn is_for_any(&self) -> bool {
        self.os.is_empty() || self.architecture.is_empty()
    }

    /// The chain ids of its layers, lowest first.
    pub fn chain(&self) -> Vec<ChainId> {
        ChainId::of_stack(&self.rootfs.diff_ids)
    }
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// The digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How one layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction or command that made it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step changed the configuration only: it has no layer in `rootfs`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// A set in Go's JSON, `{"80/tcp":{}}`; only the keys mean something.
pub type KeySet = BTreeMap<String, Empty>;

/// The `{}` of a [`KeySet`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map::<(), (), _>([])
    }
}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What containers of an image start with: Docker's `Config`, without the fields that only a container has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`; empty for root.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that it listens on, `80/tcp`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: KeySet,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What comes before the command.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or what is given to the entry point.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to ask whether a container is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows: the arguments are one line already.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Directories that get an anonymous volume.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: KeySet,
    /// Where the command starts; empty for `/`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Instructions for builds that start from this image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the command to stop; empty for `SIGTERM`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How long to wait after that signal, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to ask whether a container is healthy. Durations are in nanoseconds; zero means inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`; empty means inherited.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two questions.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long an answer may take.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count after the start.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two questions during the start period.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// `null` is the same as absent.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of words, of which old images may have a single one without brackets.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::deserialize(deserializer)?.map(|words| match words {
        Words::One(word) => vec![word],
        Words::Many(words) => words,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_the_same_as_nothing() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":null,"config":{"Cmd":"sh","Entrypoint":null,"Env":null,"Labels":null,
                "ExposedPorts":{"80/tcp":{},"53/udp":null},"Volumes":null,"OnBuild":null,"Hostname":"x"},
                "rootfs":{"type":"layers","diff_ids":null},"history":null,"container":"gone"}"#,
        )
        .unwrap();
        let run = config.run();
        assert_eq!(run.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(run.entrypoint, None);
        assert_eq!(run.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn a_configuration_without_layers_key_is_none() {
        assert!(serde_json::from_str::<ImageConfig>(r#"{"architecture":"amd64"}"#).is_err());
    }

    #[test]
    fn sets_are_written_as_docker_writes_them() {
        let run = RunConfig { exposed_ports: [("80/tcp".to_owned(), Empty)].into(), ..RunConfig::default() };
        assert_eq!(serde_json::to_string(&run).unwrap(), r#"{"ExposedPorts":{"80/tcp":{}}}"#);
    }

    #[test]
    fn a_configuration_without_a_variant_is_for_any() {
        let config = |architecture: &str, variant: &str| ImageConfig {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..ImageConfig::default()
        };
        let wanted = |variant: &str| Platform {
            os: "linux".to_owned(),
            architecture: "arm".to_owned(),
            variant: variant.to_owned(),
        };
        assert!(config("arm", "").is_for(&wanted("v6")), "it may be for v6");
        assert!(!config("arm", "v7").is_for(&wanted("v6")));
        assert!(config("arm", "v6").rank_for(&wanted("v7")) < config("arm", "").rank_for(&wanted("v6")));
        assert!(config("arm", "v6").is_for(&wanted("v7")) && !config("arm", "v6").is_only_for(&wanted("v7")));
        assert!(config("", "").is_only_for(&wanted("v7")));
    }
}
