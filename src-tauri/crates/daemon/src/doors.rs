//! The local socket that the window and the CLI come to.

use crate::host::Caisson;
use caisson_forward::Listener;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tracing::warn;

/// What a failed listener waits before it tries again: it is out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most connections at once: a window has some, and each command one.
const MAX_CLIENTS: usize = 256;

/// Serves clients until dropped; they end with it.
pub(crate) async fn serve(mut listener: Listener, host: Arc<Caisson>) {
    let mut clients = JoinSet::new();
    loop {
        if clients.len() >= MAX_CLIENTS {
            clients.join_next().await;
        }
        match listener.accept().await {
            Ok(client) => {
                let host = host.clone();
                clients.spawn(async move { caisson_app_api::serve(&*host, client).await });
            }
            Err(error) => {
                warn!(%error, "cannot take a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}
