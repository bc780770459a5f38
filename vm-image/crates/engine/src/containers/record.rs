//! A container on disk: two files of its directory, each replaced whole.
//!
//! `container.json` is what it is to be; it changes seldom (a rename, an update of limits, networks joined and left).
//! `state.json` is where it stands, written at each change. Both carry a version, and older ones are migrated. A rename makes each change all or nothing for a crash of the engine.
//!
//! A power cut takes what was not synced, so what a client was told, and what stays true, is synced before it is told:
//! that there is such a container ([`Directory::define`]), that a start of it was asked for (while the start goes on), how
//! it ended. What is true for one boot only (that it runs) is not: the next engine asks the shims, and a container that was
//! started and has no shim was killed, by whatever ended its machine: 137. So it cannot read as running, nor as one that
//! never ran. A removal is synced as well, but for a container that goes at its end, and would go again. The overlay's
//! directories are made before the definition is synced, and the journal of ext4 keeps that order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::{Config, HostConfig, MountPoint};
use caisson_docker_api::network::EndpointSettings;
use caisson_docker_api::time::Timestamp;
use caisson_sys::replace::{Survives, replace};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::links::LegacyLink;
use super::mounts::Mounting;
use super::state::Exited;

/// What this engine writes. It reads that and all before: see [`MIGRATIONS`].
const VERSION: u32 = 2;
/// What makes version n + 1 of version n, for n from 1 on. A file is migrated when it is read, and has the new version when it is
/// next written; so an older engine can take over until then.
const MIGRATIONS: [fn(&mut Map<String, Value>); VERSION as usize - 1] = [know_restarts];
const DEFINITION_FILE: &str = "container.json";
const STATE_FILE: &str = "state.json";

/// What a container is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// The image's id, `sha256:…`.
    pub(crate) image: String,
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    /// What is asked of each network, by its name.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// Links on the default bridge.
    #[serde(default)]
    pub(crate) links: Vec<LegacyLink>,
    /// What is mounted besides what every container has.
    pub(crate) mounts: Vec<Mounting>,
    /// Whether the default filter lets it make raw sockets. Those of engines that knew nothing of it could.
    #[serde(default = "yes")]
    pub(crate) raw_sockets: bool,
    /// The first process.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Definition {
    /// The id as people see it.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// What is told of its mounts.
    pub(crate) fn told_mounts(&self) -> Vec<MountPoint> {
        self.mounts.iter().map(|mounting| mounting.point.clone()).collect()
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
    /// It ran, and is to be started again.
    Restarting(Exited),
    /// It ran.
    Exited(Exited),
}

/// All that the next engine must know of where a container stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    #[serde(flatten)]
    pub(crate) state: StoredState,
    /// How often its policy has started it again.
    pub(crate) restarts: u32,
    /// A client has stopped it, so `unless-stopped` leaves it so.
    pub(crate) manually_stopped: bool,
}

impl Standing {
    /// Of a container that was never started.
    pub(crate) fn new() -> Self {
        let state = StoredState::Created { exit_code: 0, error: String::new() };
        Self { state, restarts: 0, manually_stopped: false }
    }
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

    /// Of a container that may have another name than its id by now.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
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

    /// Makes the directory with an empty layer. It is no container's before it is [defined](Self::define).
    pub(crate) fn make(&self) -> io::Result<()> {
        std::fs::create_dir(&self.0)?;
        std::fs::create_dir(self.0.join("rootfs"))?;
        std::fs::create_dir(self.upper())?;
        std::fs::create_dir(self.work())
    }

    /// Makes a container of it: the last step, and all is on disk when this returns.
    pub(crate) fn define(&self, definition: &Definition) -> io::Result<()> {
        self.write_definition(definition)?;
        self.0.parent().map_or(Ok(()), sync)
    }

    /// Replaces what it is to be, on disk when this returns.
    pub(crate) fn write_definition(&self, definition: &Definition) -> io::Result<()> {
        write(&self.0.join(DEFINITION_FILE), definition, Lasting::BeyondPower)
    }

    /// Reads what it is to be; `None` if it was never finished, so that nobody was told of it.
    pub(crate) fn definition(&self) -> io::Result<Option<Definition>> {
        read(&self.0.join(DEFINITION_FILE))
    }

    /// Reads where it stands; `None` if it was never started.
    pub(crate) fn standing(&self) -> io::Result<Option<Standing>> {
        read(&self.0.join(STATE_FILE))
    }

    /// Forgets how the last run ended, before the next.
    pub(crate) fn clear_exit_record(&self) -> io::Result<()> {
        match std::fs::remove_file(self.exit_record()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn write_standing(&self, standing: &Standing, lasting: Lasting) -> io::Result<()> {
        write(&self.0.join(STATE_FILE), standing, lasting)
    }
}

fn write<T: Serialize>(path: &Path, value: &T, lasting: Lasting) -> io::Result<()> {
    let survives = match lasting {
        Lasting::ThisBoot => Survives::Crash,
        Lasting::BeyondPower => Survives::PowerFailure,
    };
    replace(path, &serde_json::to_vec(&Versioned { version: VERSION, value })?, survives)
}

/// Writes through what was made or renamed in a directory.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Reads a file; one that is empty, as a power cut leaves what was not synced, is as good as none.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let Versioned { version, value: mut fields } =
        serde_json::from_slice::<Versioned<Map<String, Value>>>(&text).map_err(|e| bad(e.to_string()))?;
    let Some(steps) = version.checked_sub(1).and_then(|done| MIGRATIONS.get(done as usize..)) else {
        return Err(bad(format!("has version {version}, this engine knows versions 1 to {VERSION}")));
    };
    for step in steps {
        step(&mut fields);
    }
    serde_json::from_value(Value::Object(fields)).map(Some).map_err(|e| bad(e.to_string()))
}

/// 1 to 2: before, nothing was started again by itself.
fn know_restarts(fields: &mut Map<String, Value>) {
    if fields.contains_key("state") {
        fields.insert("restarts".into(), 0.into());
        fields.insert("manually_stopped".into(), false.into());
    }
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
            networks: BTreeMap::new(),
            links: Vec::new(),
            mounts: Vec::new(),
            raw_sockets: false,
            path: "sh".into(),
            args: Vec::new(),
        }
    }

    fn made(root: &Path) -> Directory {
        let directory = Directory::new(root, "c");
        directory.make().unwrap();
        assert!(directory.definition().unwrap().is_none(), "it is not finished");
        directory.define(&definition()).unwrap();
        directory
    }

    #[test]
    fn what_is_written_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = made(root.path());
        let read = directory.definition().unwrap().unwrap();
        assert_eq!((read.config, read.host_config), (definition().config, definition().host_config));
        assert_eq!(directory.standing().unwrap(), None);
        for (nanos, lasting) in [(9, Lasting::BeyondPower), (10, Lasting::ThisBoot)] {
            let state = StoredState::Running { started_at: Timestamp::from_unix_nanos(nanos) };
            let standing = Standing { state, restarts: 3, manually_stopped: true };
            directory.write_standing(&standing, lasting).unwrap();
            assert_eq!(directory.standing().unwrap(), Some(standing));
        }
    }

    #[test]
    fn an_empty_definition_is_one_that_was_never_finished() {
        let root = tempfile::tempdir().unwrap();
        let directory = made(root.path());
        std::fs::write(directory.path().join(DEFINITION_FILE), "").unwrap();
        assert!(directory.definition().unwrap().is_none());
        std::fs::remove_file(directory.path().join(DEFINITION_FILE)).unwrap();
        assert!(directory.definition().unwrap().is_none());
        std::fs::write(directory.path().join(DEFINITION_FILE), "{").unwrap();
        assert!(directory.definition().is_err(), "what cannot be understood is not thrown away");
    }

    #[test]
    fn a_newer_version_is_refused_by_the_name_of_its_file() {
        let root = tempfile::tempdir().unwrap();
        let directory = made(root.path());
        for version in [0, VERSION + 1] {
            let text = format!(r#"{{"version":{version},"state":"new"}}"#);
            std::fs::write(directory.path().join(STATE_FILE), text).unwrap();
            let refusal = directory.standing().unwrap_err().to_string();
            let file = directory.path().join(STATE_FILE);
            assert!(refusal.starts_with(&file.display().to_string()), "{refusal}");
            assert!(
                refusal.ends_with(&format!("has version {version}, this engine knows versions 1 to 2")),
                "{refusal}"
            );
        }
    }

    /// As the engine wrote them that knew no restart policies.
    #[test]
    fn version_1_is_migrated() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path(), "c");
        std::fs::create_dir(directory.path()).unwrap();
        for (name, text) in [
            (DEFINITION_FILE, include_str!("record/container-v1.json")),
            (STATE_FILE, include_str!("record/state-v1.json")),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let read = directory.definition().unwrap().unwrap();
        assert_eq!((read.name.as_str(), read.path.as_str()), ("old", "sh"));
        let standing = directory.standing().unwrap().unwrap();
        assert_eq!((standing.restarts, standing.manually_stopped), (0, false));
        assert!(matches!(standing.state, StoredState::Exited(Exited { exit_code: 3, .. })));
    }
}
