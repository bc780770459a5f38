//! The guest's console: a named pipe that Hyper-V writes to, copied to a file.

use std::io::{self, Write};
use std::path::Path;

use caisson_hypervisor::console::{self, BoundedLog};
use caisson_hypervisor::{LaunchError, VmState};
use tokio::io::AsyncReadExt;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::sync::watch;
use tracing::warn;

/// The most that is copied at once.
const BUFFER: usize = 16 << 10;

/// Waits for the machine at `pipe` and writes what it says to `log`; the log before it goes aside, as `FILE.1`.
///
/// Ends when the machine closes the pipe, or if it never came: when its `state` says that it ended or says no more.
pub(crate) fn record(pipe: &str, log: &Path, state: watch::Receiver<VmState>) -> Result<(), LaunchError> {
    let written = console::begin(log)?;
    let server = ServerOptions::new().first_pipe_instance(true).create(pipe).map_err(|source| {
        LaunchError::File { action: "make the console's pipe", path: pipe.into(), source }
    })?;
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
