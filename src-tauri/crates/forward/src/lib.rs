//! Streams between this computer and the machine: the Docker socket, published ports, and what leaves the machine.
//!
//! ```text
//!  docker CLI ──▶ docker.sock │ a named pipe ────▶ api ───▶ engine          bytes, as they are
//!  a browser  ──▶ 127.0.0.1:8080 ──────────────────▶ ports ─▶ container       bytes, as they are
//!                                  the engine's wishes ─▲                     guest-proto PORTS
//!  the internet ◀── ordinary sockets ◀── egress ◀─────────────────────────── any container
//! ```
//!
//! Everything is a copy of bytes between two streams. A half-close is passed on in both directions, because attach, exec
//! and build say "no more input" with it, and many servers answer only then. Memory is bounded: two small buffers a
//! connection, and a limit on connections after which new ones wait in the system's own queue.
//!
//! What the guest says is not trusted further than the protocol goes: it may name ports of this computer to listen on
//! and addresses *inside itself* to lead to, and where its own flows are to go, which a policy decides; nothing else.

mod accept;
mod api;
mod egress;
mod guest;
mod listen;
mod ports;
#[cfg(test)]
mod testing;

pub use accept::{Accept, serve_each, serve_each_in};
pub use api::serve_api;
pub use egress::{EgressPolicy, serve_egress};
pub use guest::Guest;
pub use listen::{BindError, Connection, Listener};
pub use ports::{PortStatus, Ports};
