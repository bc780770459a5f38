//! The development door: the same calls by HTTP, so that the window's pages can run in a plain browser.
//!
//! Only on a loopback address, only with the token, and only for pages that themselves come from this computer. How the
//! calls travel is told at the top of `ui/src/host/generated.ts`.

use crate::host::Caisson;
use anyhow::{Context, bail};
use bytes::Bytes;
use caisson_app_api::{Answer, ApiError, ErrorCode};
use caisson_forward::serve_each;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{convert::Infallible, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use tracing::{debug, info};

/// The longest request that is taken.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The most connections at once: a page has a few.
const MAX_CONNECTIONS: usize = 256;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The door, open but not yet served.
pub(crate) struct DevDoor {
    listener: TcpListener,
    token: String,
}

impl DevDoor {
    /// Opens the door, if one is wanted.
    pub(crate) async fn bind(at: Option<SocketAddr>, token: Option<String>) -> anyhow::Result<Option<Self>> {
        let (Some(at), Some(token)) = (at, token) else { return Ok(None) };
        if !at.ip().is_loopback() {
            bail!("--dev-http is for loopback addresses only, not for {at}");
        }
        if token.is_empty() {
            bail!("--dev-token is empty");
        }
        let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
        info!(%at, "the development door is open");
        Ok(Some(Self { listener, token }))
    }

    /// Serves pages until dropped.
    pub(crate) async fn serve(self, host: Arc<Caisson>) {
        let token: Arc<str> = self.token.into();
        let serve = |stream| {
            let (host, token) = (host.clone(), token.clone());
            let service = service_fn(move |request| {
                let (host, token) = (host.clone(), token.clone());
                async move { Ok::<_, Infallible>(handle(&host, &token, request).await) }
            });
            async move {
                if let Err(error) =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                {
                    debug!(%error, "page connection ended");
                }
            }
        };
        serve_each(self.listener, MAX_CONNECTIONS, "pages", serve).await;
    }
}

async fn handle(host: &Arc<Caisson>, token: &str, request: Request<Incoming>) -> Response<Body> {
    let origin = local_origin(request.headers()).cloned();
    let mut response = answer(host, token, request).await;
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type"),
        );
    }
    response
}

async fn answer(host: &Arc<Caisson>, token: &str, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::OPTIONS {
        return status(StatusCode::NO_CONTENT);
    }
    if !allowed(request.headers(), token) {
        let error = ApiError::new(ErrorCode::Unauthorized, "the token is wrong");
        return json(StatusCode::UNAUTHORIZED, &Answer::Error(error));
    }
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/call") => call(host, request).await,
        (&Method::POST, "/subscribe") => subscribe(host, request).await,
        _ => status(StatusCode::NOT_FOUND),
    }
}

async fn call(host: &Arc<Caisson>, request: Request<Incoming>) -> Response<Body> {
    let reply = match read(request).await {
        Ok(asked) => caisson_app_api::call(&**host, asked).await,
        Err(error) => Err(error),
    };
    json(StatusCode::OK, &reply.map_or_else(Answer::Error, Answer::Ok))
}

async fn subscribe(host: &Arc<Caisson>, request: Request<Incoming>) -> Response<Body> {
    let items = match read(request).await {
        Ok(asked) => caisson_app_api::subscribe(&**host, asked).await,
        Err(error) => Err(error),
    };
    let items = match items {
        Ok(items) => items,
        Err(error) => return json(StatusCode::OK, &Answer::Error(error)),
    };
    let end = futures_util::stream::iter([Answer::End {}]);
    let lines = items.map(|item| item.map_or_else(Answer::Error, Answer::Item)).chain(end);
    let frames = lines.map(|answer| Ok::<_, Infallible>(Frame::data(line(&answer))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, ApiError> {
    let invalid = |error: &(dyn std::error::Error + 'static)| ApiError::from_error(ErrorCode::Invalid, error);
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES)
        .collect()
        .await
        .map_err(|error| invalid(&*error))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| invalid(&error))
}

/// Compares all bytes, wherever the first difference is.
fn allowed(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let wanted = format!("Bearer {token}");
    given.len() == wanted.len()
        && given.iter().zip(wanted.as_bytes()).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// The page's origin, if the page itself comes from this computer.
fn local_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let authority = origin.to_str().ok()?.strip_prefix("http://")?;
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    ["localhost", "127.0.0.1", "[::1]"].contains(&name).then_some(origin)
}

fn line(answer: &Answer) -> Bytes {
    // Values that were made by serde_json can be written by it.
    let mut text = serde_json::to_vec(answer).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn json(code: StatusCode, answer: &Answer) -> Response<Body> {
    let mut response = Response::new(Full::new(line(answer)).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_whole_token_is_taken() {
        let allowed = |value: &str| allowed(&headers(header::AUTHORIZATION, value), "secret");
        assert!(allowed("Bearer secret"));
        for wrong in ["Bearer secreT", "Bearer secret2", "Bearer ", "secret", ""] {
            assert!(!allowed(wrong), "{wrong}");
        }
        assert!(!super::allowed(&HeaderMap::new(), "secret"));
    }

    #[test]
    fn only_pages_of_this_computer_are_served() {
        let local = |value: &str| local_origin(&headers(header::ORIGIN, value)).is_some();
        assert!(local("http://localhost:5173") && local("http://127.0.0.1:5173"));
        for other in ["http://evil.example", "http://localhost.evil.example:80", "https://evil:5173", "null"]
        {
            assert!(!local(other), "{other}");
        }
    }

    #[tokio::test]
    async fn other_computers_cannot_get_at_it() {
        let at = "0.0.0.0:0".parse().unwrap();
        assert!(DevDoor::bind(Some(at), Some("t".into())).await.is_err());
    }
}
