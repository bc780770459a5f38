//! One task a connection: hyper reads requests, [`answer`] finds the route, a takeover gets the socket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, error, info_span, warn};

use super::call::Call;
use super::form::{self, Form};
use super::hijack::{ConnectionIo, Hijacker, closing};
use super::quiet::{Calls, give_back};
use super::reply::{self, Reply};
use super::routes::Hijacks;
use super::{absent, routes, version};
use crate::engine::Engine;
use crate::error::{ApiError, ErrorKind};

/// How much is taken of a body that nobody wants once the request is answered, and for how long. Go's server, and so
/// dockerd, takes 256 KiB and half a second (net/http, `maxPostHandlerReadBytes`, `rstAvoidanceDelay`): a docker CLI on
/// an emulated machine needs longer, and other clients send all before they look for an answer.
const UNWANTED_BYTES: u64 = 16 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// Serves clients until the listener fails for good; ends only by being dropped.
pub(crate) async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    let calls = Arc::new(Calls::default());
    tokio::join!(accept(listener, engine, &calls), give_back(&calls));
}

async fn accept(listener: UnixListener, engine: Arc<Engine>, calls: &Arc<Calls>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(connection(socket, engine.clone(), calls.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are served now give some back.
                warn!(%error, "could not accept a client");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(socket: UnixStream, engine: Arc<Engine>, calls: Arc<Calls>) {
    let counted = calls.clone();
    let answer = move |hijacker, request| -> BoxFuture<'static, Reply> {
        let (engine, calls) = (engine.clone(), counted.clone());
        Box::pin(async move {
            let reply = answer(engine, hijacker, request).await;
            calls.count();
            reply
        })
    };
    carry(socket, answer).await;
    calls.count();
}

/// Serves a connection until it ends or is taken over.
async fn carry(
    socket: UnixStream,
    answer: impl Fn(Hijacker, Request<Incoming>) -> BoxFuture<'static, Reply>,
) {
    let hijacker = Hijacker::default();
    let io = ConnectionIo::new(socket, hijacker.clone());
    let service = service_fn(|request| {
        let reply = answer(hijacker.clone(), request);
        Box::pin(async move { Ok::<_, Infallible>(reply.await) })
    });
    let mut connection = http1::Builder::new().title_case_headers(true).serve_connection(io, service);
    if let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
        debug!(error = %crate::error::chain(&error), "connection ended");
    }
    let parts = connection.into_parts();
    match hijacker.takeover() {
        Some(takeover) => takeover(parts.io.socket, parts.read_buf).await,
        None => part(parts.io.socket).await,
    }
}

/// Closes a connection. A client whose request was refused may be sending its body still: if that met a closed socket, the
/// client would see a broken pipe in place of the answer, so what it sends is taken a while longer and thrown away.
async fn part(mut socket: UnixStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut rest = socket.take(UNWANTED_BYTES);
    // A client that is slower, or sends more, has had its answer and its chance.
    let _ = timeout(UNWANTED_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

/// Answers one request, whatever it is.
async fn answer(engine: Arc<Engine>, hijacker: Hijacker, request: Request<Incoming>) -> Reply {
    let (method, target) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", %method, path = %target);
    let outcome = route(engine, hijacker, request).instrument(span.clone()).await;
    let mut reply = outcome.unwrap_or_else(|failure| {
        let _entered = span.enter();
        match failure.kind {
            ErrorKind::Internal => error!(error = %failure, "request failed"),
            kind => debug!(?kind, error = %failure, "request refused"),
        }
        reply::error(&failure)
    });
    add_headers(&mut reply);
    reply
}

async fn route(
    engine: Arc<Engine>,
    hijacker: Hijacker,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let (asked, path) = version::split(request.uri().path());
    let path = form::unescape(path, false)?;
    let (route, name) =
        routes::find(request.method(), &path).ok_or_else(|| absent::answer(request.method(), &path))?;
    let version = match version::negotiate(asked) {
        Err(failure) if asked < Some(version::OLDEST) => return Ok(reply::plain_error(&failure)),
        other => other?,
    };
    match route.hijacks {
        Hijacks::AfterHead | Hijacks::Websocket => hijacker.stop_reading(),
        Hijacks::AfterBody => hijacker.hide_end(),
        Hijacks::Never => {}
    }
    let form = Form::parse(request.uri().query().unwrap_or_default());
    let (head, body) = request.into_parts();
    let outcome = match form {
        Ok(form) => {
            let call = Call { engine, version, name, form, headers: head.headers, body, hijacker };
            // In a task of its own: a client who hangs up must not stop half way what it asked for.
            let work = tokio::spawn((route.function)(call).in_current_span());
            work.await.unwrap_or_else(|e| Err(ApiError::from_chain("the engine failed", &e)))
        }
        Err(error) => Err(error),
    };
    match route.hijacks {
        Hijacks::Never => return outcome,
        Hijacks::AfterBody | Hijacks::Websocket => {
            return outcome.or_else(|failure| Ok(closing(reply::error(&failure))));
        }
        Hijacks::AfterHead => {}
    }
    Ok(closing(outcome.unwrap_or_else(|failure| reply::stream_error(&failure))))
}

fn add_headers(reply: &mut Reply) {
    reply::header(reply, "api-version", &version::NEWEST.to_string());
    reply::header(reply, "docker-experimental", "false");
    reply::header(reply, "ostype", "linux");
    reply::header(reply, "server", concat!("Caisson/", env!("CARGO_PKG_VERSION"), " (linux)"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    /// Answers `/take` with a takeover that shouts back what it gets, and all else with 204.
    fn reply(hijacker: Hijacker, request: Request<Incoming>) -> BoxFuture<'static, Reply> {
        Box::pin(async move {
            if request.uri().path() != "/take" {
                return reply::empty(StatusCode::NO_CONTENT);
            }
            hijacker.stop_reading();
            hijacker.take(Box::new(|mut socket, sent| {
                Box::pin(async move {
                    let mut all = sent.to_vec();
                    socket.read_to_end(&mut all).await.unwrap();
                    all.make_ascii_uppercase();
                    socket.write_all(&all).await.unwrap();
                })
            }))
        })
    }

    async fn conversation(said: &[u8]) -> String {
        let (socket, mut client) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(carry(socket, reply));
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        serving.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn a_takeover_gets_what_follows_the_head_and_nothing_else_reaches_the_client() {
        let heard = conversation(b"POST /take HTTP/1.1\r\nHost: d\r\n\r\ntyped ahead").await;
        assert_eq!(heard, "TYPED AHEAD");
    }

    #[tokio::test]
    async fn a_connection_can_be_taken_over_after_other_requests() {
        let (socket, mut client) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(carry(socket, reply));
        client.write_all(b"GET /other HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
        let mut head = vec![0; 1024];
        let length = client.read(&mut head).await.unwrap();
        assert!(head[..length].starts_with(b"HTTP/1.1 204"));
        client.write_all(b"POST /take HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\nhi").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "HI");
        serving.await.unwrap();
    }
}
