//! A container's files: `/containers/{id}/archive`, `/containers/{id}/changes` and `/commit`.

use serde::{Serialize, Serializer};

use crate::time::Timestamp;

/// What is at a place of a container: the header `X-Docker-Container-Path-Stat`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    /// The last name of its path.
    pub name: String,
    /// In bytes.
    pub size: i64,
    /// As Go's `os.FileMode` has it.
    pub mode: u32,
    /// When it was last changed.
    pub mtime: Timestamp,
    /// Where a symbolic link leads in the end; empty for anything else.
    pub link_target: String,
}

/// The answer of `POST /commit`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CommitResponse {
    /// The new image's id.
    pub id: String,
}

/// One change of a container's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Where.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another than the image's, or something in it is.
    Modified,
    /// The image has it not.
    Added,
    /// The image has it, the container not any more.
    Deleted,
}

impl Serialize for ChangeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Modified => 0,
            Self::Added => 1,
            Self::Deleted => 2,
        })
    }
}
