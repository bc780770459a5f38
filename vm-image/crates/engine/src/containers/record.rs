//! A container on disk: two files of its directory, each replaced whole.
//!
//! `container.json` is what it was made to be, written once. `state.json` is where it stands, written at each change.
//! Both carry a version. A rename makes each change all or nothing for a crash of the engine; that it reaches the disk is
//! not waited for, because ext4 writes a file that is renamed over another before the rename, and what a
//! crash of the whole machine can take away is a container of the last moment, not the sense of a file.

use std::io;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::{Config, HostConfig, MountPoint};
use caisson_docker_api::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const DEFINITION_FILE: &str = "container.json";
const STATE_FILE: &str = "state.json";

/// What a container was made to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// The image's id, `sha256:…`.
    pub(crate) image: String,
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    /// What is mounted besides what every container has.
    pub(crate) mounts: Vec<MountPoint>,
    /// The first process.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
}

impl Definition {
    /// The id as people see it.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }
}

/// Where a container stands, for the next engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum StoredState {
    /// It never ran; a start may have failed.
    Created { exit_code: i32, error: String },
    /// It runs, unless its shim says otherwise.
    Running { pid: u32, started_at: Timestamp, boot_id: String },
    /// It ran.
    Exited { started_at: Timestamp, finished_at: Timestamp, exit_code: i32, oom_killed: bool, error: String },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    value: T,
}

/// A container's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(containers: &Path, id: &str) -> Self {
        Self(containers.join(id))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The container's own layer of the root file system.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("rootfs/diff")
    }

    /// overlayfs' scratch directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("rootfs/work")
    }

    /// Where the shim tells how the container ended.
    pub(crate) fn exit_record(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The output, in dockerd's `json-file` format.
    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}-json.log"))
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// Makes the directory with what a new container has in it.
    pub(crate) fn make(&self, definition: &Definition) -> io::Result<()> {
        std::fs::create_dir(&self.0)?;
        std::fs::create_dir(self.0.join("rootfs"))?;
        std::fs::create_dir(self.upper())?;
        std::fs::create_dir(self.work())?;
        write(&self.0.join(DEFINITION_FILE), definition)
    }

    /// Reads what it was made to be.
    pub(crate) fn definition(&self) -> io::Result<Definition> {
        read(&self.0.join(DEFINITION_FILE))
    }

    /// Reads where it stands; a new one has not said yet.
    pub(crate) fn state(&self) -> io::Result<StoredState> {
        match read(&self.0.join(STATE_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(StoredState::Created { exit_code: 0, error: String::new() })
            }
            other => other,
        }
    }

    pub(crate) fn write_state(&self, state: &StoredState) -> io::Result<()> {
        write(&self.0.join(STATE_FILE), state)
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(&Versioned { version: VERSION, value })?)?;
    std::fs::rename(&temporary, path)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let text = std::fs::read(path)?;
    let Version { version } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has version {version}, this engine knows {VERSION}", path.display()),
        ));
    }
    Ok(serde_json::from_slice::<Versioned<T>>(&text)?.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        Definition {
            id: "c0ffee".repeat(11),
            name: "web".into(),
            created: Timestamp::from_unix_nanos(5),
            image: "sha256:1".into(),
            config: Config { env: Some(vec!["A=b".into()]), ..Config::default() },
            host_config: HostConfig { memory: 7, ..HostConfig::default() },
            mounts: Vec::new(),
            path: "sh".into(),
            args: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path(), "c");
        directory.make(&definition()).unwrap();
        let read = directory.definition().unwrap();
        assert_eq!((read.config, read.host_config), (definition().config, definition().host_config));
        assert_eq!(directory.state().unwrap(), StoredState::Created { exit_code: 0, error: String::new() });
        let state =
            StoredState::Running { pid: 1, started_at: Timestamp::from_unix_nanos(9), boot_id: "b".into() };
        directory.write_state(&state).unwrap();
        assert_eq!(directory.state().unwrap(), state);
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path(), "c");
        directory.make(&definition()).unwrap();
        std::fs::write(directory.path().join(STATE_FILE), r#"{"version":2,"state":"new"}"#).unwrap();
        assert!(directory.state().unwrap_err().to_string().contains("has version 2, this engine knows 1"));
    }
}
