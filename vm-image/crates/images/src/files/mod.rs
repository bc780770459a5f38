//! Trees of files as tar archives, both ways: for `docker cp`, `export` and `commit`, and to fill volumes.
//!
//! All of it works on descriptors: a name is resolved once, by the kernel and with a directory as its root, and never as
//! a path of this system. So it can be done in a container's mount namespace, while the container renames what it likes.

mod ids;
mod pack;
mod unpack;

pub use ids::{IdRange, Ids};
pub use pack::{Packed, pack};
pub use unpack::{UnpackOptions, unpack};

#[cfg(test)]
mod tests;
