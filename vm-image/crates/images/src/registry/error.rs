//! What goes wrong with registries, in dockerd's words.

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Classified, ErrorKind};

/// Why a registry did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It could not be reached, or the connection broke.
    #[error("{method} \"{url}\": {why}", method = go_method(.method))]
    Unreachable {
        /// The method of the request, `GET`.
        method: String,
        /// The address that was asked.
        url: String,
        /// What went wrong, without the address.
        why: String,
    },
    /// It answered with an error of the protocol.
    #[error("{}", .0)]
    Answer(Refusal),
    /// It answered with a status that means nothing here.
    #[error("received unexpected HTTP status: {0}")]
    Status(String, u16),
    /// It asks for a name and password, and none are known.
    #[error("{} \"{url}\": no basic auth credentials", go_method(.method))]
    NoCredentials {
        /// The method of the request.
        method: String,
        /// The address that was asked.
        url: String,
    },
    /// The one who gives tokens refused.
    #[error("{} \"{url}\": {why}", go_method(.method))]
    Token {
        /// The method of the request that needs the token.
        method: String,
        /// The address of that request.
        url: String,
        /// What it said.
        why: Box<RegistryError>,
    },
    /// A registry cannot be searched, which most cannot.
    #[error("Unexpected status code {0}")]
    Search(u16),
    /// A login was refused.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// The address that was asked.
        url: String,
        /// The status with its reason.
        status: String,
    },
    /// What came is not what was asked for.
    #[error("{what} verification failed for digest {digest}")]
    Digest {
        /// `manifest` or `filesystem layer`.
        what: &'static str,
        /// What was asked for.
        digest: Digest,
    },
    /// It says something that nobody can understand.
    #[error("invalid answer from the registry: {0}")]
    Invalid(String),
    /// A document is larger than such documents may be.
    #[error("{0} is larger than {1} bytes")]
    TooLarge(&'static str, u64),
    /// A certificate or key of the configuration cannot be used.
    #[error("could not use {0}: {1}")]
    Certificate(String, String),
    /// There is no such registry.
    #[error("no registry endpoint is configured")]
    NoEndpoint,
}

/// An error of the protocol, of which only the first is told, as dockerd does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `MANIFEST_UNKNOWN`.
    pub code: String,
    /// The registry's own words.
    pub message: String,
    /// The HTTP status.
    pub status: u16,
    /// In how many seconds to come again, if it says so.
    pub retry_after: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.to_lowercase().replace('_', " "), self.message)
    }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorItem>,
    /// Docker's token server tells of too many requests so.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl RegistryError {
    /// What an answer with an error status means.
    pub(super) fn of_answer(status: reqwest::StatusCode, body: &[u8]) -> Self {
        let told = serde_json::from_slice::<Errors>(body).ok();
        let details = told.as_ref().and_then(|told| told.details.clone());
        let first =
            told.and_then(|told| told.errors.into_iter().next()).filter(|first| !first.code.is_empty());
        let number = status.as_u16();
        let own = |code: &str, message: String| {
            Self::Answer(Refusal { code: code.to_owned(), message, status: number, retry_after: None })
        };
        match (first, number) {
            (Some(first), _) => {
                let known = known_message(&first.code);
                let message =
                    first.message.filter(|text| !text.is_empty()).unwrap_or_else(|| known.to_owned());
                own(&first.code, message)
            }
            (None, 401) => {
                own("UNAUTHORIZED", details.unwrap_or_else(|| "authentication required".to_owned()))
            }
            (None, 429) => own("TOOMANYREQUESTS", details.unwrap_or_else(|| "too many requests".to_owned())),
            (None, 403) => own("DENIED", "requested access to the resource is denied".to_owned()),
            (None, _) => Self::Status(with_reason(status), number),
        }
    }

    pub(super) fn unreachable(method: &str, url: &str, error: &reqwest::Error) -> Self {
        Self::Unreachable { method: method.to_owned(), url: url.to_owned(), why: in_go_words(url, error) }
    }

    /// The error of the protocol, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Answer(refusal) => Some(refusal),
            Self::Token { why, .. } => why.refusal(),
            _ => None,
        }
    }

    /// The same, with what its `Retry-After` says.
    pub(super) fn with_retry_after(mut self, header: Option<&str>) -> Self {
        if let Self::Answer(refusal) = &mut self {
            // A date is passed over: clocks differ.
            refusal.retry_after = header.and_then(|text| text.trim().parse().ok());
        }
        self
    }

    /// Whether another address of the same registry may serve.
    pub(super) fn is_about_reaching(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether asking again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status(_, status) => *status >= 500 || *status == 408,
            Self::Answer(refusal) => refusal.status >= 500 || matches!(refusal.status, 408 | 429),
            Self::Token { why, .. } => why.is_passing(),
            _ => false,
        }
    }

    /// Whether there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Status(_, status) => *status == 404,
            other => other.refusal().is_some_and(|refusal| refusal.status == 404),
        }
    }
}

impl Classified for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Login { .. } => ErrorKind::Unauthorized,
            Self::Token { why, .. } => why.kind(),
            Self::Answer(refusal) => match refusal.code.as_str() {
                "UNAUTHORIZED" => ErrorKind::Unauthorized,
                "DENIED" => ErrorKind::Forbidden,
                "TOOMANYREQUESTS" => ErrorKind::TooManyRequests,
                "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" => ErrorKind::NotFound,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        }
    }
}

/// The text of a code that comes without one.
fn known_message(code: &str) -> &'static str {
    match code {
        "UNAUTHORIZED" => "authentication required",
        "DENIED" => "requested access to the resource is denied",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "TOOMANYREQUESTS" => "too many requests",
        _ => "unknown error",
    }
}

/// A status as Go writes it: `404 Not Found`.
pub(super) fn with_reason(status: reqwest::StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

/// A method as Go's errors write it: `Get`.
fn go_method(method: &str) -> String {
    let mut letters = method.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.flat_map(char::to_lowercase)).collect()
}

/// What went wrong on the way, as Go tells it. The causes of an error are looked through for one that is known.
fn in_go_words(url: &str, error: &reqwest::Error) -> String {
    let url = reqwest::Url::parse(url).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let port = url.as_ref().and_then(|url| url.port_or_known_default()).unwrap_or_default();
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        let text = cause.to_string();
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(words) = system_words(io.kind())
        {
            return if error.is_connect() {
                format!("dial tcp {host}:{port}: connect: {words}")
            } else {
                words.to_owned()
            };
        }
        if text.contains("failed to lookup address") || text.contains("dns error") {
            return format!("dial tcp: lookup {host}: no such host");
        }
        match tls_error(cause) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                return format!("tls: failed to verify certificate: x509: {}", certificate_words(why));
            }
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
                return "http: server gave HTTP response to HTTPS client".to_owned();
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                return format!("remote error: tls: {}", alert_words(*alert));
            }
            _ => {}
        }
        match cause.source() {
            Some(next) => cause = next,
            None if error.is_timeout() => {
                return "net/http: request canceled (Client.Timeout exceeded)".to_owned();
            }
            None => return text,
        }
    }
}

/// The error of TLS that this one is or wraps; the source of an I/O error passes over what it wraps.
fn tls_error<'a>(mut cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        cause = inner;
    }
    cause.downcast_ref()
}

fn system_words(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    Some(match kind {
        ConnectionRefused => "connection refused",
        ConnectionReset => "connection reset by peer",
        HostUnreachable => "no route to host",
        NetworkUnreachable => "network is unreachable",
        TimedOut => "i/o timeout",
        UnexpectedEof => "unexpected EOF",
        _ => return None,
    })
}

/// What the other end refused, in the words of Go's `crypto/tls`.
fn alert_words(alert: rustls::AlertDescription) -> String {
    use rustls::AlertDescription::{BadCertificate, CertificateRequired, HandshakeFailure, UnknownCA};
    match alert {
        CertificateRequired => "certificate required".to_owned(),
        BadCertificate => "bad certificate".to_owned(),
        HandshakeFailure => "handshake failure".to_owned(),
        UnknownCA => "unknown certificate authority".to_owned(),
        other => format!("{other:?}"),
    }
}

fn certificate_words(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, UnknownIssuer};
    match why {
        UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        Expired | ExpiredContext { .. } => "certificate has expired or is not yet valid".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> RegistryError {
        RegistryError::of_answer(reqwest::StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn answers_are_told_as_dockerd_tells_them() {
        for (status, body, text) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (403, r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#, "denied: no"),
            (401, "", "unauthorized: authentication required"),
            (429, r#"{"details":"slow down"}"#, "toomanyrequests: slow down"),
            (500, "<html>", "received unexpected HTTP status: 500 Internal Server Error"),
            (404, r#"{"errors":[]}"#, "received unexpected HTTP status: 404 Not Found"),
        ] {
            assert_eq!(answer(status, body).to_string(), text);
        }
        assert!(
            answer(429, "").is_passing() && answer(503, "").is_passing() && !answer(404, "").is_passing()
        );
        assert_eq!(go_method("DELETE"), "Delete");
    }
}
