//! What went wrong, in dockerd's words.

use std::io;
use std::path::PathBuf;

/// The classes of errors that callers can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such volume or driver.
    NotFound,
    /// What was asked for cannot be.
    Invalid,
    /// It is in use, or its name is taken.
    Conflict,
    /// The disk or the kernel failed.
    Internal,
}

/// Why something was not done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// One letter is too short for a name.
    #[error("create {0}: volume name is too short, names should be at least two alphanumeric characters")]
    NameTooShort(String),
    /// A name with other letters.
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    BadName(String),
    /// There are no drivers but `local`.
    #[error("create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found")]
    NoDriver {
        /// The volume that was to be made.
        name: String,
        /// The driver that is not there.
        driver: String,
    },
    /// An option that the driver does not have.
    #[error("create {name}: invalid option: {option:?}")]
    UnknownOption {
        /// The volume that was to be made.
        name: String,
        /// The option.
        option: String,
    },
    /// An option that needs another.
    #[error("create {name}: missing required option: {option:?}")]
    MissingOption {
        /// The volume that was to be made.
        name: String,
        /// The option that is not there.
        option: &'static str,
    },
    /// An option whose value cannot be.
    #[error("create {name}: {why}")]
    BadOption {
        /// The volume that was to be made.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Containers hold it.
    #[error("remove {name}: volume is in use - [{}]", holders.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// The containers' ids.
        holders: Vec<String>,
    },
    /// Its device could not be mounted.
    #[error(
        "error while mounting volume '{path}': failed to mount local volume: mount {device}:{path}{how}: {}",
        go(reason)
    )]
    Mount {
        /// Where it was to be mounted.
        path: String,
        /// What was to be mounted.
        device: String,
        /// With which flags and options, without passwords.
        how: String,
        /// Why it failed. It is no source, because the text has it, and has to end with it.
        reason: io::Error,
    },
    /// The server of its device has no address.
    #[error("error while mounting volume '{path}': error resolving passed in network volume address: {why}")]
    Unresolved {
        /// Where it was to be mounted.
        path: String,
        /// What the resolver said.
        why: String,
    },
    /// It has a size, and its file system has no quotas any more.
    #[error("error while mounting volume '{path}': size quota requested for volume but no quota support")]
    NoQuota {
        /// Where its files are.
        path: String,
    },
    /// It could not be held to its size.
    #[error("error while mounting volume '{path}': failed to {action} {path}: {}", go(reason))]
    Quota {
        /// Where its files are.
        path: String,
        /// What was tried.
        action: String,
        /// Why it failed, as in [`Mount`](Self::Mount).
        reason: io::Error,
    },
    /// The disk failed.
    #[error("could not {action} {path}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The system's reason as Go programs spell it.
fn go(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

impl VolumeError {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoDriver { .. } => ErrorKind::NotFound,
            Self::NameTooShort(_)
            | Self::BadName(_)
            | Self::UnknownOption { .. }
            | Self::MissingOption { .. }
            | Self::BadOption { .. } => ErrorKind::Invalid,
            Self::InUse { .. } => ErrorKind::Conflict,
            Self::Mount { .. }
            | Self::Unresolved { .. }
            | Self::NoQuota { .. }
            | Self::Quota { .. }
            | Self::Disk { .. } => ErrorKind::Internal,
        }
    }
}

/// Gives an `io::Result` the action and the path that it was about.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, VolumeError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, VolumeError> {
        self.map_err(|source| VolumeError::Disk { action, path: path.to_owned(), source })
    }
}

/// Why the volumes could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A volume was written by a newer engine.
    #[error(
        "{path} has format {found}, newer than the {known} that this engine knows: use the newer version that wrote it"
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] VolumeError),
}
