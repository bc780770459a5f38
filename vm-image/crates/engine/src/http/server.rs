//! One task a connection: hyper reads requests, [`answer`] finds the route, a takeover gets the socket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use tokio::net::{UnixListener, UnixStream};
use tracing::{Instrument, debug, error, info_span, warn};

use super::call::Call;
use super::form::{self, Form};
use super::hijack::{ConnectionIo, Hijacker, closing};
use super::reply::{self, Reply};
use super::{routes, version};
use crate::engine::Engine;
use crate::error::{ApiError, ErrorKind};

/// Serves clients until the listener fails for good; ends only by being dropped.
pub(crate) async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(connection(socket, engine.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: those that are served now give some back.
                warn!(%error, "could not accept a client");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(socket: UnixStream, engine: Arc<Engine>) {
    let hijacker = Hijacker::default();
    let io = ConnectionIo::new(socket, hijacker.clone());
    let service = service_fn(|request| {
        let (engine, hijacker) = (engine.clone(), hijacker.clone());
        Box::pin(async move { Ok::<_, Infallible>(answer(engine, hijacker, request).await) })
    });
    let mut connection = http1::Builder::new().title_case_headers(true).serve_connection(io, service);
    if let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
        debug!(error = %crate::error::chain(&error), "connection ended");
    }
    let parts = connection.into_parts();
    if let Some(takeover) = hijacker.takeover() {
        takeover(parts.io.socket, parts.read_buf).await;
    }
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
        routes::find(request.method(), &path).ok_or_else(|| ApiError::not_found("page not found"))?;
    let version = match version::negotiate(asked) {
        Err(failure) if asked < Some(version::OLDEST) => return Ok(reply::plain_error(&failure)),
        other => other?,
    };
    if route.hijacks && request.method() == Method::POST {
        hijacker.stop_reading();
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
    if !route.hijacks {
        return outcome;
    }
    Ok(closing(outcome.unwrap_or_else(|failure| reply::plain_error(&failure))))
}

fn add_headers(reply: &mut Reply) {
    reply::header(reply, "api-version", &version::NEWEST.to_string());
    reply::header(reply, "docker-experimental", "false");
    reply::header(reply, "ostype", "linux");
    reply::header(reply, "server", concat!("Caisson/", env!("CARGO_PKG_VERSION"), " (linux)"));
}
