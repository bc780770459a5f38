//! One daemon a user.

use anyhow::{Context, bail};
use caisson_app_api::Client;
use caisson_os::{Dirs, LockError, ProcessLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a predecessor may take to end: longer than its machine may take to stop.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(20);

/// Makes this process the daemon, or says which one is. One that holds the lock but no longer answers is ending (or has yet
/// to begin), and is waited for.
pub(crate) async fn become_the_daemon(dirs: &Dirs) -> anyhow::Result<ProcessLock> {
    let give_up_at = Instant::now() + PREDECESSOR_LIMIT;
    let client = Client::new(dirs.daemon_endpoint().path());
    loop {
        match ProcessLock::acquire(&dirs.daemon_lock()) {
            Ok(lock) => return Ok(lock),
            Err(error @ LockError::File(..)) => return Err(error).context("cannot become the host daemon"),
            Err(LockError::Held { owner, .. }) => {
                let who = owner.map_or(String::new(), |pid| format!(" (process {pid})"));
                if client.check().await.is_ok() {
                    bail!("caisson-host is running already{who}");
                }
                if Instant::now() > give_up_at {
                    bail!(
                        "another caisson-host{who} holds {} but does not answer",
                        dirs.daemon_lock().display()
                    );
                }
            }
        }
        sleep(PAUSE).await;
    }
}
