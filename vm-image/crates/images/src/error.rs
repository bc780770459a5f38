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
