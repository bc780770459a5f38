//! What went wrong, as far as a client needs to know: a kind and dockerd's words.
//!
//! Errors of the parts (images, networks, shims) become one of these where the engine knows what they mean for the
//! client. [`crate::http::error`] turns kinds into statuses, once.

/// The classes of errors that clients can tell apart, as in moby's `errdefs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    NotFound,
    Unauthorized,
    Forbidden,
    TooManyRequests,
    InvalidParameter,
    Conflict,
    NotModified,
    NotImplemented,
    Unavailable,
    Internal,
}

/// An error as a client gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// What it takes is not there, such as a swarm.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Already so: 304, which has no body.
    pub(crate) fn not_modified() -> Self {
        Self::new(ErrorKind::NotModified, "")
    }

    /// An error that the client did not cause, with its chain of causes.
    pub(crate) fn from_chain(context: &str, error: &dyn std::error::Error) -> Self {
        Self::internal(format!("{context}: {}", chain(error)))
    }

    /// The same with words in front.
    pub(crate) fn within(self, context: &str) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }
}

/// An error and its causes, outermost first, separated as Go's wrapped errors are.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::from_chain("the engine failed", &error)
    }
}
