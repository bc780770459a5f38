//! Images: their names, their contents, and where these are kept.
//!
//! A [`Store`] keeps what [`load`](Store::load) and [`import`](Store::import) bring in, in the way of dockerd's
//! classic image store: an image is known by the digest of its configuration, its layers are unpacked once, each
//! into a directory that serves as a lower directory of overlayfs, and images share the layers they have in common.
//!
//! Everything here blocks; callers with an async runtime use a blocking thread. Nothing here knows HTTP: errors
//! have a [`kind`](ErrorKind) and dockerd's wording.

pub mod config;
pub mod digest;
mod error;
mod image;
pub mod reference;
mod store;

pub use config::{Empty, HealthConfig, History, ImageConfig, KeySet, Platform, RootFs, RunConfig};
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use error::{Classified, ErrorKind};
pub use image::{ContainerUse, Image, Removed};
pub use reference::{AnyReference, Reference, ReferenceError};
pub use store::{
    FindError, HoldError, ImportError, ImportOptions, LoadError, LoadEvent, LoadOptions, Loaded, OpenError,
    RemoveError, RemoveOptions, Store, TagError,
};
