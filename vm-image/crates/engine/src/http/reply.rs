//! Answers: JSON as dockerd writes it, plain bytes, and streams.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{ApiError, ErrorKind};

/// What a route's function returns.
pub(crate) type Reply = Response<ReplyBody>;

/// The bytes of an answer.
pub(crate) enum ReplyBody {
    /// All of them, or none.
    Full(Option<Bytes>),
    /// As they come; the task that makes them ends when the client goes.
    Stream { chunks: mpsc::Receiver<Bytes>, _writer: Writer },
}

/// The task behind a streamed body; dropping this ends it.
pub(crate) struct Writer(JoinHandle<()>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream { chunks, .. } => {
                chunks.poll_recv(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    with_body(status, ReplyBody::Full(None))
}

/// JSON, with the line feed that Go's encoder ends it with.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut reply = with_body(status, ReplyBody::Full(Some(json_line(value))));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// One JSON value and a line feed.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).expect("API types have string keys and no failing serializers");
    text.push(b'\n');
    text.into()
}

/// Bytes that `write` sends while the client listens. Its headers go out at once.
pub(crate) fn stream<W, F>(content_type: &'static str, write: W) -> Reply
where
    W: FnOnce(mpsc::Sender<Bytes>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, chunks) = mpsc::channel(16);
    let writer = Writer(tokio::spawn(write(sender)));
    let mut reply = with_body(StatusCode::OK, ReplyBody::Stream { chunks, _writer: writer });
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Bytes that a blocking thread writes; the answer is over when it lets go of the [`ChannelWriter`].
pub(crate) fn written(content_type: &'static str, mut written: mpsc::Receiver<Bytes>) -> Reply {
    stream(content_type, |to| async move {
        while let Some(chunk) = written.recv().await {
            // A client that goes takes its stream with it, and the thread sees that nobody reads.
            if to.send(chunk).await.is_err() {
                return;
            }
        }
    })
}

/// How much is sent at once.
const CHUNK: usize = 64 * 1024;

/// The end of a body at which a blocking thread writes. What was not flushed is not sent.
pub(crate) struct ChannelWriter {
    to: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl ChannelWriter {
    /// The two ends; for [`written`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (to, written) = mpsc::channel(4);
        (Self { to, buffer: BytesMut::with_capacity(CHUNK) }, written)
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        self.to.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

/// The answer to what went wrong.
pub(crate) fn error(error: &ApiError) -> Reply {
    match error.kind {
        ErrorKind::NotModified => empty(StatusCode::NOT_MODIFIED),
        kind => json(
            super::error::status(kind),
            &caisson_docker_api::ErrorBody { message: error.message.clone() },
        ),
    }
}

/// The same as plain text: to clients older than the JSON bodies.
pub(crate) fn plain_error(error: &ApiError) -> Reply {
    text_error(error, "\n", "text/plain; charset=utf-8")
}

/// The same to those who asked for the connection: dockerd writes it by hand where the stream would have been.
pub(crate) fn stream_error(error: &ApiError) -> Reply {
    text_error(error, "\r\n", super::RAW)
}

fn text_error(error: &ApiError, line_end: &str, content_type: &'static str) -> Reply {
    let text = Bytes::from(format!("{}{line_end}", error.message));
    let mut reply = with_body(super::error::status(error.kind), ReplyBody::Full(Some(text)));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Adds a header.
pub(crate) fn header(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

fn with_body(status: StatusCode, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}
