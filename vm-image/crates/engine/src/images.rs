//! Images as the engine uses them: errors in the engine's terms, and a client's body as the store reads it.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use caisson_images::registry::RegistryError;
use caisson_images::{Classified, ErrorKind as ImageErrorKind};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::error::{ApiError, ErrorKind, chain};
use crate::http::call::next_chunk;

/// An error of the image store, for a client.
pub(crate) fn error(error: &impl Classified) -> ApiError {
    let kind = match error.kind() {
        ImageErrorKind::NotFound => ErrorKind::NotFound,
        ImageErrorKind::Unauthorized => ErrorKind::Unauthorized,
        ImageErrorKind::Forbidden => ErrorKind::Forbidden,
        ImageErrorKind::TooManyRequests => ErrorKind::TooManyRequests,
        ImageErrorKind::Conflict => ErrorKind::Conflict,
        ImageErrorKind::Invalid => ErrorKind::InvalidParameter,
        ImageErrorKind::Internal => ErrorKind::Internal,
    };
    ApiError::new(kind, chain(error))
}

/// An error of a login. What a registry refuses is the client's affair, all else is nobody's.
pub(crate) fn login_error(error: &RegistryError) -> ApiError {
    match error.kind() {
        ImageErrorKind::Unauthorized => ApiError::new(ErrorKind::Unauthorized, chain(error)),
        _ => ApiError::internal(chain(error)),
    }
}

/// A body that is read by a blocking thread. A body that breaks off is an error, not an end.
pub(crate) struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Reads ahead of whoever reads this, a few chunks at most.
    pub(crate) fn new(mut body: Incoming) -> Self {
        let (sender, chunks) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(chunk) = next_chunk(&mut body).await.transpose() {
                let failed = chunk.is_err();
                if sender.send(chunk.map_err(io::Error::other)).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { chunks, current: Bytes::new() }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
