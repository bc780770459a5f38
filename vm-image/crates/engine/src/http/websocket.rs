//! Websockets (RFC 6455), server side: the handshake, and a plain byte stream in place of the frames.
//!
//! Messages mean nothing here: what comes in data frames is one stream of bytes, and what goes out is framed as it comes. So a websocket is
//! turned into a socket like any other ([`unframe`]), and whatever serves a socket serves it. No extensions, no limit on a message, as no
//! message is ever held.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::error::ApiError;

/// What RFC 6455 has the server add to the client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How much is read and framed at a time.
const CHUNK: usize = 32 * 1024;
/// The longest control frame's content.
const MAX_CONTROL: u64 = 125;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// This frame is the last of its message.
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The answer to a client that asks for a websocket.
///
/// # Errors
/// If it does not, or asks for one that is not known here.
pub(crate) fn accept(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let upgrades = text(UPGRADE).eq_ignore_ascii_case("websocket")
        && text(CONNECTION).to_ascii_lowercase().contains("upgrade");
    if !upgrades {
        return Err(ApiError::invalid("not websocket protocol"));
    }
    if text(SEC_WEBSOCKET_VERSION) != "13" {
        return Err(ApiError::invalid("missing or bad WebSocket Version"));
    }
    let key = text(SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err(ApiError::invalid("challenge response error"));
    }
    let accepted = STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")));
    let protocol = match text(SEC_WEBSOCKET_PROTOCOL).trim() {
        "" => String::new(),
        one if !one.contains(',') => format!("Sec-WebSocket-Protocol: {one}\r\n"),
        _ => return Err(ApiError::invalid("bad WebSocket protocol")),
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accepted}\r\n{protocol}\r\n"
    ))
}

/// How bytes are framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    /// As binary messages, else as text.
    pub(crate) binary: bool,
    /// What is framed is in Docker's multiplexed format, and its headers are left out.
    pub(crate) multiplexed: bool,
}

/// The plain stream behind a websocket whose handshake is done; `sent` are bytes that the client has sent after it. The end of the client's
/// stream, or its close frame, is the end of the plain one; the end of the plain one closes the websocket.
pub(crate) fn unframe(client: UnixStream, sent: Bytes, framing: Framing) -> std::io::Result<UnixStream> {
    let (plain, ours) = UnixStream::pair()?;
    let (from_client, to_client) = client.into_split();
    let (from_plain, to_plain) = ours.into_split();
    let (answers, to_answer) = mpsc::channel(4);
    tokio::spawn(async move {
        let reading = read_frames(from_client, sent, to_plain, answers);
        let writing = write_frames(from_plain, to_client, to_answer, framing);
        // Who writes has the last word: a client may stop sending and still be sent to.
        let (_, _) = tokio::join!(reading, writing);
    });
    Ok(plain)
}

/// What a frame's header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    kind: u8,
    length: u64,
    mask: [u8; 4],
}

/// Takes a header off the front, if it is complete. A client's frames are masked; one that is not is an error.
fn header(bytes: &mut BytesMut) -> std::io::Result<Option<Header>> {
    let [first, second, rest @ ..] = &bytes[..] else { return Ok(None) };
    let kind = first & 0x0f;
    if second & MASKED == 0 || first & 0x70 != 0 {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let (length, extended) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        length => (u64::from(length), 0),
    };
    let Some(mask) = rest[extended..].first_chunk::<4>().copied() else { return Ok(None) };
    if kind >= CLOSE && length > MAX_CONTROL {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    bytes.advance(2 + extended + 4);
    Ok(Some(Header { kind, length, mask }))
}

/// Passes on what is in data frames, until the client closes. Pings go to `answers`.
async fn read_frames(
    mut from: OwnedReadHalf,
    sent: Bytes,
    mut to: OwnedWriteHalf,
    answers: mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    let mut bytes = BytesMut::from(&sent[..]);
    loop {
        let Header { kind, mut length, mask } = loop {
            match header(&mut bytes)? {
                Some(header) => break header,
                None if from.read_buf(&mut bytes).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let mut control = Vec::new();
        let mut position = 0;
        while length > 0 {
            if bytes.is_empty() && from.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            let taken = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            let mut part = bytes.split_to(taken);
            length -= taken as u64;
            for byte in part.iter_mut() {
                *byte ^= mask[position % 4];
                position += 1;
            }
            if kind >= CLOSE {
                control.extend_from_slice(&part);
            } else {
                to.write_all(&part).await?;
            }
        }
        match kind {
            CLOSE => return Ok(()),
            // A writer that is gone answers nobody.
            PING => drop(answers.send(control).await),
            _ => {}
        }
    }
}

async fn write_frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Vec<u8>>,
    framing: Framing,
) -> std::io::Result<()> {
    let kind = if framing.binary { BINARY } else { TEXT };
    let mut stripped = Stripped::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = tokio::select! {
            Some(ping) = answers.recv() => {
                to.write_all(&framed(PONG, &ping)).await?;
                continue;
            }
            length = from.read(&mut chunk) => length?,
        };
        if length == 0 {
            break;
        }
        if !framing.multiplexed {
            to.write_all(&framed(kind, &chunk[..length])).await?;
            continue;
        }
        for part in stripped.strip(&chunk[..length]) {
            to.write_all(&framed(kind, part)).await?;
        }
    }
    // 1000: all went well.
    to.write_all(&framed(CLOSE, &1000u16.to_be_bytes())).await?;
    to.shutdown().await
}

/// A whole message in one frame.
fn framed(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(content.len() + 10);
    frame.push(FINAL | kind);
    match content.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65_536 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(content);
    frame
}

/// Leaves out the headers of Docker's multiplexed format, wherever they are cut.
#[derive(Debug, Default)]
struct Stripped {
    header: Vec<u8>,
    /// How much of the content that the last header told of is still to come.
    left: usize,
}

impl Stripped {
    /// The contents in these bytes.
    fn strip<'b>(&mut self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let mut contents = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let (part, rest) = bytes.split_at(bytes.len().min(8 - self.header.len()));
                self.header.extend_from_slice(part);
                bytes = rest;
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (content, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= content.len();
            contents.push(content);
            bytes = rest;
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn asking(version: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(version));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers
    }

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert!(
            accept(&asking("13")).unwrap().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        );
        assert_eq!(accept(&asking("8")).unwrap_err().message, "missing or bad WebSocket Version");
        assert_eq!(accept(&HeaderMap::new()).unwrap_err().message, "not websocket protocol");
    }

    /// A client's frame.
    fn masked(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = framed(kind, content);
        frame[1] |= MASKED;
        let head = frame.len() - content.len();
        let mask = [1, 2, 3, 4];
        let masked = content.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
        frame.truncate(head);
        frame.extend(mask);
        frame.extend(masked);
        frame
    }

    async fn conversation(multiplexed: bool, said: &[u8], answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (client, mut user) = UnixStream::pair().unwrap();
        let (early, late) = said.split_at(said.len() / 3);
        let framing = Framing { binary: true, multiplexed };
        let mut plain = unframe(client, Bytes::copy_from_slice(early), framing).unwrap();
        user.write_all(late).await.unwrap();
        let (mut heard, mut received) = (Vec::new(), Vec::new());
        plain.read_to_end(&mut heard).await.unwrap();
        plain.write_all(answer).await.unwrap();
        drop(plain);
        user.read_to_end(&mut received).await.unwrap();
        (heard, received)
    }

    #[tokio::test]
    async fn what_is_in_the_frames_is_one_stream() {
        let long = vec![b'x'; 70_000];
        let said =
            [masked(BINARY, b"ab"), masked(PING, b"are you there"), masked(TEXT, &long), masked(CLOSE, b"")];
        let (heard, received) = conversation(false, &said.concat(), b"out").await;
        assert_eq!(heard.len(), 70_002);
        let close = framed(CLOSE, &1000u16.to_be_bytes());
        assert!(received.ends_with(&close) && received.windows(13).any(|bytes| bytes == b"are you there"));
        assert!(received.windows(5).any(|bytes| bytes == framed(BINARY, b"out")));
    }

    #[tokio::test]
    async fn docker_s_headers_are_left_out() {
        let stream = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err";
        let (_, received) = conversation(true, &masked(CLOSE, b""), stream).await;
        let expected =
            [framed(BINARY, b"out"), framed(BINARY, b"err"), framed(CLOSE, &1000u16.to_be_bytes())];
        assert_eq!(received, expected.concat());
        let mut stripped = Stripped::default();
        let parts: Vec<u8> = stream.chunks(3).flat_map(|chunk| stripped.strip(chunk).concat()).collect();
        assert_eq!(parts, b"outerr");
    }

    #[tokio::test]
    async fn a_frame_without_a_mask_ends_the_input() {
        let (heard, _) = conversation(false, &framed(BINARY, b"ab"), b"").await;
        assert!(heard.is_empty());
    }
}
