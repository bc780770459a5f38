//! Named pipes.

use std::{io, path::Path, time::Duration};
use tokio::{
    net::windows::named_pipe::{ClientOptions, NamedPipeClient},
    time::{Instant, sleep},
};

pub(crate) type LocalStream = NamedPipeClient;

/// `ERROR_PIPE_BUSY`: the pipe is there, the server has not yet put up its next instance.
const PIPE_BUSY: i32 = 231;
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Connects to the pipe called `endpoint`, waiting for the server's next instance if need be.
pub(crate) async fn connect(endpoint: &Path) -> io::Result<LocalStream> {
    let give_up_at = Instant::now() + BUSY_LIMIT;
    loop {
        match ClientOptions::new().open(endpoint) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) && Instant::now() < give_up_at => {
                sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
}
