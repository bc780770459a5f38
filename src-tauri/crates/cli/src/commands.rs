//! What each command does.

use crate::{
    args::{Args, Command},
    logs, progress, report,
};
use caisson_app_api::{
    ApiError, Client, ErrorCode, MachineState, MachineStatus, PortForwardStatus, Version, connect_or_start,
};
use caisson_os::{Dirs, DockerContexts, LockError, ProcessLock};
use serde::Serialize;
use std::{future::Future, process::ExitCode, time::Duration};
use tokio::time::{sleep, timeout};

/// What `status` ends with when the machine is not running, as `systemctl status` does.
const NOT_RUNNING: u8 = 3;

/// How long a daemon may take to be gone, which may have begun to end before its machine does.
const DAEMON_END_LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(10);

/// Does what the command line says.
pub(crate) async fn run(args: Args) -> Result<ExitCode, ApiError> {
    let dirs = Dirs::of_user().map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))?;
    let json = args.json;
    match args.command {
        Command::Start { use_context } => start(&dirs, use_context, json).await,
        Command::Stop { machine_only } => stop(&dirs, machine_only, json).await,
        Command::Restart => restart(&dirs, json).await,
        Command::Status => status(&dirs, json).await,
        Command::Logs { daemon, follow, tail } => {
            let path = if daemon { dirs.daemon_log() } else { dirs.console_log() };
            logs::print(&path, tail, follow, json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Ports => ports(&dirs, json).await,
        Command::Version => version(&dirs, json).await,
    }
}

async fn start(dirs: &Dirs, use_context: bool, json: bool) -> Result<ExitCode, ApiError> {
    let client = daemon(dirs, json).await?;
    let started = client.machine_start();
    let status = boot(&client, started, json).await?;
    if use_context {
        put_in_use(&status)?;
    }
    report::print(json, &status, || report::status(Some(&status)));
    Ok(ExitCode::SUCCESS)
}

async fn restart(dirs: &Dirs, json: bool) -> Result<ExitCode, ApiError> {
    let client = daemon(dirs, json).await?;
    let restarted = client.machine_restart();
    let status = boot(&client, restarted, json).await?;
    report::print(json, &status, || report::status(Some(&status)));
    Ok(ExitCode::SUCCESS)
}

/// The daemon that runs, or a new one, which waits for one that is ending.
async fn daemon(dirs: &Dirs, json: bool) -> Result<Client, ApiError> {
    let known = Client::new(dirs.daemon_endpoint().path()).check().await;
    if !json
        && known.is_err_and(|error| error.code == ErrorCode::DaemonNotRunning)
        && let Some(daemon) = out_of_reach(dirs)
    {
        report::say(&format!("Waiting for {daemon}, which does not answer, to end."));
    }
    connect_or_start(dirs).await
}

/// A daemon that lives and cannot be talked to: it is ending, or its sockets are where this login does not look.
fn out_of_reach(dirs: &Dirs) -> Option<String> {
    match ProcessLock::acquire(&dirs.daemon_lock()) {
        Err(LockError::Held { owner, .. }) => {
            let process = owner.map_or(String::new(), |pid| format!(" (process {pid})"));
            Some(format!("the host daemon{process}"))
        }
        Ok(_) | Err(LockError::File(..)) => None,
    }
}

/// Waits for `done`, showing how the boot goes; a boot that failed is told with all that the status knows of it.
async fn boot(
    client: &Client,
    done: impl Future<Output = Result<MachineStatus, ApiError>>,
    json: bool,
) -> Result<MachineStatus, ApiError> {
    let outcome = if json { done.await } else { progress::show(client, done).await };
    match outcome {
        Err(error) if error.code == ErrorCode::MachineFailed && !json => {
            let status = client.machine_status().await?;
            Err(report::with_failure(error, &status))
        }
        outcome => outcome,
    }
}

fn put_in_use(status: &MachineStatus) -> Result<(), ApiError> {
    DockerContexts::of_user()
        .and_then(|contexts| contexts.set_current(&status.docker_context))
        .map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))
}

async fn stop(dirs: &Dirs, machine_only: bool, json: bool) -> Result<ExitCode, ApiError> {
    let client = Client::new(dirs.daemon_endpoint().path());
    let stopped = if machine_only { client.machine_stop().await.map(drop) } else { client.shutdown().await };
    let text = match stopped {
        Ok(()) if machine_only => "The machine is off.",
        Ok(()) => {
            wait_until_gone(dirs).await?;
            "The machine is off and the host daemon has ended."
        }
        Err(error) if error.code == ErrorCode::DaemonNotRunning => {
            // One that hung up is ending, maybe because somebody else asked first.
            if !machine_only {
                wait_until_gone(dirs).await?;
            }
            "Nothing to stop: the host daemon is not running."
        }
        Err(error) => return Err(error),
    };
    if json {
        status(dirs, json).await?;
    } else {
        report::say(text);
    }
    Ok(ExitCode::SUCCESS)
}

/// A daemon holds its lock to its last breath.
async fn wait_until_gone(dirs: &Dirs) -> Result<(), ApiError> {
    let gone = async {
        while let Err(LockError::Held { .. }) = ProcessLock::acquire(&dirs.daemon_lock()) {
            sleep(PAUSE).await;
        }
    };
    timeout(DAEMON_END_LIMIT, gone).await.map_err(|_| {
        let text = format!("the host daemon did not end within {} s", DAEMON_END_LIMIT.as_secs());
        ApiError::new(ErrorCode::Internal, text).with_detail("`caisson logs --daemon` may say why")
    })
}

/// `status` in JSON: the machine's status, and whether a daemon told it.
#[derive(Serialize)]
#[serde(untagged)]
enum Status {
    Told {
        daemon_running: bool,
        #[serde(flatten)]
        machine: Box<MachineStatus>,
    },
    /// Without a daemon there is no machine, so it is certainly off.
    Off { daemon_running: bool, state: MachineState },
}

async fn status(dirs: &Dirs, json: bool) -> Result<ExitCode, ApiError> {
    let status = match Client::new(dirs.daemon_endpoint().path()).machine_status().await {
        Ok(status) => Status::Told { daemon_running: true, machine: Box::new(status) },
        Err(error) if error.code == ErrorCode::DaemonNotRunning => {
            if let Some(daemon) = out_of_reach(dirs) {
                let text = format!("{daemon} does not answer at {}", dirs.daemon_endpoint().path().display());
                return Err(ApiError::new(ErrorCode::DaemonNotRunning, text).with_detail(
                    "it is ending, or it was started where sockets lie elsewhere (XDG_RUNTIME_DIR)",
                ));
            }
            Status::Off { daemon_running: false, state: MachineState::Stopped }
        }
        Err(error) => return Err(error),
    };
    let machine = match &status {
        Status::Told { machine, .. } => Some(&**machine),
        Status::Off { .. } => None,
    };
    report::print(json, &status, || report::status_by_stage(machine));
    let running = machine.is_some_and(|status| matches!(status.state, MachineState::Running { .. }));
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
}

async fn ports(dirs: &Dirs, json: bool) -> Result<ExitCode, ApiError> {
    let ports: Vec<PortForwardStatus> = Client::new(dirs.daemon_endpoint().path()).port_list().await?;
    report::print(json, &ports, || report::ports(&ports));
    Ok(ExitCode::SUCCESS)
}

/// `version` in JSON.
#[derive(Serialize)]
struct Versions {
    /// This program's version.
    caisson: &'static str,
    /// The daemon's and the engine's, if a daemon answers.
    #[serde(flatten)]
    daemon: Option<Version>,
}

async fn version(dirs: &Dirs, json: bool) -> Result<ExitCode, ApiError> {
    let daemon = match Client::new(dirs.daemon_endpoint().path()).version().await {
        Ok(version) => Some(version),
        Err(error) if error.code == ErrorCode::DaemonNotRunning => None,
        Err(error) => return Err(error),
    };
    let versions = Versions { caisson: env!("CARGO_PKG_VERSION"), daemon };
    report::print(json, &versions, || report::versions(versions.caisson, versions.daemon.as_ref()));
    Ok(ExitCode::SUCCESS)
}
