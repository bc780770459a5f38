//! The guest's unsafe: what the kernel offers and no safe crate wraps.
//!
//! What is not here stands alone where its proof is: the event loop's registration of a descriptor (`init/src/vsock.rs`,
//! `engine/src/readiness.rs`) and the descriptor that the shim is given by number (`shim/src/main.rs`).

pub mod clone;
pub mod device_filter;
pub mod exec;
pub mod keyring;
pub mod loopback;
pub mod memory;
pub mod mount_attr;
pub mod netns;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod vsock;
