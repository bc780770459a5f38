//! The guest's console: a named pipe that Hyper-V writes to, copied to a file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use caisson_hypervisor::LaunchError;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tracing::warn;

/// Waits for the machine at `pipe` and writes what it says to `log`; the log before it goes aside, as `FILE.1`.
///
/// Ends when the machine closes the pipe.
pub(crate) fn record(pipe: &str, log: &Path) -> Result<(), LaunchError> {
    let file = |action, source| LaunchError::File { action, path: log.to_owned(), source };
    rotate(log).map_err(|error| file("start the console log", error))?;
    let server = ServerOptions::new().first_pipe_instance(true).create(pipe).map_err(|source| {
        LaunchError::File { action: "make the console's pipe", path: pipe.into(), source }
    })?;
    let log = log.to_owned();
    tokio::spawn(async move {
        if let Err(error) = copy(server, log).await {
            warn!(%error, "the console's output is lost from here on");
        }
    });
    Ok(())
}

fn rotate(log: &Path) -> io::Result<()> {
    let mut before = OsString::from(log);
    before.push(".1");
    match std::fs::rename(log, before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::File::create(log).map(drop),
    }
}

async fn copy(mut server: NamedPipeServer, log: PathBuf) -> io::Result<()> {
    server.connect().await?;
    let mut log = tokio::fs::OpenOptions::new().append(true).open(log).await?;
    match tokio::io::copy(&mut server, &mut log).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map(drop),
    }
}
