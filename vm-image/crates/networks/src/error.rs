//! What can go wrong, in dockerd's words where it has them.

/// What the HTTP edge needs to know of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such network.
    NotFound,
    /// The request can never work.
    Invalid,
    /// The container has a sandbox already.
    Conflict,
    /// Everything else; dockerd answers 500 for a port that is taken, too.
    Internal,
}

/// An error with the whole chain of its causes in one line, as dockerd prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// There is no such network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network {0} not found")]
pub struct NoSuchNetwork(pub String);

/// Why networks could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the networks")]
pub struct OpenError;

/// Why a container got no sandbox, or lost a port. [`Display`](std::fmt::Display) is the whole message, causes
/// included, in dockerd's words: what `docker run` prints after
/// `failed to set up container networking: `.
#[derive(Debug, thiserror::Error)]
#[error("attach failed")]
pub struct AttachError;

impl AttachError {
    /// What the HTTP edge makes of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// What of a sandbox could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("detach failed")]
pub struct DetachError;
