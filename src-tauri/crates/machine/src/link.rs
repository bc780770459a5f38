//! Our side of a CONTROL stream.

use std::time::Duration;

use caisson_guest_proto::{FrameError, FrameReader, FromGuest, PROTOCOL, ToGuest, write_frame};
use caisson_hypervisor::VsockStream;
use tokio::{
    io::{ReadHalf, WriteHalf, split},
    sync::mpsc,
    task::JoinSet,
};

/// How many messages wait for a guest that does not read.
const WAITING: usize = 16;
/// How long a refusal may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

/// A CONTROL stream: messages come and go, and neither waits for the other.
pub(crate) struct Link {
    reader: FrameReader<ReadHalf<VsockStream>>,
    outbox: mpsc::Sender<ToGuest>,
    writer: JoinSet<()>,
    /// Whether the guest said hello and was welcomed.
    pub(crate) welcomed: bool,
}

impl Link {
    /// Takes over a stream that the guest opened.
    pub(crate) fn over(stream: VsockStream) -> Self {
        let (reader, writer) = split(stream);
        let (outbox, messages) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(write_all(writer, messages));
        Self { reader: FrameReader::new(reader), outbox, writer: tasks, welcomed: false }
    }

    /// What the guest says next. May be dropped while waiting.
    pub(crate) async fn next(&mut self) -> Result<Option<FromGuest>, FrameError> {
        self.reader.next().await
    }

    /// Says something to the guest; `false` if it has not read for so long that there is no room for more.
    pub(crate) fn tell(&self, message: ToGuest) -> bool {
        self.outbox.try_send(message).is_ok()
    }

    /// Tells a guest of another protocol that it is one, and waits until that is written.
    pub(crate) async fn refuse(mut self, reason: String) {
        self.tell(ToGuest::Refused { reason, protocol: PROTOCOL });
        drop(self.outbox);
        // A guest that does not read its refusal is ended all the same.
        let _ = tokio::time::timeout(FAREWELL, self.writer.join_next()).await;
    }
}

async fn write_all(mut stream: WriteHalf<VsockStream>, mut messages: mpsc::Receiver<ToGuest>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = write_frame(&mut stream, &message).await {
            // The reading side sees the end of the stream too, and is the one to act on it.
            tracing::debug!(%error, "cannot write to the guest");
            return;
        }
    }
}
