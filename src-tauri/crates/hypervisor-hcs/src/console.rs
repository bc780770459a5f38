//! The guest's console: a named pipe that Hyper-V writes to, copied to a file.

use std::io::{self, Write};
use std::path::Path;

use caisson_hypervisor::console::BoundedLog;
use caisson_hypervisor::{LaunchError, VmState};
use tokio::io::AsyncReadExt;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::sync::watch;
use tracing::warn;

/// The most that a log holds: a boot says some 100 KiB, and a guest may say anything for as long as it likes.
const LOG_BYTES: u64 = 16 << 20;
/// The most that is copied at once.
const BUFFER: usize = 16 << 10;

/// Waits for the machine at `pipe` and writes what it says to `log`; the log before it goes aside, as `FILE.1`.
///
/// Ends when the machine closes the pipe, or if it never came: when its `state` says that it ended or says no more.
pub(crate) fn record(pipe: &str, log: &Path, state: watch::Receiver<VmState>) -> Result<(), LaunchError> {
    let file = |action, path: &Path, source| LaunchError::File { action, path: path.to_owned(), source };
    let written =
        BoundedLog::begin(log, LOG_BYTES).map_err(|source| file("start the console log", log, source))?;
    let server = ServerOptions::new()
        .first_pipe_instance(true)
        .create(pipe)
        .map_err(|source| file("make the console's pipe", Path::new(pipe), source))?;
    tokio::spawn(async move {
        if let Err(error) = copy(server, written, state).await {
            warn!(%error, "the console's output is lost from here on");
        }
    });
    Ok(())
}

async fn copy(
    mut server: NamedPipeServer,
    mut log: BoundedLog,
    mut state: watch::Receiver<VmState>,
) -> io::Result<()> {
    tokio::select! {
        connected = server.connect() => connected?,
        _ = state.wait_for(|state| matches!(state, VmState::Ended(_))) => return Ok(()),
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        match server.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            // Small writes to a local file, as the daemon's own log makes them: not worth a thread.
            Ok(count) => log.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
