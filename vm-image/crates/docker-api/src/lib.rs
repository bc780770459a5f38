//! The Docker Engine API's types, as dockerd writes and reads them.
//!
//! Clients were written against what Go's `encoding/json` makes of moby's structs, not against a schema: a nil slice is
//! `null`, an empty one `[]`, keys match in any case, an absent field and a `null` are the zero value, times carry
//! nanoseconds without trailing zeros. So these are our own structs, in dockerd's field order, and [`go`] is the one place
//! that knows Go's rules of decoding. One module a resource.
//!
//! What is deliberately not here: what the fields do. The engine decides that.

pub mod container;
pub mod events;
pub mod exec;
pub mod go;
pub mod image;
pub mod network;
pub mod system;
pub mod time;
pub mod volume;

use serde::Serialize;

/// The body of every error: `{"message": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for a person.
    pub message: String,
}

/// An empty JSON object, as Go writes a `struct{}` in a set (`{"80/tcp": {}}`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Empty {}
