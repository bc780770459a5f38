//! The local socket that the window and the CLI come to.

use crate::host::Caisson;
use caisson_forward::{Listener, serve_each_in};
use std::sync::Arc;
use tokio::{sync::Notify, task::JoinSet};

/// The most connections at once: a window has some, and each command one.
const MAX_CLIENTS: usize = 256;

/// Serves clients until dropped; they end with it. Once it is `closing`, those who are there stay, and others find a daemon that ends: they
/// wait for the next one.
pub(crate) async fn serve(listener: Listener, host: Arc<Caisson>, closing: Arc<Notify>) {
    let serve = |client| {
        let host = host.clone();
        async move { caisson_app_api::serve(&*host, client).await }
    };
    let mut served = JoinSet::new();
    tokio::select! {
        () = serve_each_in(&mut served, listener, MAX_CLIENTS, "the window and commands", serve) => {}
        () = closing.notified() => {}
    }
    while served.join_next().await.is_some() {}
}
