//! What clients are told while images come and go, as dockerd tells it.

/// One message of a pull or push.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What it is about: a layer's short digest, or a tag. Empty if it is about all.
    pub id: String,
    /// `Downloading`, `Pull complete`, …
    pub status: String,
    /// How far it is.
    pub detail: Detail,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// It is no step of anything: a message.
    Message,
    /// A step without a measure.
    Step,
    /// Bytes that are done.
    Bytes {
        /// Done.
        current: u64,
        /// In all; 0 if that is not known.
        total: u64,
    },
    /// What a push ended in.
    Pushed {
        /// The manifest's digest.
        digest: crate::Digest,
        /// The manifest's bytes.
        size: u64,
    },
}

/// Where messages go.
pub type Listener = tokio::sync::mpsc::Sender<Progress>;

/// Tells something that is no step.
pub(crate) async fn message(to: &Listener, id: &str, status: String) {
    // Whoever listened is gone: then all this ends soon.
    let _ = to.send(Progress { id: id.to_owned(), status, detail: Detail::Message }).await;
}

/// Tells a step.
pub(crate) async fn step(to: &Listener, id: &str, status: &str, detail: Detail) {
    // As above.
    let _ = to.send(Progress { id: id.to_owned(), status: status.to_owned(), detail }).await;
}
