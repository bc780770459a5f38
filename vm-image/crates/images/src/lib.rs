//! Images: their names, their contents, and where these are kept.
//!
//! A [`Store`] keeps what [`load`](Store::load) and [`import`](Store::import) bring in, in the way of dockerd's
//! classic image store: an image is known by the digest of its configuration, its layers are unpacked once, each
//! into a directory that serves as a lower directory of overlayfs, and images share the layers they have in common.
//!
//! The store blocks; callers with an async runtime use a blocking thread. What talks to registries is async and needs
//! tokio. Nothing here knows HTTP: errors
//! have a [`kind`](Classified::kind) and dockerd's wording.

mod archive;
mod blobs;
mod changes;
mod commit;
mod config;
mod digest;
mod durable;
mod error;
pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod growing;
mod image;
mod import;
mod layer;
mod manifest;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
pub mod registry;
mod save;
mod store;
mod tar;
#[cfg(test)]
mod testing;

pub use archive::{LoadError, LoadEvent, LoadOptions, Loaded};
pub use blobs::BlobError;
pub use changes::ChangeError;
pub use commit::{CommitError, CommitOptions, apply_changes};
pub use config::{Empty, HealthConfig, History, ImageConfig, KeySet, RootFs, RunConfig};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use durable::StateError;
pub use error::{Classified, ErrorKind};
pub use image::{ContainerUse, Image, Removed};
pub use import::{ImportError, ImportOptions};
pub use layer::{Compression, LayerBlob, LayerError};
pub use manifest::{Descriptor, ManifestError};
pub use platform::Platform;
pub use progress::{Detail, Listener, Progress};
pub use pull::{Found, Inspected, PullError, Pulled, Puller};
pub use push::{PushError, PushOptions, Pushed, push};
pub use reference::{AnyReference, Reference, ReferenceError};
pub use save::{SaveError, Saving};
pub use store::{
    CreateError, Described, DescribedManifest, FindError, HoldError, Limits, Manifest, ManifestKind,
    Obstacle, OpenError, RemoveError, RemoveFailed, RemoveOptions, Store, TagError,
};
pub use tar::TarError;
