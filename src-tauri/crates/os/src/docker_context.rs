//! The docker CLI's contexts, in the files where it keeps them itself.
//!
//! `<docker config>/contexts/meta/<sha256 of the name>/meta.json` holds one context; `config.json` beside says which one is
//! current (docker/cli: `cli/context/store`). Both are replaced whole, so that a docker command that runs meanwhile sees
//! the old or the new one.

use crate::replace_file;
use directories::UserDirs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, io, path::PathBuf};

/// Where this user has their docker configuration: `$DOCKER_CONFIG`, else `~/.docker`. `None` without a home directory.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    named.or_else(|| UserDirs::new().map(|user| user.home_dir().join(".docker")))
}

/// The contexts of one docker configuration.
#[derive(Debug, Clone)]
pub struct DockerContexts {
    config_dir: PathBuf,
}

/// Why a context could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is neither `DOCKER_CONFIG` nor a home directory.
    #[error("this user has no docker configuration directory")]
    NoHome,
    /// A file cannot be read or written.
    #[error("cannot use {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The docker CLI's configuration is not what it writes; it is left alone.
    #[error("{} is not a docker configuration", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
}

impl DockerContexts {
    /// This user's: `$DOCKER_CONFIG`, else `~/.docker`.
    pub fn of_user() -> Result<Self, ContextError> {
        let config_dir = config_dir().ok_or(ContextError::NoHome)?;
        Ok(Self::at(config_dir))
    }

    /// Those of the docker configuration in `config_dir`.
    pub fn at(config_dir: impl Into<PathBuf>) -> Self {
        Self { config_dir: config_dir.into() }
    }

    /// Makes the context `name` point at `docker_host`, or changes it; writes nothing if it does already.
    pub fn put(&self, name: &str, description: &str, docker_host: &str) -> Result<(), ContextError> {
        let path = self.meta_path(name);
        let meta = json!({
            "Name": name,
            "Metadata": { "Description": description },
            "Endpoints": { "docker": { "Host": docker_host, "SkipTLSVerify": false } },
        });
        let text = meta.to_string();
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        replace_file(&path, text.as_bytes()).map_err(|error| ContextError::File(path, error))
    }

    /// The name of the context that docker uses when nothing else is said; `default` is docker's own.
    pub fn current(&self) -> Result<String, ContextError> {
        let config = self.read_config()?;
        Ok(config
            .get("currentContext")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
            .into())
    }

    /// Makes docker use the context `name` when nothing else is said, as `docker context use` does.
    pub fn set_current(&self, name: &str) -> Result<(), ContextError> {
        let mut config = self.read_config()?;
        config.insert("currentContext".into(), name.into());
        let path = self.config_path();
        let text = serde_json::to_vec_pretty(&config)
            .map_err(|error| ContextError::Malformed(path.clone(), error))?;
        replace_file(&path, &text).map_err(|error| ContextError::File(path, error))
    }

    fn meta_path(&self, name: &str) -> PathBuf {
        let digest: String =
            Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.config_dir.join("contexts").join("meta").join(digest).join("meta.json")
    }

    fn config_path(&self) -> PathBuf {
        self.config_dir.join("config.json")
    }

    fn read_config(&self) -> Result<serde_json::Map<String, Value>, ContextError> {
        let path = self.config_path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| ContextError::Malformed(path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(serde_json::Map::new()),
            Err(error) => Err(ContextError::File(path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_lies_where_the_docker_cli_looks() {
        let dir = tempfile::tempdir().unwrap();
        DockerContexts::at(dir.path()).put("caisson", "Containers", "unix:///run/x.sock").unwrap();
        let path = dir
            .path()
            .join("contexts/meta/f8c1773c8156b7a0f123617ef1e709d75266feaba6ae635a95eebacbffe8fede/meta.json");
        let meta: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(meta["Endpoints"]["docker"]["Host"], "unix:///run/x.sock");
    }

    #[test]
    fn choosing_a_context_keeps_the_rest_of_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = DockerContexts::at(dir.path());
        assert_eq!(contexts.current().unwrap(), "default");
        fs::write(
            dir.path().join("config.json"),
            r#"{"auths":{"r":{"auth":"eA=="}},"currentContext":"other"}"#,
        )
        .unwrap();
        contexts.set_current("caisson").unwrap();
        assert_eq!(contexts.current().unwrap(), "caisson");
        assert_eq!(contexts.read_config().unwrap()["auths"]["r"]["auth"], "eA==");
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "{ not json").unwrap();
        let refused = DockerContexts::at(dir.path()).set_current("caisson");
        assert!(matches!(refused, Err(ContextError::Malformed(..))));
        assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), "{ not json");
    }
}
