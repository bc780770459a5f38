//! The local socket that the window and the CLI come to.

use crate::host::Caisson;
use caisson_forward::{Listener, serve_each};
use std::sync::Arc;

/// The most connections at once: a window has some, and each command one.
const MAX_CLIENTS: usize = 256;

/// Serves clients until dropped; they end with it.
pub(crate) async fn serve(listener: Listener, host: Arc<Caisson>) {
    let serve = |client| {
        let host = host.clone();
        async move { caisson_app_api::serve(&*host, client).await }
    };
    serve_each(listener, MAX_CLIENTS, "the window and commands", serve).await;
}
