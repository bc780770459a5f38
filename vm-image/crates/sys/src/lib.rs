//! The guest's unsafe: what the kernel offers and no safe crate wraps. And how its programs [replace] a file, once for all.
//!
//! What is not here stands alone where its proof is: the event loop's registration of a descriptor (`init/src/vsock.rs`,
//! `engine/src/readiness.rs`) and the descriptor that the shim is given by number (`shim/src/main.rs`).

mod bpf;
mod btf;
pub mod clone;
pub mod device_filter;
pub mod exec;
pub mod keyring;
pub mod loopback;
pub mod memory;
pub mod mount_attr;
pub mod netfilter;
pub mod netns;
pub mod quota;
pub mod replace;
pub mod seccomp;
pub mod signal;
pub mod socket_guard;
pub mod spawn;
pub mod transparent;
pub mod userns;
pub mod vsock;
