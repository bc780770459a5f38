//! A table that somebody else takes away, as tools do which load a system's own rules: it is there again at once. Without them
//! networks are not apart, and loopback addresses, where they are routed, are open to containers.

use std::io;
use std::sync::Weak;
use std::time::Duration;

use caisson_nftables::Changes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::networks::{Shared, blocking};

/// Those who change rules often are not followed step by step.
const REST: Duration = Duration::from_millis(50);

/// Watches for as long as there are networks.
pub(crate) async fn keep(shared: Weak<Shared>) {
    if let Err(error) = follow(&shared).await {
        warn!(%error, "rules that somebody else takes away are there again with the next change only");
    }
}

async fn follow(shared: &Weak<Shared>) -> io::Result<()> {
    let changes = watched(Changes::open()?)?;
    loop {
        let mut ready = changes.readable().await?;
        changes.get_ref().take();
        ready.clear_ready();
        let Some(shared) = shared.upgrade() else { return Ok(()) };
        blocking(move || shared.keep_rules()).await;
        tokio::time::sleep(REST).await;
    }
}

#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
fn watched(changes: Changes) -> io::Result<AsyncFd<Changes>> {
    // SAFETY: a Changes has one socket, which is open until it is dropped, and only the AsyncFd can drop it.
    Ok(unsafe { AsyncFd::register_with_interest(changes, Interest::READABLE) }?)
}
