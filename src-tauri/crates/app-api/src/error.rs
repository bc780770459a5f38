//! How a call fails.

use serde::{Deserialize, Serialize};
use specta::Type;

/// How a call failed. Screens decide by [`code`](Self::code), people read the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What a screen decides by.
    pub code: ErrorCode,
    /// What went wrong, in English, naming the object.
    pub message: String,
    /// Causes or a remedy, if there is more to say.
    pub detail: Option<String>,
}

impl ApiError {
    /// An error without detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None }
    }

    /// An error whose message is `error`'s and whose detail is the chain of its causes.
    pub fn from_error(code: ErrorCode, error: &dyn std::error::Error) -> Self {
        let causes: Vec<String> =
            std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect();
        let detail = (!causes.is_empty()).then(|| causes.join(": "));
        Self { code, message: error.to_string(), detail }
    }

    /// The same error with `detail`.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

/// What a screen or a program can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such object.
    NotFound,
    /// The object is in a state, or has a name, that forbids it.
    Conflict,
    /// The request makes no sense.
    Invalid,
    /// The machine is off or not up yet.
    MachineNotRunning,
    /// The machine did not come up or go down; its status has the [`Failure`](crate::Failure).
    MachineFailed,
    /// The engine answered with an error of its own.
    EngineFailed,
    /// No host daemon answers.
    DaemonNotRunning,
    /// Daemon and client are of different versions.
    VersionMismatch,
    /// The development door's token is wrong.
    Unauthorized,
    /// A fault of ours.
    Internal,
}
