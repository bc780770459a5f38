//! `GET /images/get` and `GET /images/{name}/get`: `docker save`.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{platform, tell};
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images;

/// How much is given to the client at once.
const PIECE: usize = 256 * 1024;

/// `GET /images/get?names=`: several images in one archive.
pub(crate) async fn save_all(call: Call) -> Result<Reply, ApiError> {
    let names = call.form.all("names");
    save(call, names).await
}

/// `GET /images/{name}/get`.
pub(crate) async fn save_one(call: Call) -> Result<Reply, ApiError> {
    let names = vec![call.name.clone()];
    save(call, names).await
}

async fn save(call: Call, names: Vec<String>) -> Result<Reply, ApiError> {
    let platform = platform::only_one_asked(&call, 48)?;
    let engine = call.engine;
    let store = engine.images.clone();
    let found = tokio::task::spawn_blocking(move || store.saving(&names, platform.as_ref()));
    let saving = found.await?.map_err(|e| images::error(&e))?;
    Ok(reply::stream("application/x-tar", |to| async move {
        let work = move || {
            let mut out = io::BufWriter::with_capacity(PIECE, Chunks(to));
            match saving.write(&mut out) {
                Ok(()) => {
                    for id in saving.images() {
                        tell(&engine, "save", &id.to_string(), &id.to_string());
                    }
                }
                // The archive ends in the middle, which whoever reads it sees.
                Err(error) => {
                    tracing::warn!(error = %crate::error::chain(&error), "images were not saved whole")
                }
            }
        };
        // A panic in there ends the stream, which the client sees.
        let _ = tokio::task::spawn_blocking(work).await;
    }))
}

/// Gives a client what is written.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
