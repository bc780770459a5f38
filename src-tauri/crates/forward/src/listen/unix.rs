//! A unix socket, 0600, in a directory that is the user's own.
//!
//! Where the system removes that directory with the user's last login (logind, `KillUserProcesses=no`), a daemon lives on and its socket
//! does not. It is made anew once there is a place for it again.

use super::BindError;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// A client. `shutdown()` is a half-close.
pub type Connection = UnixStream;

/// `sun_path` of macOS, with its closing zero; Linux has 108.
const SUN_PATH_BYTES: usize = 104;
/// How often a listener looks whether its socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    pub(crate) async fn bind(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().len() >= SUN_PATH_BYTES {
            return Err(BindError::PathTooLong { path: path.to_owned(), limit: SUN_PATH_BYTES - 1 });
        }
        remove_stale(path).await?;
        Self::bind_fresh(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(path.to_owned()),
            _ => BindError::Io(path.to_owned(), error),
        })
    }

    fn bind_fresh(path: &Path) -> io::Result<Self> {
        let (listener, inode) = fresh(path)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                () = sleep(LOOK_EVERY) => self.come_back(),
            }
        }
    }

    /// Listens anew if the socket is gone, and its directory may be made.
    fn come_back(&mut self) {
        let gone = fs::symlink_metadata(&self.path);
        if !gone.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return;
        }
        if let Some(parent) = self.path.parent() {
            // Only this one: what is above it is the system's to make. That it is there already is as good.
            let _ = fs::DirBuilder::new().mode(0o700).create(parent);
        }
        if let Ok((listener, inode)) = fresh(&self.path) {
            tracing::info!(socket = %self.path.display(), "the socket was gone and is back");
            // Not all of it at once: the new socket may have the old one's number, and the old one's end would remove it.
            (self.listener, self.inode) = (listener, inode);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if still_ours {
            // If it stays, it is stale, and the next listener knows what to do with that.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket where nothing is, and its number.
fn fresh(path: &Path) -> io::Result<(UnixListener, u64)> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, fs::symlink_metadata(path)?.ino()))
}

/// Removes the socket of a program that is gone: one that refuses connections.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |error| BindError::Io(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
    }
}

/// The client's side, for tests of what is served.
#[cfg(test)]
pub(crate) mod testing {
    use caisson_os::Endpoint;
    use std::path::Path;
    use tokio::net::UnixStream;

    /// An endpoint that no other test has.
    pub(crate) fn endpoint(dir: &Path) -> Endpoint {
        Endpoint::new(dir.join("docker.sock"))
    }

    pub(crate) async fn connect(to: &Endpoint) -> UnixStream {
        UnixStream::connect(to.path()).await.unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caisson_os::Endpoint;

    async fn bind(path: &Path) -> Result<crate::Listener, BindError> {
        crate::Listener::bind(&Endpoint::new(path)).await
    }

    #[tokio::test]
    async fn a_living_socket_is_not_taken_and_a_dead_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let first = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind, as a killed process does");
        bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let _listener = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_was_removed_with_its_directory_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let path = run.join("docker.sock");
        let mut listener = bind(&path).await.unwrap();
        let accepted = tokio::spawn(async move { listener.accept().await });
        fs::remove_dir_all(&run).unwrap();
        while UnixStream::connect(&path).await.is_err() {
            sleep(LOOK_EVERY).await;
        }
        accepted.await.unwrap().unwrap();
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named_with_the_limit() {
        let path = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = bind(&path).await.unwrap_err();
        assert!(error.to_string().ends_with("has 201 bytes, and a socket's may have 103"), "{error}");
    }
}
