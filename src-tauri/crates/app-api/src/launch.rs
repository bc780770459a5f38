//! Getting a daemon: the one that runs, or a new one.
//!
//! A new daemon says [`READY`] on its standard output once its sockets listen, so nobody has to try again and again; what
//! it says on standard error before that is why it could not.

use crate::{ApiError, Client, ErrorCode};
use caisson_os::{Dirs, spawn_detached};
use std::{
    env,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};

/// The line with which a new daemon says that it can be talked to.
pub const READY: &str = "ready";

/// How long a new daemon may take to say so: it may have to wait for its predecessor to end.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// A client of the daemon that runs, or else of a new one, which outlives this process and its terminal.
///
/// The daemon's program is looked for beside this one.
pub async fn connect_or_start(dirs: &Dirs) -> Result<Client, ApiError> {
    let client = Client::new(dirs.daemon_endpoint().path());
    match client.check().await {
        Err(error) if error.code == ErrorCode::DaemonNotRunning => {}
        known => return known.map(|()| client),
    }
    match start().await {
        Ok(()) => Ok(client),
        // Somebody else may have started one at the same moment; then ours gave way.
        Err(error) => client.check().await.map(|()| client).map_err(|_| error),
    }
}

async fn start() -> Result<(), ApiError> {
    let program = program().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "cannot tell where this program is").with_detail(error.to_string())
    })?;
    let failed = |error: io::Error| {
        ApiError::new(ErrorCode::DaemonNotRunning, format!("cannot start {}", program.display()))
            .with_detail(error.to_string())
    };
    let child = spawn(&program).map_err(failed)?;
    match timeout(READY_LIMIT, spawn_blocking(|| wait_until_ready(child))).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(ApiError::from_error(ErrorCode::Internal, &error)),
        Err(_) => Err(not_ready(&format!("it did nothing for {} s", READY_LIMIT.as_secs()))),
    }
}

fn program() -> io::Result<PathBuf> {
    let name = format!("caisson-host{}", env::consts::EXE_SUFFIX);
    Ok(caisson_os::program()?.with_file_name(name))
}

fn spawn(program: &PathBuf) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("--detached").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn_detached(&mut command)
}

/// Ends when the daemon is ready or gone.
fn wait_until_ready(mut child: Child) -> Result<(), ApiError> {
    let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(not_ready("it has no output"));
    };
    let mut line = String::new();
    // Output that cannot be read is output that ended: the daemon is gone, and its errors say why.
    let _ = BufReader::new(output).read_line(&mut line);
    if line.trim_end() == READY {
        // Should it end before this process does, somebody must take note, or it stays as a zombie.
        thread::spawn(move || drop(child.wait()));
        return Ok(());
    }
    let mut text = String::new();
    let _ = errors.read_to_string(&mut text);
    Err(not_ready(text.trim().strip_prefix("error: ").unwrap_or(text.trim())))
}

fn not_ready(why: &str) -> ApiError {
    ApiError::new(ErrorCode::DaemonNotRunning, "the host daemon did not start").with_detail(why)
}
