//! What the engine and a container's shim say to each other, and the files they share.
//!
//! The program itself is `caisson-shim <bundle>` (see `main.rs`); this library is only the contract.

pub mod config;
pub mod proto;

pub use config::{ExecProcess, LogFile, LogFormat, LogTarget, Rootfs, ShimConfig, Stdin};
