//! What a container wrote, as text.

use super::{Engine, broken, containers::path};
use caisson_app_api::{ApiError, ContainerLogs, ErrorCode, ItemStream, LogChunk, LogStream};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming, header::CONTENT_TYPE};

/// The type of a terminal's output, which is not divided into streams.
const RAW: &str = "application/vnd.docker.raw-stream";

/// Before each piece: the stream's number, three zeros, the length (Docker Engine API, `ContainerAttach`).
const HEADER_BYTES: usize = 8;

/// The log of a container.
pub(crate) async fn logs(engine: &Engine, args: &ContainerLogs) -> Result<ItemStream<LogChunk>, ApiError> {
    let ContainerLogs { tail, follow, timestamps, .. } = args;
    let query = format!("/logs?stdout=1&stderr=1&tail={tail}&follow={follow}&timestamps={timestamps}");
    let response = engine.request(Method::GET, &path(&args.id, &query)?).await?;
    let raw = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == RAW);
    let demux = Demux::new(!raw);
    let pieces = stream::unfold(Some((response.into_body(), demux)), |state| async {
        let (body, demux) = state?;
        Some(read(body, demux).await)
    });
    Ok(pieces.map(stream::iter).flatten().boxed())
}

type Pieces = Vec<Result<LogChunk, ApiError>>;

/// The pieces in the next part of the body, and the rest of the body unless there is none.
async fn read(mut body: Incoming, mut demux: Demux) -> (Pieces, Option<(Incoming, Demux)>) {
    let frame = match body.frame().await {
        None => return (vec![], None),
        Some(Err(error)) => return (vec![Err(broken(&error))], None),
        Some(Ok(frame)) => frame,
    };
    let Ok(data) = frame.into_data() else { return (vec![], Some((body, demux))) };
    match demux.feed(&data) {
        Ok(pieces) => (pieces.into_iter().map(Ok).collect(), Some((body, demux))),
        Err(error) => (vec![Err(error)], None),
    }
}

/// Divides Docker's multiplexed stream, wherever it is cut, and holds no more than a header and part of a character.
struct Demux {
    framed: bool,
    header: Vec<u8>,
    /// What is left of the piece at hand, and whose it is.
    left: usize,
    stream: LogStream,
    stdout: Utf8,
    stderr: Utf8,
}

impl Demux {
    fn new(framed: bool) -> Self {
        Self {
            framed,
            header: Vec::with_capacity(HEADER_BYTES),
            left: 0,
            stream: LogStream::Stdout,
            stdout: Utf8::default(),
            stderr: Utf8::default(),
        }
    }

    fn feed(&mut self, mut data: &[u8]) -> Result<Vec<LogChunk>, ApiError> {
        let mut chunks = Vec::new();
        while !data.is_empty() {
            if self.framed && self.left == 0 {
                data = self.take_header(data)?;
                continue;
            }
            let length = if self.framed { self.left.min(data.len()) } else { data.len() };
            let (piece, rest) = data.split_at(length);
            self.left = self.left.saturating_sub(length);
            data = rest;
            self.push(piece, &mut chunks);
        }
        Ok(chunks)
    }

    fn take_header<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], ApiError> {
        let missing = HEADER_BYTES - self.header.len();
        let (part, rest) = data.split_at(missing.min(data.len()));
        self.header.extend_from_slice(part);
        if let [stream, 0, 0, 0, length @ ..] = self.header.as_slice()
            && let Ok(length) = <[u8; 4]>::try_from(length)
        {
            self.stream = stream_of(*stream)?;
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.header.clear();
        } else if self.header.len() == HEADER_BYTES {
            return Err(malformed());
        }
        Ok(rest)
    }

    /// Adds to the last chunk if it is of the same stream.
    fn push(&mut self, piece: &[u8], chunks: &mut Vec<LogChunk>) {
        let stream = self.stream;
        let text = match stream {
            LogStream::Stdout => self.stdout.decode(piece),
            LogStream::Stderr => self.stderr.decode(piece),
        };
        match chunks.last_mut().filter(|last| last.stream == stream) {
            Some(last) => last.text += &text,
            None if text.is_empty() => {}
            None => chunks.push(LogChunk { stream, text }),
        }
    }
}

fn stream_of(number: u8) -> Result<LogStream, ApiError> {
    match number {
        0 | 1 => Ok(LogStream::Stdout),
        2 => Ok(LogStream::Stderr),
        _ => Err(malformed()),
    }
}

fn malformed() -> ApiError {
    ApiError::new(ErrorCode::EngineFailed, "the engine's log stream is malformed")
}

/// Decodes UTF-8 that comes in pieces cut anywhere. What is no UTF-8 becomes U+FFFD.
#[derive(Default)]
struct Utf8 {
    /// The beginning of a character whose end is still to come: at most 3 bytes.
    begun: Vec<u8>,
}

impl Utf8 {
    fn decode(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            let at_end = chunk.invalid().as_ptr_range().end == bytes.as_ptr_range().end;
            if at_end && may_go_on(chunk.invalid()) {
                self.begun = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether these bytes are the beginning of a character, rather than never part of one.
fn may_go_on(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], length.as_slice(), text].concat()
    }

    fn texts(chunks: &[LogChunk], stream: LogStream) -> String {
        chunks.iter().filter(|chunk| chunk.stream == stream).map(|chunk| chunk.text.as_str()).collect()
    }

    #[test]
    fn streams_are_told_apart_wherever_the_bytes_are_cut() {
        let wire =
            [frame(1, "나는\n".as_bytes()), frame(2, b"oops\n"), frame(1, b""), frame(1, "글".as_bytes())]
                .concat();
        for size in 1..wire.len() {
            let mut demux = Demux::new(true);
            let chunks: Vec<_> = wire.chunks(size).flat_map(|part| demux.feed(part).unwrap()).collect();
            assert_eq!(texts(&chunks, LogStream::Stdout), "나는\n글", "cut by {size}");
            assert_eq!(texts(&chunks, LogStream::Stderr), "oops\n", "cut by {size}");
        }
    }

    #[test]
    fn a_terminal_has_one_stream_of_bytes() {
        let mut demux = Demux::new(false);
        let chunks = demux.feed(b"\x01\0\0\0plain").unwrap();
        assert_eq!(texts(&chunks, LogStream::Stdout), "\u{1}\0\0\0plain");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_do_not_wait() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.decode(b"a\xffb\xc3"), "a\u{fffd}b");
        assert_eq!(utf8.decode(b"("), "\u{fffd}(");
    }

    #[test]
    fn a_header_that_is_none_is_an_error() {
        assert!(Demux::new(true).feed(b"HTTP/1.1 200 OK").is_err());
        assert!(Demux::new(true).feed(&frame(7, b"x")).is_err());
    }
}
