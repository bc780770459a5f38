//! How a message becomes bytes: its length as a little-endian `u32`, then that many bytes of JSON.
//!
//! A length over [`MAX_FRAME`] is refused before anything is allocated for it, so a confused or hostile peer costs
//! nothing. Two ways to read: [`read_frame`] takes exactly one frame and not a byte more, for streams that turn raw
//! afterwards (RELAY); [`FrameReader`] may be dropped in the middle of a wait, for loops that `select!`.
//! Code without an async runtime uses [`encode`], [`body_len`] and [`decode`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest body of a frame, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// The length of a frame's header, in bytes.
pub const HEADER: usize = 4;

/// Why a frame could not be read or written. The stream cannot be used further after any of these.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] std::io::Error),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// A frame's body is not the message that was expected.
    #[error("a frame is not the expected message")]
    Malformed(#[source] serde_json::Error),
    /// The message has no JSON form.
    #[error("a message cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// The bytes of one frame, header included.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Unwritable)?;
    let body = bytes.len() - HEADER;
    let header = u32::try_from(body).ok().filter(|_| body <= MAX_FRAME).ok_or(FrameError::TooLong(body))?;
    bytes[..HEADER].copy_from_slice(&header.to_le_bytes());
    Ok(bytes)
}

/// The length of the body that follows this header, if it is within [`MAX_FRAME`].
pub fn body_len(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let announced = u32::from_le_bytes(header);
    match usize::try_from(announced) {
        Ok(len) if len <= MAX_FRAME => Ok(len),
        Ok(len) => Err(FrameError::TooLong(len)),
        Err(_) => Err(FrameError::TooLong(usize::MAX)),
    }
}

/// The message of a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Malformed)
}

/// Writes one frame and flushes it.
pub async fn write_frame<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?).await?;
    Ok(stream.flush().await?)
}

/// Reads one frame and not a byte more; `None` when the stream ended before it began.
///
/// Not to be dropped while it waits: bytes that were read would be lost. See [`FrameReader`].
pub async fn read_frame<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let first = stream.read(&mut header).await?;
    if first == 0 {
        return Ok(None);
    }
    read_rest(stream, &mut header[first..]).await?;
    let mut body = vec![0; body_len(header)?];
    read_rest(stream, &mut body).await?;
    decode(&body).map(Some)
}

async fn read_rest(stream: &mut (impl AsyncRead + Unpin), part: &mut [u8]) -> Result<(), FrameError> {
    match stream.read_exact(part).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(error) => Err(error.into()),
    }
}

/// Reads frame after frame; [`next`](Self::next) may be dropped while it waits, without loss.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffered: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that owns its side of the stream: it may read ahead.
    pub fn new(stream: R) -> Self {
        Self { stream, buffered: Vec::new() }
    }

    /// The next message; `None` when the stream ended between two frames.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(message) = self.take_buffered()? {
                return Ok(Some(message));
            }
            if self.stream.read_buf(&mut self.buffered).await? == 0 {
                return if self.buffered.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    fn take_buffered<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(header) = self.buffered.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let end = HEADER + body_len(*header)?;
        let Some(body) = self.buffered.get(HEADER..end) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.buffered.drain(..end);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{FromGuest, ToGuest};

    fn log(line: &str) -> FromGuest {
        FromGuest::Log { line: line.into() }
    }

    #[tokio::test]
    async fn messages_round_trip_and_the_bytes_after_a_frame_are_left() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let sent = ToGuest::Ping { n: u64::MAX };
        write_frame(&mut near, &sent).await.unwrap();
        near.write_all(b"raw").await.unwrap();
        drop(near);
        assert_eq!(read_frame::<ToGuest>(&mut far).await.unwrap(), Some(sent));
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"raw");
        assert!(read_frame::<ToGuest>(&mut far).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_without_waiting_for_the_body() {
        for announced in [MAX_FRAME as u32 + 1, u32::MAX] {
            let bytes = announced.to_le_bytes();
            let exact = read_frame::<FromGuest>(&mut &bytes[..]).await;
            assert!(matches!(exact, Err(FrameError::TooLong(len)) if len == announced as usize));
            let ahead = FrameReader::new(&bytes[..]).next::<FromGuest>().await;
            assert!(matches!(ahead, Err(FrameError::TooLong(_))));
        }
        assert_eq!(body_len((MAX_FRAME as u32).to_le_bytes()).unwrap(), MAX_FRAME);
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let overhead = encode(&log("")).unwrap().len() - HEADER;
        let longest = "x".repeat(MAX_FRAME - overhead);
        assert_eq!(encode(&log(&longest)).unwrap().len(), HEADER + MAX_FRAME);
        assert!(matches!(encode(&log(&(longest + "x"))), Err(FrameError::TooLong(_))));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_an_error_at_every_byte() {
        let whole = encode(&log("hi")).unwrap();
        for cut in 1..whole.len() {
            let mut part = &whole[..cut];
            assert!(matches!(read_frame::<FromGuest>(&mut part).await, Err(FrameError::Truncated)), "{cut}");
            let ahead = FrameReader::new(&whole[..cut]).next::<FromGuest>().await;
            assert!(matches!(ahead, Err(FrameError::Truncated)), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_no_message_is_malformed() {
        for body in ["", "{}", r#"{"type":"no_such_message"}"#, "\u{0}"] {
            let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(body.as_bytes());
            let read = read_frame::<FromGuest>(&mut &bytes[..]).await;
            assert!(matches!(read, Err(FrameError::Malformed(_))), "{body:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_was_dropped_in_mid_frame_goes_on_where_it_was() {
        let (mut near, far) = tokio::io::duplex(1024);
        let mut reader = FrameReader::new(far);
        let mut bytes = encode(&log("one")).unwrap();
        bytes.extend(encode(&log("two")).unwrap());
        near.write_all(&bytes[..7]).await.unwrap();
        let waited = tokio::time::timeout(Duration::ZERO, reader.next::<FromGuest>()).await;
        assert!(waited.is_err());
        near.write_all(&bytes[7..]).await.unwrap();
        drop(near);
        assert_eq!(reader.next().await.unwrap(), Some(log("one")));
        assert_eq!(reader.next().await.unwrap(), Some(log("two")));
        assert_eq!(reader.next::<FromGuest>().await.unwrap(), None);
    }
}
