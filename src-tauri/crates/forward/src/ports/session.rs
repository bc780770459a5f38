//! One PORTS stream of the engine's.

use super::Asked;
use caisson_guest_proto::{FrameError, FrameReader, PortsReply, PortsRequest, write_frame};
use caisson_hypervisor::VsockStream;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// Answers the engine's calls, one after the other, until it hangs up or breaks the protocol.
pub(super) async fn serve(stream: VsockStream, number: u64, ask: mpsc::Sender<Asked>) {
    info!("the engine's ports stream is open");
    match converse(stream, number, &ask).await {
        Ok(()) => info!("the engine closed its ports stream"),
        Err(error) => warn!(error = &error as &dyn std::error::Error, "the engine's ports stream broke"),
    }
}

async fn converse(stream: VsockStream, number: u64, ask: &mpsc::Sender<Asked>) -> Result<(), FrameError> {
    let (from, mut to) = tokio::io::split(stream);
    let mut requests = FrameReader::new(from);
    while let Some(PortsRequest { id, call }) = requests.next().await? {
        let (answer, answered) = oneshot::channel();
        if ask.send(Asked { stream: number, call, answer }).await.is_err() {
            return Ok(());
        }
        let Ok(result) = answered.await else { return Ok(()) };
        write_frame(&mut to, &PortsReply { id, result }).await?;
    }
    Ok(())
}
