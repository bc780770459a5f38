//! Why a container could not be made, as text for a person and a kind for the engine.
//!
//! The text crosses from the container's half-made process to the shim, from there to the engine and to the user's terminal, where people
//! (and scripts) know runc's words. So failures are chains of text, outermost first, as Go programs make them, and what the engine decides by
//! is the kind.

use std::fmt::Display;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Why a container's program could not be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class of the failure.
    pub kind: FailureKind,
    /// In runc's words where runc has some: `exec: "foo": executable file not found in $PATH`.
    pub message: String,
}

/// The class of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program does not exist.
    NotFound,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// A path that must be a directory is not one, or the program is one.
    NotDirectory,
    /// The container's process lacks a right.
    Permission,
    /// A user, group or limit asked for does not exist here, or cannot be had.
    Invalid,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// The container's exit code for this failure, as dockerd sets it: 127 not found, 126 cannot be invoked, else 128.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable | Self::NotDirectory | Self::Permission => 126,
            Self::Invalid | Self::Other => 128,
        }
    }
}

impl Failure {
    /// A failure of some kind.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure that only says what happened.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Other, message)
    }

    /// What was asked for cannot be had.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    fn within(mut self, context: impl Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

/// Go's text for an error number: the C library's, in lower case and without Rust's "(os error 2)".
pub(crate) fn text(error: &io::Error) -> String {
    let full = error.to_string();
    let plain = match full.find(" (os error ") {
        Some(end) => &full[..end],
        None => &full,
    };
    let mut letters = plain.chars();
    let second_is_lower = plain.chars().nth(1).is_some_and(|c| !c.is_ascii_uppercase());
    match letters.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(letters).collect(),
        _ => plain.to_owned(),
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::other(text(&error))
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Puts what was being done in front of what went wrong.
pub(crate) trait Context<T> {
    /// `context` is evaluated only on failure.
    fn context<C: Display>(self, context: impl FnOnce() -> C) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context<C: Display>(self, context: impl FnOnce() -> C) -> Result<T, Failure> {
        self.map_err(|error| error.into().within(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        let missing: Result<(), _> = Err(Errno::NOENT);
        let failure = missing.context(|| "stat /x").unwrap_err();
        assert_eq!(failure.message, "stat /x: no such file or directory");
        assert_eq!(failure.kind, FailureKind::Other);
    }
}
