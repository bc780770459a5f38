//! The Docker Engine API over HTTP: a socket, a table of routes, one file a resource.
//!
//! A request goes: [`server`] (one task a connection) -> [`version`] (the `/v1.NN` prefix) -> [`routes`] (a row of the table)
//! -> the resource's function, which reads its [`call::Call`] and returns a [`reply::Reply`] or an [`error::ApiError`].
//! Every call runs in a task of its own, so that a client who hangs up does not leave a container half removed; what
//! streams (logs, events, wait) ends with its body.

pub(crate) mod absent;
pub(crate) mod auth;
mod build;
pub(crate) mod call;
pub(crate) mod containers;
pub(crate) mod df;
pub(crate) mod distribution;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod form;
pub(crate) mod hijack;
pub(crate) mod images;
pub(crate) mod networks;
mod quiet;
pub(crate) mod reply;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod system;
pub(crate) mod version;
pub(crate) mod volumes;
mod websocket;

/// The content type of streams with Docker's headers.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// The content type of streams as they are.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
