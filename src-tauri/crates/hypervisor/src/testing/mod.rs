//! For tests: a hypervisor that fails the way real ones fail, a guest that answers in-process, an image that looks whole, and
//! the conformance suite that every backend passes.

pub mod conformance;
mod fake;
mod guest;
mod image;

pub use fake::{Door, FakeHypervisor, GuestSide, LaunchFault};
pub use guest::{GuestScript, Misbehaviour, run_guest};
pub use image::write_image;
