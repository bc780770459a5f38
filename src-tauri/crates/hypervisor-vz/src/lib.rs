//! The backend for macOS: Apple's Virtualization.framework, in this process.
//!
//! A machine is a `VZVirtualMachine`. The framework demands that every call on it is made on the serial dispatch
//! queue that it was created with, so the objects are confined to that queue ([`queue::Confined`]) and the rest of
//! the program sends closures there and awaits their answers.
//!
//! ```text
//!  VzVm ──closure──▶ the machine's queue: VZVirtualMachine, socket device, delegates
//!       ◀──oneshot──                      │ guest stopped, guest connects
//!       ◀──watch, mpsc────────────────────┘
//! ```
//!
//! A vsock stream is the descriptor that the framework hands out: a stream socket, so half-close works as on any
//! other. The framework's own process that runs the guest ends with ours, however that comes about.
//!
//! Needs macOS 13 or newer and the entitlement `com.apple.security.virtualization` on the program that uses it. It
//! has been type-checked and linted on Linux; it has not run on a Mac yet.

#![cfg(target_os = "macos")]

mod configuration;
mod console;
mod delegates;
mod launch;
mod queue;
mod vm;

pub use launch::Vz;
