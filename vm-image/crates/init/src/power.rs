//! The end of the machine, in the order in which nothing is lost.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use rustix::system::{RebootCommand, reboot};
use tokio::time::{sleep, timeout};

use crate::children::Children;
use crate::disk;
use crate::link::Outbox;

const STEP: Duration = Duration::from_millis(10);
/// How long killed processes may take to be gone; one that hangs in the kernel never is.
const KILL_DEADLINE: Duration = Duration::from_secs(3);
/// How long the last messages may take to be on their way to the host.
const FAREWELL_DEADLINE: Duration = Duration::from_millis(500);

/// Kills whatever still runs and brings the data disk to rest.
pub(crate) async fn settle(children: &Children) -> anyhow::Result<()> {
    let gone = async {
        while children.kill_all() {
            sleep(STEP).await;
        }
    };
    if timeout(KILL_DEADLINE, gone).await.is_err() {
        tracing::warn!("some processes could not be killed");
    }
    tokio::task::spawn_blocking(disk::unmount).await.context("unmounting did not end")?
}

/// Waits until the last messages are on their way.
pub(crate) async fn farewell(outbox: &Outbox) {
    let sent = async {
        while !outbox.is_empty() {
            sleep(STEP).await;
        }
        sleep(STEP).await;
    };
    // Without a host there is nobody to say farewell to.
    let _ = timeout(FAREWELL_DEADLINE, sent).await;
}

/// Powers the machine off. Returns only if the kernel does not let it, which then panics as PID 1 ends.
pub(crate) fn off() -> ExitCode {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        tracing::error!("could not power off: {error}");
    }
    ExitCode::FAILURE
}
