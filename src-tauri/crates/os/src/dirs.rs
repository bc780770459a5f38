//! Where things belong on this computer.

use crate::imp;
use directories::ProjectDirs;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Where everything of one user's Caisson lies.
///
/// Nothing is made by asking; [`Dirs::prepare`] makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// What the user would miss: the data disk. Locks lie beside what they are for.
    pub data: PathBuf,
    /// What the user decided.
    pub config: PathBuf,
    /// What can be made again.
    pub cache: PathBuf,
    /// Logs.
    pub logs: PathBuf,
    /// Sockets: nothing here outlives the daemon in meaning. Private to the user.
    pub runtime: PathBuf,
}

/// Why there are no directories.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// The system does not say where this user's files are.
    #[error("this user has no home directory")]
    NoHome,
    /// One could not be made.
    #[error("cannot make the directory {}", .0.display())]
    Make(PathBuf, #[source] io::Error),
    /// One belongs to somebody else, who could swap the sockets in it.
    #[error("the directory {} belongs to another user", .0.display())]
    NotOurs(PathBuf),
}

impl Dirs {
    /// This user's, by the system's conventions and their environment variables.
    pub fn of_user() -> Result<Self, DirsError> {
        let project = ProjectDirs::from("", "", "caisson").ok_or(DirsError::NoHome)?;
        let data = project.data_local_dir().to_owned();
        Ok(Self {
            config: project.config_dir().to_owned(),
            cache: project.cache_dir().to_owned(),
            logs: imp::logs_dir(&project),
            runtime: imp::runtime_dir(&project),
            data,
        })
    }

    /// Makes those that are missing, for this user alone, and makes sure that nobody else owns the runtime directory.
    pub fn prepare(&self) -> Result<(), DirsError> {
        for dir in [&self.data, &self.config, &self.cache, &self.logs, &self.runtime] {
            imp::make_private(dir).map_err(|error| DirsError::Make(dir.clone(), error))?;
        }
        imp::is_private(&self.runtime)
            .map_err(|error| DirsError::Make(self.runtime.clone(), error))?
            .then_some(())
            .ok_or_else(|| DirsError::NotOurs(self.runtime.clone()))
    }

    /// Where Docker clients find the engine.
    pub fn docker_endpoint(&self) -> Endpoint {
        imp::docker_endpoint(&self.runtime)
    }

    /// Where the window and the CLI find the host daemon.
    pub fn daemon_endpoint(&self) -> Endpoint {
        imp::daemon_endpoint(&self.runtime)
    }

    /// The file that a living daemon holds locked. Not in the runtime directory, which systems remove when the user logs out.
    pub fn daemon_lock(&self) -> PathBuf {
        self.data.join("caisson-host.lock")
    }

    /// The host daemon's log; the one before it has `.1` at the end.
    pub fn daemon_log(&self) -> PathBuf {
        self.logs.join("caisson-host.log")
    }

    /// The log of the machine's console.
    pub fn console_log(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// The image of the machine's data disk.
    pub fn data_disk(&self) -> PathBuf {
        self.data.join("machine").join("data.raw")
    }
}

/// A local endpoint: the path of a unix socket, or the name of a Windows pipe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The endpoint at a socket's path or with a pipe's name (`\\.\pipe\…`).
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path or pipe name to open.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// As `DOCKER_HOST` takes it: `unix:///run/…`, `npipe:////./pipe/…`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&imp::docker_host(&self.0))
    }
}
