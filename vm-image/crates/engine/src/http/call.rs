//! One request, as the functions of the routes see it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use caisson_docker_api::go;
use futures_util::future::poll_fn;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::form::Form;
use super::hijack::Hijacker;
use super::version::ApiVersion;
use crate::engine::Engine;
use crate::error::ApiError;

/// The longest JSON body that is read, in bytes; a container's definition is a few thousand.
const MAX_JSON: usize = 16 << 20;

/// One request.
pub(crate) struct Call {
    pub(crate) engine: Arc<Engine>,
    /// The API version that the client speaks.
    pub(crate) version: ApiVersion,
    /// What stands for the `{…}` in the route's path.
    pub(crate) name: String,
    pub(crate) form: Form,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// To take over the connection.
    pub(crate) hijacker: Hijacker,
}

impl Call {
    /// The JSON body as a value; `None` if it is empty.
    pub(crate) async fn json_value(&mut self) -> Result<Option<Value>, ApiError> {
        self.check_content_type()?;
        let text = self.read_body().await?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(|e| bad_json(&text, &e))
    }

    fn check_content_type(&self) -> Result<(), ApiError> {
        let given = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let no_body = self.body.is_end_stream()
            || self.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        if given.is_empty() && no_body {
            return Ok(());
        }
        if given.is_empty() {
            return Err(ApiError::invalid("malformed Content-Type header (): mime: no media type"));
        }
        let media_type = given.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::invalid(format!(
                "unsupported Content-Type header ({given}): must be 'application/json'"
            )));
        }
        Ok(())
    }

    async fn read_body(&mut self) -> Result<Bytes, ApiError> {
        let mut text = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            if text.len() + chunk.len() > MAX_JSON {
                return Err(ApiError::invalid(format!("request body is longer than {MAX_JSON} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text.freeze())
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        next_chunk(&mut self.body)
            .await
            .map_err(|e| ApiError::invalid(format!("reading the request body: {e}")))
    }
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    loop {
        match poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Decodes a value as Go would.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    go::decode(value).map_err(|e| ApiError::invalid(format!("invalid JSON: {e}")))
}

/// What Go's decoder says of text that is not JSON.
fn bad_json(text: &[u8], error: &serde_json::Error) -> ApiError {
    if error.is_eof() {
        let why = if text.trim_ascii().is_empty() {
            "got EOF while reading request body"
        } else {
            "unexpected EOF"
        };
        return ApiError::invalid(format!("invalid JSON: {why}"));
    }
    let said = error.to_string();
    if said.starts_with("trailing characters") {
        return ApiError::invalid("unexpected content after JSON");
    }
    let place = if said.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if said.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if said.starts_with("expected `,` or `]`") {
        "after array element"
    } else if said.starts_with("expected `:`") {
        "after object key"
    } else {
        "looking for beginning of value"
    };
    let line = text.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let shown = line.get(error.column().saturating_sub(1)).map_or('?', |b| char::from(*b));
    ApiError::invalid(format!("invalid JSON: invalid character {shown:?} {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_json_is_refused_in_go_s_words() {
        for (text, message) in [
            ("hello", "invalid JSON: invalid character 'h' looking for beginning of value"),
            ("{\"a\": 1", "invalid JSON: unexpected EOF"),
            (" ", "invalid JSON: got EOF while reading request body"),
            ("{\"a\": 1 2}", "invalid JSON: invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid JSON: invalid character '2' after array element"),
            ("{1: 2}", "invalid JSON: invalid character '1' looking for beginning of object key string"),
            ("{} {}", "unexpected content after JSON"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(bad_json(text.as_bytes(), &error).message, message, "{text:?}");
        }
    }
}
