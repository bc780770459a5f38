//! What an error means to whoever asked. Each operation has its own error type beside it; every one of them
//! answers [`ErrorKind`], and the engine turns kinds into HTTP statuses in one place.
//!
//! `Display` of an error says its own level only. Where dockerd's wording is known, the outermost level has it;
//! the edge prints the chain of sources, joined with `": "`.

/// What an error means to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such image (404).
    NotFound,
    /// Who asks is not known, or may not have it (401).
    Unauthorized,
    /// Who asks may not have it (403).
    Forbidden,
    /// Somebody else asks for patience (429).
    TooManyRequests,
    /// The state of other things forbids it (409).
    Conflict,
    /// The caller gave something that cannot be (400).
    Invalid,
    /// This side failed: disk, permissions, a damaged store (500).
    Internal,
}

/// An error of this crate. The engine answers all of them alike: status by kind, text by the chain of sources.
pub trait Classified: std::error::Error + Send + Sync + 'static {
    /// What it means to the caller.
    fn kind(&self) -> ErrorKind;
}

/// An error with its sources, as the edge prints it; for logs.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
