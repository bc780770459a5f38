//! A container on disk: two files of its directory, each replaced whole.
//!
//! `container.json` is what it was made to be, written once. `state.json` is where it stands, written at each change.
//! Both carry a version. A rename makes each change all or nothing for a crash of the engine.
//!
//! A power cut takes what was not synced, so what a client was told, and what stays true, is synced before it is told:
//! that there is such a container ([`Directory::make`]), that a start of it was asked for (while the start goes on), how
//! it ended. What is true for one boot only (that it runs) is not: the next engine asks the shims, and a container that was
//! started and has no shim was killed, by whatever ended its machine: 137. So it cannot read as running, nor as one that
//! never ran. Only a removal can be taken back, which leaves a container to be removed again. The overlay's
//! directories are made before the definition is synced, and the journal of ext4 keeps that order.

use std::fs::File;
use std::io::{self, Write};
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
    /// It runs, or was being started; unless its shim says otherwise, or there is none any more.
    Running { started_at: Timestamp },
    /// It ran.
    Exited { started_at: Timestamp, finished_at: Timestamp, exit_code: i32, oom_killed: bool, error: String },
}

/// For how long something written must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// As long as the machine runs: for an engine that comes after this one.
    ThisBoot,
    /// From now on, whatever happens: written through to the disk.
    BeyondPower,
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

    /// Makes the directory with what a new container has in it, all of it on disk when this returns.
    pub(crate) fn make(&self, definition: &Definition) -> io::Result<()> {
        std::fs::create_dir(&self.0)?;
        std::fs::create_dir(self.0.join("rootfs"))?;
        std::fs::create_dir(self.upper())?;
        std::fs::create_dir(self.work())?;
        write(&self.0.join(DEFINITION_FILE), definition, Lasting::BeyondPower)?;
        self.0.parent().map_or(Ok(()), sync)
    }

    /// Reads what it was made to be; `None` if it was never finished, so that nobody was told of it.
    pub(crate) fn definition(&self) -> io::Result<Option<Definition>> {
        read(&self.0.join(DEFINITION_FILE))
    }

    /// Reads where it stands; `None` if it was never started.
    pub(crate) fn state(&self) -> io::Result<Option<StoredState>> {
        read(&self.0.join(STATE_FILE))
    }

    /// Forgets how the last run ended, before the next.
    pub(crate) fn clear_exit_record(&self) -> io::Result<()> {
        match std::fs::remove_file(self.exit_record()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn write_state(&self, state: &StoredState, lasting: Lasting) -> io::Result<()> {
        write(&self.0.join(STATE_FILE), state, lasting)
    }
}

fn write<T: Serialize>(path: &Path, value: &T, lasting: Lasting) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&Versioned { version: VERSION, value })?)?;
    if lasting == Lasting::ThisBoot {
        return std::fs::rename(&temporary, path);
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Writes through what was made or renamed in a directory.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Reads a file; one that is empty, as a power cut leaves what was not synced, is as good as none.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let Version { version } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has version {version}, this engine knows {VERSION}", path.display()),
        ));
    }
    Ok(Some(serde_json::from_slice::<Versioned<T>>(&text)?.value))
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
        let read = directory.definition().unwrap().unwrap();
        assert_eq!((read.config, read.host_config), (definition().config, definition().host_config));
        assert_eq!(directory.state().unwrap(), None);
        for (nanos, lasting) in [(9, Lasting::BeyondPower), (10, Lasting::ThisBoot)] {
            let state = StoredState::Running { started_at: Timestamp::from_unix_nanos(nanos) };
            directory.write_state(&state, lasting).unwrap();
            assert_eq!(directory.state().unwrap(), Some(state));
        }
    }

    #[test]
    fn an_empty_definition_is_one_that_was_never_finished() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path(), "c");
        directory.make(&definition()).unwrap();
        std::fs::write(directory.path().join(DEFINITION_FILE), "").unwrap();
        assert!(directory.definition().unwrap().is_none());
        std::fs::remove_file(directory.path().join(DEFINITION_FILE)).unwrap();
        assert!(directory.definition().unwrap().is_none());
        std::fs::write(directory.path().join(DEFINITION_FILE), "{").unwrap();
        assert!(directory.definition().is_err(), "what cannot be understood is not thrown away");
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
