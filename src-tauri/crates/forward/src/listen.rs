//! Local listeners: a unix socket, or a named pipe on Windows.

#[cfg_attr(unix, path = "listen/unix.rs")]
#[cfg_attr(windows, path = "listen/windows.rs")]
mod imp;

use caisson_os::Endpoint;
use std::{io, path::PathBuf};

pub use imp::Connection;
#[cfg(test)]
pub(crate) use imp::testing;

/// Why a local endpoint cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program answers there, and lives.
    #[error("another program answers at {}", .0.display())]
    InUse(PathBuf),
    /// Something is there that is no socket, and that is not ours to remove.
    #[error("{} is in the way and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system cannot name a socket by so long a path.
    #[error("the path {} has {} bytes, and a socket's may have {limit}", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// The most bytes that it may have.
        limit: usize,
    },
    /// Anything else.
    #[error("cannot listen at {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Listens where local clients look. Only this user gets in.
#[derive(Debug)]
pub struct Listener(imp::Listener);

impl Listener {
    /// Begins to listen. What a dead program left at the endpoint is replaced; a living one is never pushed aside.
    pub async fn bind(at: &Endpoint) -> Result<Self, BindError> {
        imp::Listener::bind(at.path()).await.map(Self)
    }

    /// The next client. A socket that somebody removed meanwhile is made anew.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        self.0.accept().await
    }
}
