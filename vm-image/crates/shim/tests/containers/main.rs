//! The shim and the runtime as the engine sees them: real containers of busybox, each made by a real shim.
//!
//! Needs root; without it every test says that it is skipped. Nothing is mounted, and no namespace is made, outside the containers' own.
#![expect(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

mod inside;
mod life;
mod pressure;
mod rig;
