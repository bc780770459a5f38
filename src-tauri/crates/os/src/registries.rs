//! How the user wants registries to be reached, in the files that users of Docker Desktop know.
//!
//! `<docker config>/daemon.json` names registries that need no TLS, and mirrors of Docker Hub. In
//! `<docker config>/certs.d/<host>[:port]/` a registry has certificates of its own: `*.crt` to trust, `NAME.cert` with `NAME.key`
//! to show. A name on Windows has no colon; there it is left out, as dockerd does (moby: `registry/config_windows.go`).

use crate::docker_context::config_dir;
use serde_json::{Map, Value};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The longest `daemon.json`, in bytes.
const SETTINGS_MAX: u64 = 128 << 10;
/// The longest file with certificates or a key, in bytes.
const CERTIFICATES_MAX: u64 = 256 << 10;

const INSECURE: &str = "insecure-registries";
const MIRRORS: &str = "registry-mirrors";
/// How names of files with certificates and keys end; others are none of the engine's.
const KINDS: [&str; 3] = ["crt", "cert", "key"];

/// What `daemon.json` says of registries; nothing if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// `insecure-registries`: those that may be reached without TLS, `host[:port]` or networks.
    pub insecure: Vec<String>,
    /// `registry-mirrors`: addresses that serve what Docker Hub has.
    pub mirrors: Vec<String>,
    /// What else it has: keys that say nothing of registries.
    pub ignored: Vec<String>,
}

/// Why `daemon.json` does not tell.
#[derive(Debug, thiserror::Error)]
pub enum RegistrySettingsError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It is something else than an object in JSON.
    #[error("{} is not JSON, or no object", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
    /// A setting has the wrong type.
    #[error("in {} {key} is not a list of texts", .path.display())]
    NoList {
        /// The file.
        path: PathBuf,
        /// The setting's name.
        key: &'static str,
    },
}

/// Registries' own certificates and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryCertificates {
    /// In the order of their registries.
    pub files: Vec<RegistryFile>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// A file of a registry's.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryFile {
    /// The folder's name: `host[:port]`, or without the colon.
    pub registry: String,
    /// Its own name: `ca.crt`.
    pub name: String,
    /// What is in it. It may be a secret.
    pub text: String,
}

/// Without the text, which no log is to have.
impl std::fmt::Debug for RegistryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

/// The files of one docker configuration that say something of registries.
#[derive(Debug, Clone)]
pub struct UserRegistries {
    config_dir: PathBuf,
}

impl UserRegistries {
    /// This user's: in `$DOCKER_CONFIG`, else in `~/.docker`. `None` without a home directory.
    pub fn of_user() -> Option<Self> {
        // Its user may go to another working directory.
        let config_dir = std::path::absolute(config_dir()?).ok()?;
        Some(Self::at(config_dir))
    }

    /// Those of the docker configuration in `config_dir`.
    pub fn at(config_dir: impl Into<PathBuf>) -> Self {
        Self { config_dir: config_dir.into() }
    }

    /// What `daemon.json` says now.
    ///
    /// # Errors
    /// There is one, and it cannot be read or understood.
    pub fn settings(&self) -> Result<RegistrySettings, RegistrySettingsError> {
        let path = self.config_dir.join("daemon.json");
        let text = match read(&path, SETTINGS_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RegistrySettings::default()),
            Err(error) => return Err(RegistrySettingsError::File(path, error)),
        };
        // As to dockerd, an empty file says nothing.
        if text.trim().is_empty() {
            return Ok(RegistrySettings::default());
        }
        let mut settings: Map<String, Value> = match serde_json::from_str(&text) {
            Ok(settings) => settings,
            Err(error) => return Err(RegistrySettingsError::Malformed(path, error)),
        };
        let mut list = |key| {
            let found = texts(settings.remove(key));
            found.ok_or_else(|| RegistrySettingsError::NoList { path: path.clone(), key })
        };
        let (insecure, mirrors) = (list(INSECURE)?, list(MIRRORS)?);
        Ok(RegistrySettings {
            insecure,
            mirrors,
            ignored: settings.into_iter().map(|(key, _)| key).collect(),
        })
    }

    /// What is in `certs.d` now.
    pub fn certificates(&self) -> RegistryCertificates {
        let all = self.config_dir.join("certs.d");
        let mut found = RegistryCertificates::default();
        for registry in names(&all, &mut found.problems) {
            let own = all.join(&registry);
            if own.is_dir() {
                found.add(&own, &registry);
            }
        }
        found
    }
}

impl RegistryCertificates {
    fn add(&mut self, own: &Path, registry: &str) {
        for name in names(own, &mut self.problems) {
            let path = own.join(&name);
            if !KINDS.into_iter().any(|kind| path.extension().is_some_and(|found| found == kind)) {
                continue;
            }
            match read(&path, CERTIFICATES_MAX) {
                Ok(text) => self.files.push(RegistryFile { registry: registry.to_owned(), name, text }),
                Err(error) => self.problems.push(format!("{}: {error}", path.display())),
            }
        }
    }
}

/// The texts in a list; none if there is no list, `None` if there is something else.
fn texts(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(all)) => all.into_iter().map(|one| Some(one.as_str()?.to_owned())).collect(),
        Some(_) => None,
    }
}

/// The names in a directory, in order.
fn names(dir: &Path, problems: &mut Vec<String>) -> Vec<String> {
    let listed: io::Result<Vec<OsString>> =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names = Vec::new();
    match listed {
        Ok(listed) => {
            for name in listed {
                match name.into_string() {
                    Ok(name) => names.push(name),
                    Err(name) => problems.push(format!("{}: the name is no text", dir.join(name).display())),
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(format!("{}: {error}", dir.display())),
    }
    names.sort();
    names
}

/// The text of a file that a person has written, which is no longer than `limit` bytes.
fn read(path: &Path, limit: u64) -> io::Result<String> {
    // A pipe would keep its reader waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    decode(bytes).ok_or_else(|| io::Error::other("it is no text"))
}

/// Text as programs write it: UTF-8, with a mark (Notepad) or without, or UTF-16 with one (PowerShell). dockerd takes the same.
fn decode(bytes: Vec<u8>) -> Option<String> {
    match &bytes[..] {
        [0xef, 0xbb, 0xbf, text @ ..] => std::str::from_utf8(text).ok().map(str::to_owned),
        [0xff, 0xfe, units @ ..] => {
            let units = units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => String::from_utf8(bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    fn settings_of(text: impl AsRef<[u8]>) -> Result<RegistrySettings, RegistrySettingsError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("daemon.json"), text).unwrap();
        UserRegistries::at(dir.path()).settings()
    }

    #[test]
    fn daemon_json_is_read_as_docker_desktop_and_editors_write_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(UserRegistries::at(dir.path()).settings().unwrap(), RegistrySettings::default());
        assert_eq!(settings_of(" \n").unwrap(), RegistrySettings::default());
        let text = r#"{"builder":{"gc":{"enabled":true}},"experimental":false,
            "insecure-registries":["r.lan:5000","10.0.0.0/8"],"registry-mirrors":["http://m:1"]}"#;
        let expected = RegistrySettings {
            insecure: vec!["r.lan:5000".into(), "10.0.0.0/8".into()],
            mirrors: vec!["http://m:1".into()],
            ignored: vec!["builder".into(), "experimental".into()],
        };
        let utf16 = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes);
        let utf16: Vec<u8> = utf16.collect();
        for written in [text.as_bytes().to_vec(), format!("\u{feff}{text}").into_bytes(), utf16] {
            assert_eq!(settings_of(written).unwrap(), expected);
        }
        let nothing = r#"{"insecure-registries":null,"registry-mirrors":[]}"#;
        assert_eq!(settings_of(nothing).unwrap(), RegistrySettings::default());
    }

    #[test]
    fn what_is_wrong_with_daemon_json_is_told_with_its_path() {
        for (text, message) in [
            ("{", "is not JSON, or no object: EOF while parsing an object at line 1 column 1"),
            ("[]", "is not JSON, or no object: invalid type: sequence, expected a map at line 1 column 0"),
            (r#"{"insecure-registries":"r.lan"}"#, "insecure-registries is not a list of texts"),
            (r#"{"registry-mirrors":[1]}"#, "registry-mirrors is not a list of texts"),
            ("\u{feff}\u{feff}", "is not JSON"),
        ] {
            let error = settings_of(text).unwrap_err();
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let told = format!("{error}{cause}");
            assert!(told.contains(message) && told.contains("daemon.json"), "{told}");
        }
        let long = " ".repeat(usize::try_from(SETTINGS_MAX).unwrap() + 1);
        for (text, message) in [(long.into_bytes(), "it is longer than"), (vec![0xff, 0x20], "it is no text")]
        {
            let error = settings_of(text).unwrap_err();
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(message), "{cause}");
        }
    }

    #[test]
    fn certificates_are_found_by_registry_and_what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(UserRegistries::at(dir.path()).certificates(), RegistryCertificates::default());
        let all = dir.path().join("certs.d");
        for (registry, name, text) in [
            ("r.lan5000", "client.key", b"key".to_vec()),
            ("r.lan5000", "ca.crt", b"ca".to_vec()),
            ("r.lan5000", "notes.txt", b"not for us".to_vec()),
            ("a.lan", "client.cert", b"shown".to_vec()),
            ("a.lan", "der.crt", vec![0x30, 0x82, 0xff]),
            ("a.lan", "long.crt", vec![b'x'; usize::try_from(CERTIFICATES_MAX).unwrap() + 1]),
        ] {
            fs::create_dir_all(all.join(registry)).unwrap();
            fs::write(all.join(registry).join(name), text).unwrap();
        }
        fs::write(all.join("beside.crt"), "of no registry").unwrap();
        fs::create_dir(all.join("a.lan/directory.crt")).unwrap();
        let found = UserRegistries::at(dir.path()).certificates();
        let files: Vec<_> =
            found.files.iter().map(|file| (format!("{file:?}"), file.text.as_str())).collect();
        let expected =
            [("a.lan/client.cert", "shown"), ("r.lan5000/ca.crt", "ca"), ("r.lan5000/client.key", "key")];
        assert_eq!(files, expected.map(|(name, text)| (name.to_owned(), text)));
        assert_eq!(found.problems.len(), 3, "{:?}", found.problems);
        for (problem, (name, why)) in found.problems.iter().zip([
            ("der.crt", "it is no text"),
            ("directory.crt", "it is no file"),
            ("long.crt", "it is longer than"),
        ]) {
            assert!(problem.contains(name) && problem.contains(why), "{problem}");
        }
    }
}
