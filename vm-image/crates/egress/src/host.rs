//! Streams to the host.

use std::future::Future;
use std::io;

use caisson_guest_proto::{
    Connection, Duplex, EgressRefusal, EgressReply, EgressRequest, read_frame, write_frame,
};

/// Opens EGRESS streams to the host.
pub trait Host: Clone + 'static {
    /// One of them, raw.
    type Stream: Connection + 'static;

    /// Opens one; returns when the host has accepted it.
    fn open(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// A stream on which the flow follows.
pub(crate) type Flow<H> = Duplex<<H as Host>::Stream>;

/// Asks the host for a way. A host that cannot be asked is one without a route.
pub(crate) async fn ask<H: Host>(host: &H, request: EgressRequest) -> Result<Flow<H>, EgressRefusal> {
    converse(host, request).await.unwrap_or_else(|error| {
        tracing::debug!(?request, %error, "the host cannot be asked");
        Err(EgressRefusal::NetworkUnreachable)
    })
}

async fn converse<H: Host>(host: &H, request: EgressRequest) -> io::Result<Result<Flow<H>, EgressRefusal>> {
    let mut stream = Duplex::new(host.open().await?);
    write_frame(&mut stream, &request).await.map_err(io::Error::other)?;
    match read_frame(&mut stream).await.map_err(io::Error::other)? {
        Some(EgressReply::Open) => Ok(Ok(stream)),
        Some(EgressReply::Refused { kind, message }) => {
            tracing::debug!(?request, message, "the host refused");
            Ok(Err(kind))
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
