//! The host daemon, as seen from here.

use caisson_app_api::{ApiError, Client, connect_or_start};
use caisson_os::{Dirs, DirsError};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// Where the daemon is, and how it is started when somebody wants something of it.
pub(crate) struct Daemon {
    dirs: Dirs,
    /// Whether this window has had a daemon.
    met: AtomicBool,
    /// Held while one is started, so that ten calls start one.
    starting: Mutex<()>,
}

impl Daemon {
    pub(crate) fn of_user() -> Result<Self, DirsError> {
        Ok(Self { dirs: Dirs::of_user()?, met: AtomicBool::new(false), starting: Mutex::new(()) })
    }

    /// A client of the daemon, for something that the user asked for: a daemon that does not run is started.
    pub(crate) async fn wanted(&self) -> Result<Client, ApiError> {
        let _one_at_a_time = self.starting.lock().await;
        let client = connect_or_start(&self.dirs).await?;
        self.met.store(true, Ordering::Relaxed);
        Ok(client)
    }

    /// A client of the daemon, for following it: started for a window that never had one, but a daemon that was ended
    /// since then is not brought back behind the user's back.
    pub(crate) async fn followed(&self) -> Result<Client, ApiError> {
        if self.met.load(Ordering::Relaxed) { Ok(self.if_running()) } else { self.wanted().await }
    }

    /// A client of the daemon that runs, if one does.
    pub(crate) fn if_running(&self) -> Client {
        Client::new(self.dirs.daemon_endpoint().path())
    }
}
