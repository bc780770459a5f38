//! What images are for, and what runs what: the rules of containerd's `platforms` package.
//!
//! The same platform has many names (`x86_64`, `arm64/v8`); they are compared as their usual one
//! ([`normalized`](Platform::normalized), `platforms.Normalize`). A processor runs more than its own
//! ([`rank`](Platform::rank), `platforms.Only`), unless exactly one platform is meant ([`is`](Platform::is),
//! `platforms.OnlyStrict`).

use serde::{Deserialize, Serialize};

use crate::config::or_default;

/// The newest version of an architecture that others may be older than. None is half as new.
const VERSION_MAX: u32 = 16;

/// The system an image is for, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`, `v8`; empty for the architecture's usual one.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The platform that this engine runs on.
    pub fn here() -> Self {
        let (os, architecture) = ("linux".to_owned(), std::env::consts::ARCH.to_owned());
        Self { os, architecture, variant: String::new() }.normalized()
    }

    /// The same by its usual name.
    pub fn normalized(&self) -> Self {
        let lower = |text: &String| text.to_ascii_lowercase();
        let (os, architecture, variant) = (lower(&self.os), lower(&self.architecture), lower(&self.variant));
        let os = match os.as_str() {
            "" => "linux",
            "macos" => "darwin",
            os => os,
        };
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// How well this platform runs what is made for `other` without emulation, the less the better; nothing if it does not.
    pub fn rank(&self, other: &Self) -> Option<usize> {
        let other = other.normalized();
        self.runs_in_order().iter().position(|one| *one == other)
    }

    /// Whether these are two names of the same.
    pub fn is(&self, other: &Self) -> bool {
        self.normalized() == other.normalized()
    }

    /// The same but for the variant.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let (own, other) = (self.normalized(), other.normalized());
        (own.os, own.architecture) == (other.os, other.architecture)
    }

    /// All that it runs, best first.
    fn runs_in_order(&self) -> Vec<Self> {
        let own = self.normalized();
        let of = |architecture: &str, variant: String| {
            Self { os: own.os.clone(), architecture: architecture.to_owned(), variant }.normalized()
        };
        let mut all = vec![own.clone()];
        match own.architecture.as_str() {
            "amd64" => {
                all.extend(older(&own.variant, 1).map(|variant| of("amd64", variant)));
                all.push(of("386", String::new()));
            }
            "arm" => all.extend(older(&own.variant, 5).map(|variant| of("arm", variant))),
            "arm64" => {
                all.extend(older_arm64(&own.variant).into_iter().map(|variant| of("arm64", variant)));
                all.extend(older("v9", 5).map(|variant| of("arm", variant)));
            }
            _ => {}
        }
        all
    }
}

/// The variants before `vN`, down to `least`, the newest first.
fn older(variant: &str, least: u32) -> impl Iterator<Item = String> {
    let version = variant.trim_start_matches('v').parse::<u32>().unwrap_or_default();
    (least..version.min(VERSION_MAX)).rev().map(|version| format!("v{version}"))
}

/// The same of arm64's, which have minor versions: v9.N has all that v8.(N+5) has.
fn older_arm64(variant: &str) -> Vec<String> {
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    let minor = minor.parse::<u32>().unwrap_or_default().min(VERSION_MAX);
    let minors =
        |major: &'static str, below: u32| (0..below).rev().map(move |minor| format!("{major}.{minor}"));
    match major {
        "v9" => minors("v9", minor).chain(minors("v8", (minor + 6).min(10))).collect(),
        "v8" => minors("v8", minor).collect(),
        _ => Vec::new(),
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `arm/v7`.
    fn of(text: &str) -> Platform {
        let (architecture, variant) = text.split_once('/').unwrap_or((text, ""));
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    #[test]
    fn a_platform_has_many_names() {
        for (name, usual) in [
            ("x86_64", "amd64"),
            ("x86-64/v1", "amd64"),
            ("amd64/v3", "amd64/v3"),
            ("AArch64", "arm64"),
            ("arm64/v8", "arm64"),
            ("arm64/8", "arm64"),
            ("aarch64/v9", "arm64/v9"),
            ("armhf", "arm/v7"),
            ("armel", "arm/v6"),
            ("arm", "arm/v7"),
            ("arm/6", "arm/v6"),
            ("i386", "386"),
            ("s390x", "s390x"),
        ] {
            assert_eq!(of(name).normalized(), of(usual), "{name}");
            assert!(of(usual).is(&of(name)), "{name}");
        }
        assert!(!of("amd64").is(&of("i386")));
    }

    #[test]
    fn a_processor_runs_what_came_before_it() {
        for (here, runs) in [
            ("amd64", &["amd64", "386"][..]),
            ("amd64/v3", &["amd64/v3", "amd64/v2", "amd64/v1", "i386"]),
            ("arm64", &["arm64/v8", "arm/v8", "arm/v7", "arm/v6", "arm/v5"]),
            ("arm64/v8.2", &["arm64/v8.2", "arm64/v8.1", "arm64", "arm/v8", "arm"]),
            ("arm64/v9.1", &["arm64/v9.1", "arm64/v9", "arm64/v8.6", "arm64/v8.5", "arm64", "armhf"]),
            ("arm/v7", &["armhf", "arm/v6", "arm/v5"]),
            ("arm/v6", &["armel", "arm/v5"]),
            ("s390x", &["s390x"]),
        ] {
            let ranks: Vec<_> = runs.iter().map(|other| of(here).rank(&of(other))).collect();
            assert!(ranks.is_sorted() && ranks.iter().all(Option::is_some), "{here}: {ranks:?}");
        }
        for (here, not) in [
            ("amd64", "amd64/v3"),
            ("amd64", "arm64"),
            ("arm/v6", "arm/v7"),
            ("386", "amd64"),
            ("arm64", "arm64/v9"),
        ] {
            assert_eq!(of(here).rank(&of(not)), None, "{here} {not}");
        }
        let unheard_of = Platform { variant: "v4294967295".to_owned(), ..of("arm") };
        assert!(unheard_of.runs_in_order().len() < 20);
    }
}
