//! What the engine is told of registries.

use std::num::NonZeroU16;
use std::path::PathBuf;

use super::settings::Settings;
use super::{Proxies, RegistryError};

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// A directory with `<host>[:port]/` for registries with certificates of their own: `*.crt` to trust, and
    /// `<name>.cert` with `<name>.key` to show (dockerd's `/etc/docker/certs.d`). The colon may be left out.
    pub certificates: Option<PathBuf>,
    /// See [`Settings::insecure`].
    pub insecure: Vec<String>,
    /// See [`Settings::mirrors`].
    pub mirrors: Vec<String>,
    /// A file with more of both, as [`Settings`]. Read anew whenever a registry is reached; there may be none.
    pub settings: Option<PathBuf>,
    /// A file with certificates of authorities to trust besides this system's. Read anew for each client; there may be
    /// none.
    pub authorities: Option<PathBuf>,
    /// A file with the proxies, as variables, read anew for each client. `None` are those of the environment.
    pub proxies: Option<PathBuf>,
    /// How much goes on at once.
    pub at_once: AtOnce,
}

/// How many layers are on their way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    /// Down, of all pulls together.
    pub downloads: NonZeroU16,
    /// Up, of each push.
    pub uploads: NonZeroU16,
}

/// As in dockerd.
impl Default for AtOnce {
    fn default() -> Self {
        let number = |number| NonZeroU16::new(number).expect("it is not zero");
        Self { downloads: number(3), uploads: number(5) }
    }
}

impl RegistryConfig {
    /// The proxies between this engine and registries.
    pub fn proxies(&self) -> Result<Proxies, RegistryError> {
        self.proxies.as_deref().map_or_else(|| Ok(Proxies::of_environment()), Proxies::read)
    }

    /// What holds now: what this says itself, then what its file says.
    pub fn settings(&self) -> Result<Settings, RegistryError> {
        let mut settings = Settings::default();
        settings.add(Settings { insecure: self.insecure.clone(), mirrors: self.mirrors.clone() });
        if let Some(file) = &self.settings {
            settings.add(Settings::read(file)?);
        }
        Ok(settings)
    }

    /// The directory with a registry's own certificates, if it has one. Where they come from, names may have no colon: dockerd on
    /// Windows leaves it out (moby: `registry/config_windows.go`).
    pub(super) fn certificates_of(&self, host: &str) -> Option<PathBuf> {
        let all = self.certificates.as_ref()?;
        [host.to_owned(), host.replace(':', "")].iter().map(|name| all.join(name)).find(|own| own.is_dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_with_and_without_the_colon() {
        let all = tempfile::tempdir().unwrap();
        let config = RegistryConfig { certificates: Some(all.path().into()), ..RegistryConfig::default() };
        assert_eq!(config.certificates_of("r.lan:5000"), None);
        for name in ["r.lan5000", "r.lan:5000"] {
            let own = all.path().join(name);
            std::fs::create_dir(&own).unwrap();
            assert_eq!(config.certificates_of("r.lan:5000"), Some(own));
        }
        assert_eq!(config.certificates_of("r.lan"), None);
    }

    #[test]
    fn the_files_settings_are_read_anew_and_come_after_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.json");
        let config = RegistryConfig {
            insecure: vec!["a.lan".into()],
            mirrors: vec!["https://a.mirror".into()],
            settings: Some(file.clone()),
            ..RegistryConfig::default()
        };
        assert_eq!(config.settings().unwrap().insecure, ["a.lan"]);
        std::fs::write(
            &file,
            r#"{"insecure-registries":["b.lan:1","a.lan"],"registry-mirrors":["http://b"]}"#,
        )
        .unwrap();
        let both = config.settings().unwrap();
        assert_eq!(both.insecure, ["a.lan", "b.lan:1"]);
        assert_eq!(both.mirrors, ["https://a.mirror", "http://b"]);
        std::fs::write(&file, "{").unwrap();
        assert!(config.settings().unwrap_err().to_string().contains("settings.json"));
    }
}
