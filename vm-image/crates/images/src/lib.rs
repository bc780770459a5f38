//! Images: their names, their contents, and where these are kept.
//!
//! A [`Store`] keeps what [`load`](Store::load) and [`import`](Store::import) bring in, in the way of dockerd's
//! classic image store: an image is known by the digest of its configuration, its layers are unpacked once, each
//! into a directory that serves as a lower directory of overlayfs, and images share the layers they have in common.
//!
//! Everything here blocks; callers with an async runtime use a blocking thread. Nothing here knows HTTP: errors
//! have a [`kind`](Classified::kind) and dockerd's wording.

mod archive;
mod blobs;
mod changes;
mod config;
mod digest;
mod durable;
mod error;
mod image;
mod import;
mod layer;
mod reference;
mod store;
mod tar;
#[cfg(test)]
mod testing;

pub use archive::{LoadError, LoadEvent, LoadOptions, Loaded};
pub use blobs::BlobError;
pub use changes::ChangeError;
pub use config::{Empty, HealthConfig, History, ImageConfig, KeySet, Platform, RootFs, RunConfig};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use durable::StateError;
pub use error::{Classified, ErrorKind};
pub use image::{ContainerUse, Image, Removed};
pub use import::{ImportError, ImportOptions};
pub use layer::LayerError;
pub use reference::{AnyReference, Reference, ReferenceError};
pub use store::{
    CreateError, FindError, HoldError, Limits, Obstacle, OpenError, RemoveError, RemoveOptions, Store,
    TagError,
};
pub use tar::TarError;
