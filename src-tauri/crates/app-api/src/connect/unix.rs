//! Unix sockets.

use std::{io, path::Path};

pub(crate) type LocalStream = tokio::net::UnixStream;

/// Connects to the socket at `endpoint`.
pub(crate) async fn connect(endpoint: &Path) -> io::Result<LocalStream> {
    LocalStream::connect(endpoint).await
}
