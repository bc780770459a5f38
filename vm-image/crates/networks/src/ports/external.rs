//! Ports of the machine's host, asked for over PORTS.
//!
//! One task owns the stream. What is to be open is in [`Wanted`], which outlives streams: each new one begins with a
//! `Reconcile` of all of it, so that neither side needs to remember what the other was told before.
//!
//! ```text
//! away --connected--> reconciling --answered--> serving --stream ends--> away
//!                          ^--something was refused---'
//! ```
//!
//! A wish for a port waits for the host for [`PATIENCE`]; then it fails. A port that is closed while the host is away is
//! closed by the next `Reconcile`; one whose opening got no answer is in none, so it is closed, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caisson_guest_proto::{
    FrameError, FrameReader, PortForward, PortOutcome, PortsAnswer, PortsCall, PortsReply, PortsRequest,
    PublishRefused, RefusalCode, write_frame,
};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::{Connections, PublishError};

/// How long a request waits for its answer, the host's coming back included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an engine that starts waits for the host before it goes on without.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// The waits between attempts to connect grow from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The waits before the host is asked once more for what it refused grow from the first to the second.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Requests that may wait for the task.
const QUEUE: usize = 64;

/// All forwards that are to be open, by key.
type Wanted = Arc<Mutex<BTreeMap<String, PortForward>>>;

type Answer = Result<PortsAnswer, PublishRefused>;

/// A call, and who waits for its answer. Dropping the sender says that there is none.
struct Question {
    call: PortsCall,
    answer: oneshot::Sender<Answer>,
}

/// The host's ports.
#[derive(Debug)]
pub(super) struct External {
    wanted: Wanted,
    within_reach: watch::Receiver<bool>,
    started: Instant,
    questions: mpsc::Sender<Question>,
    task: JoinHandle<()>,
}

impl Drop for External {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl External {
    /// Starts to keep in touch with the host; `recorded` is what it is to keep open.
    pub(super) fn start(socket: PathBuf, recorded: impl Iterator<Item = PortForward>) -> Self {
        let wanted: BTreeMap<_, _> = recorded.map(|forward| (forward.key.clone(), forward)).collect();
        let wanted = Wanted::new(Mutex::new(wanted));
        let (questions, queue) = mpsc::channel(QUEUE);
        let (reach, within_reach) = watch::channel(false);
        let link = Link { socket, wanted: Arc::clone(&wanted), reach, queue };
        let started = Instant::now();
        Self { wanted, within_reach, started, questions, task: tokio::spawn(link.keep()) }
    }

    /// Asks the host to open a port and waits until it is bound.
    pub(super) async fn open(&self, forward: PortForward) -> Result<u16, PublishError> {
        match self.ask(PortsCall::Publish { forward: forward.clone() }).await {
            Some(Ok(PortsAnswer::Published { host_port })) => Ok(host_port),
            Some(Ok(answer)) => {
                let message = format!("the host gave an answer to another question: {answer:?}");
                let refused = PublishRefused { code: RefusalCode::Other, message, holder: None };
                Err(PublishError::refused(&forward, refused))
            }
            Some(Err(refused)) => Err(PublishError::refused(&forward, refused)),
            None => Err(PublishError::away(&forward)),
        }
    }

    /// Asks the host to close ports and waits until they are free, for [`PATIENCE`] at most. A host that is away or
    /// does not answer will close them when it does: nobody waits for that.
    pub(super) async fn close(&self, keys: impl Iterator<Item = &str>, connections: Connections) {
        let keep_connections = connections == Connections::Kept;
        let give_up_at = Instant::now() + PATIENCE;
        for key in keys {
            lock(&self.wanted).remove(key);
            if !*self.within_reach.borrow() {
                continue;
            }
            let asked = self.ask(PortsCall::Unpublish { key: key.to_owned(), keep_connections });
            match timeout_at(give_up_at, asked).await.ok().flatten() {
                Some(Ok(_)) => {}
                Some(Err(refused)) => warn!(key, %refused, "the host did not close a port"),
                None => debug!(key, "the host does not answer; it will close this port when it does"),
            }
        }
    }

    /// Whether the host is within reach, or gets there within [`FIRST_PATIENCE`] of the start.
    ///
    /// An engine that starts with many ports waits for an absent host once, not once for each.
    pub(super) async fn comes_soon(&self) -> bool {
        let mut reach = self.within_reach.clone();
        let coming = reach.wait_for(|within| *within);
        timeout_at(self.started + FIRST_PATIENCE, coming).await.is_ok_and(|came| came.is_ok())
    }

    /// `None` when the host is away for too long, or went away before it answered.
    async fn ask(&self, call: PortsCall) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(Question { call, answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// The task's side.
struct Link {
    socket: PathBuf,
    wanted: Wanted,
    /// Whether there is a stream. A stream that ends in the next moment is as good as none for those who ask.
    reach: watch::Sender<bool>,
    queue: mpsc::Receiver<Question>,
}

/// One connection.
struct Stream {
    wanted: Wanted,
    replies: FrameReader<OwnedReadHalf>,
    requests: OwnedWriteHalf,
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
}

/// Who waits for an answer, and the forward that it is about.
struct Waiting {
    answer: oneshot::Sender<Answer>,
    forward: Option<PortForward>,
}

impl Link {
    async fn keep(mut self) {
        loop {
            let stream = connect(&self.socket).await;
            info!("the host's ports are within reach");
            self.reach.send_replace(true);
            let served = self.serve(stream).await;
            self.reach.send_replace(false);
            match served {
                Ok(()) => debug!("the host ended the ports stream"),
                Err(error) => warn!(%error, "the ports stream failed"),
            }
        }
    }

    /// Returns when the stream has ended; who waited on it learns that there is no answer.
    async fn serve(&mut self, stream: UnixStream) -> Result<(), FrameError> {
        let (reader, writer) = stream.into_split();
        let replies = FrameReader::new(reader);
        let wanted = Arc::clone(&self.wanted);
        let mut stream = Stream { wanted, replies, requests: writer, last_id: 0, waiting: HashMap::new() };
        let mut refusals = Refusals::default();
        if stream.reconcile(&mut refusals).await?.is_break() {
            return Ok(());
        }
        loop {
            // What is on its way to be opened would be closed: it is wanted only once it is open.
            let is_calm = stream.waiting.is_empty();
            tokio::select! {
                reply = stream.replies.next() => match reply? {
                    Some(reply) => if stream.answer(reply).is_break() { return Ok(()) },
                    None => return Ok(()),
                },
                Some(question) = self.queue.recv() => stream.ask(question).await?,
                () = sleep_until(refusals.again_at), if is_calm && refusals.any() => {
                    if stream.reconcile(&mut refusals).await?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// What the host could not open when it was told all that is to be open.
struct Refusals {
    keys: BTreeSet<String>,
    /// When it is told again, and how long it is left alone after that.
    again_at: Instant,
    pause: Duration,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), again_at: Instant::now() + FIRST_RETRY, pause: FIRST_RETRY }
    }
}

impl Refusals {
    fn any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Notes what became of it this time. What is refused as before is no news.
    fn note(&mut self, outcomes: Vec<PortOutcome>) {
        let before = std::mem::take(&mut self.keys);
        for PortOutcome { key, result } in outcomes {
            match result {
                Ok(_) if before.contains(&key) => info!(key, "the host has opened a port again"),
                Ok(_) => {}
                Err(refused) => {
                    if before.contains(&key) {
                        debug!(key, %refused, "the host could still not open a port again");
                    } else {
                        warn!(key, %refused, "the host could not open a port again");
                    }
                    self.keys.insert(key);
                }
            }
        }
    }

    /// Leaves the host alone for a while, longer each time.
    fn rest(&mut self) {
        self.again_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }
}

impl Stream {
    /// Tells the host all that is to be open, and waits for its word on it. Break: the stream has ended.
    ///
    /// What was refused stays wanted.
    async fn reconcile(&mut self, refusals: &mut Refusals) -> Result<ControlFlow<()>, FrameError> {
        let ports = lock(&self.wanted).values().cloned().collect();
        let (answer, reconciled) = oneshot::channel();
        self.ask(Question { call: PortsCall::Reconcile { ports }, answer }).await?;
        while !self.waiting.is_empty() {
            match self.replies.next().await? {
                Some(reply) => drop(self.answer(reply)),
                None => return Ok(ControlFlow::Break(())),
            }
        }
        match reconciled.await {
            Ok(Ok(PortsAnswer::Reconciled { outcomes })) => refusals.note(outcomes),
            Ok(Ok(answer)) => warn!(?answer, "the host gave an answer to another question"),
            Ok(Err(refused)) => warn!(%refused, "the host did not reconcile its ports"),
            Err(_) => {}
        }
        refusals.rest();
        Ok(ControlFlow::Continue(()))
    }

    async fn ask(&mut self, question: Question) -> Result<(), FrameError> {
        if question.answer.is_closed() && matches!(question.call, PortsCall::Publish { .. }) {
            // Whoever asked has run out of patience, and must not get what they were told they do not have. What
            // they want closed is closed all the same.
            return Ok(());
        }
        self.last_id += 1;
        let Question { call, answer } = question;
        let forward = match &call {
            PortsCall::Publish { forward } => Some(forward.clone()),
            PortsCall::Reconcile { .. } | PortsCall::Unpublish { .. } => None,
        };
        self.waiting.insert(self.last_id, Waiting { answer, forward });
        write_frame(&mut self.requests, &PortsRequest { id: self.last_id, call }).await
    }

    /// Break: the host has opened what nobody wants any more, so a fresh `Reconcile` is due.
    fn answer(&mut self, reply: PortsReply) -> ControlFlow<()> {
        let Some(Waiting { answer, forward }) = self.waiting.remove(&reply.id) else {
            warn!(id = reply.id, "the host answered what nobody asked");
            return ControlFlow::Continue(());
        };
        let Some(forward) = forward else {
            // Whoever asked may have run out of patience.
            let _ = answer.send(reply.result);
            return ControlFlow::Continue(());
        };
        let key = forward.key.clone();
        // Before the answer: a stream that ends right after it must not make the next `Reconcile` close the port.
        match &reply.result {
            Ok(PortsAnswer::Published { host_port }) => {
                lock(&self.wanted).insert(key.clone(), PortForward { host_port: *host_port, ..forward })
            }
            _ => lock(&self.wanted).remove(&key),
        };
        match answer.send(reply.result) {
            Err(Ok(_)) => {
                lock(&self.wanted).remove(&key);
                ControlFlow::Break(())
            }
            Ok(()) | Err(Err(_)) => ControlFlow::Continue(()),
        }
    }
}

/// Tries until it succeeds.
async fn connect(socket: &Path) -> UnixStream {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(error) => report_unreachable(socket, &error),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn report_unreachable(socket: &Path, error: &io::Error) {
    debug!(socket = %socket.display(), %error, "the host's ports are out of reach");
}

fn lock(wanted: &Wanted) -> MutexGuard<'_, BTreeMap<String, PortForward>> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}
