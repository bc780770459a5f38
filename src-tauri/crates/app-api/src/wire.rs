//! Lines of JSON, each with a limit.

use crate::{ApiError, Call, ErrorCode, Subscribe};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of what is spoken. Raised when an older client or daemon would misunderstand. The first line and the call
/// `shutdown` never change, so that any client can tell the versions apart and end any daemon.
pub const PROTOCOL: u32 = 2;

/// The longest line that either side takes.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// The daemon's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) version: String,
}

/// What a client may say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Wants one answer.
    Call(Call),
    /// Wants items until it hangs up.
    Subscribe(Subscribe),
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The call's reply.
    Ok(Value),
    /// The call or the subscription failed; nothing more comes of it.
    Error(ApiError),
    /// The subscription's next item.
    Item(Value),
    /// The subscription is over.
    End {},
}

/// Why a line could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("a line cannot be understood")]
    Malformed(#[from] serde_json::Error),
}

impl From<LineError> for ApiError {
    fn from(error: LineError) -> Self {
        let code = match error {
            LineError::Io(_) => ErrorCode::DaemonNotRunning,
            LineError::TooLong | LineError::Malformed(_) => ErrorCode::Invalid,
        };
        Self::from_error(code, &error)
    }
}

/// The next line, or nothing if the other side is done.
pub(crate) async fn read_line<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<T>, LineError> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE_BYTES).expect("the limit is a small constant");
    from.take(limit).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if line.len() >= MAX_LINE_BYTES => Err(LineError::TooLong),
        Some(_) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Writes one line, at once.
pub(crate) async fn write_line(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), LineError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let endless = tokio::io::repeat(b'x');
        let read = read_line::<Value>(&mut tokio::io::BufReader::new(endless)).await;
        assert!(matches!(read, Err(LineError::TooLong)), "{read:?}");
    }

    #[tokio::test]
    async fn a_line_cut_short_is_an_error_and_the_end_is_not() {
        let cut = read_line::<Value>(&mut &b"{\"a\":"[..]).await;
        assert!(matches!(cut, Err(LineError::Io(_))), "{cut:?}");
        assert!(matches!(read_line::<Value>(&mut &b""[..]).await, Ok(None)));
    }

    #[test]
    fn the_wire_is_what_the_window_was_written_against() {
        let text = |ask: &Ask| serde_json::to_string(ask).unwrap();
        assert_eq!(text(&Ask::Call(Call::MachineStatus)), r#"{"call":{"name":"machine_status"}}"#);
        let remove = crate::ContainerRemove { id: "web".into(), force: true };
        assert_eq!(
            text(&Ask::Call(Call::ContainerRemove(remove))),
            r#"{"call":{"name":"container_remove","args":{"id":"web","force":true}}}"#
        );
        assert_eq!(text(&Ask::Subscribe(Subscribe::Events)), r#"{"subscribe":{"name":"events"}}"#);
    }
}
