//! The conversation with the host on CONTROL, for as long as the machine runs.
//!
//! Whatever wants to tell the host something puts it into the [`Outbox`] and goes on. The link carries it over when
//! there is a host; when the host goes away it connects again and again, and a new host is first told what holds now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use caisson_guest_proto::{
    FrameReader, FromGuest, HOST_CONTROL, HostFact, PROTOCOL, ToGuest, UnixNanos, check_protocol, read_frame,
    write_frame,
};
use tokio::sync::{Notify, mpsc};

use crate::backoff::Backoff;
use crate::vsock::VsockStream;

/// How many messages are kept while there is no host; then the oldest log line goes.
const KEPT: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How long a host may take to answer a hello before this side tries again.
const WELCOME_DEADLINE: Duration = Duration::from_secs(10);

/// What is to be told to the host.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<FromGuest>,
    /// How far the machine has got.
    standing: Option<FromGuest>,
    /// Whether the disk has room, told apart from how far the machine has got: both hold at once.
    disk: Option<FromGuest>,
}

impl Queue {
    fn push(&mut self, message: FromGuest) {
        match message {
            FromGuest::Stage { .. }
            | FromGuest::EngineUp
            | FromGuest::EngineDown { .. }
            | FromGuest::Failed { .. } => self.standing = Some(message.clone()),
            FromGuest::DiskFull { .. } | FromGuest::DiskHasRoom => self.disk = Some(message.clone()),
            FromGuest::Hello { .. }
            | FromGuest::Log { .. }
            | FromGuest::PoweringOff
            | FromGuest::Pong { .. } => {}
        }
        if self.messages.len() >= KEPT {
            self.drop_one();
        }
        self.messages.push_back(message);
    }

    /// Makes room: the console has the log lines, too, and the rest is said nowhere else.
    fn drop_one(&mut self) {
        let log = self.messages.iter().position(|message| matches!(message, FromGuest::Log { .. }));
        self.messages.remove(log.unwrap_or(0));
    }

    /// Adds what holds now, for a host that has heard nothing yet, unless that is still to be told anyway.
    fn repeat_standing(&mut self) {
        for holds in [&self.standing, &self.disk].into_iter().flatten() {
            if !self.messages.contains(holds) {
                self.messages.push_back(holds.clone());
            }
        }
    }
}

impl Outbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), filled: Notify::new() })
    }

    /// Tells the host, now or when there is one.
    pub(crate) fn send(&self, message: FromGuest) {
        self.queue().push(message);
        self.filled.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing in there can be left half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest message that was not told yet. May be dropped while it waits.
    async fn next(&self) -> FromGuest {
        loop {
            if let Some(message) = self.queue().messages.pop_front() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    /// Returns when everything was handed to the link.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue().messages.is_empty()
    }
}

/// What the host wants of the machine; its questions about the link itself are answered here.
#[derive(Debug)]
pub(crate) enum Order {
    /// The first host is there: the boot goes on.
    Welcome {
        unix_time: UnixNanos,
        hostname: String,
    },
    SetClock(UnixNanos),
    /// The host tells something of itself.
    Learn(HostFact),
    PowerOff {
        grace: Duration,
    },
    /// The host cannot work with this machine.
    Refused {
        reason: String,
    },
}

/// Keeps the conversation going; never returns.
pub(crate) async fn keep(outbox: &Outbox, orders: mpsc::Sender<Order>) {
    let mut retry = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut known = false;
    loop {
        match talk(outbox, &orders, known).await {
            Ok(()) => {
                known = true;
                retry.reset();
                tracing::warn!("the host is gone; looking for it");
            }
            Err(error) => tracing::debug!("no host: {error:#}"),
        }
        tokio::time::sleep(retry.next(rand::random())).await;
    }
}

/// One conversation, to its end; an error if it never began.
async fn talk(outbox: &Outbox, orders: &mpsc::Sender<Order>, known: bool) -> anyhow::Result<()> {
    let mut stream = VsockStream::connect(HOST_CONTROL).await.context("could not connect")?;
    let welcome = tokio::time::timeout(WELCOME_DEADLINE, greet(&mut stream));
    let order = welcome.await.context("the host does not answer")??;
    orders.send(order).await.context("the machine is stopping")?;
    if known {
        outbox.queue().repeat_standing();
    }
    if let Err(error) = converse(outbox, orders, stream).await {
        tracing::warn!("the conversation with the host broke off: {error:#}");
    }
    Ok(())
}

/// Says hello and returns what the host makes of it.
async fn greet(stream: &mut VsockStream) -> anyhow::Result<Order> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hello = FromGuest::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: boot_id.trim().into(),
    };
    write_frame(stream, &hello).await?;
    match read_frame(stream).await? {
        Some(ToGuest::Welcome { protocol, unix_time, hostname }) => Ok(match check_protocol(protocol) {
            Ok(()) => Order::Welcome { unix_time, hostname },
            Err(mismatch) => Order::Refused { reason: mismatch.to_string() },
        }),
        Some(ToGuest::Refused { reason, .. }) => Ok(Order::Refused { reason }),
        Some(other) => bail!("the host answered the hello with {other:?}"),
        None => bail!("the host hung up on the hello"),
    }
}

async fn converse(outbox: &Outbox, orders: &mpsc::Sender<Order>, stream: VsockStream) -> anyhow::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader);
    loop {
        tokio::select! {
            message = outbox.next() => write_frame(&mut writer, &message).await?,
            said = reader.next() => match said? {
                Some(said) => obey(said, outbox, orders).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn obey(said: ToGuest, outbox: &Outbox, orders: &mpsc::Sender<Order>) -> anyhow::Result<()> {
    let order = match said {
        ToGuest::Ping { n } => {
            outbox.send(FromGuest::Pong { n, unix_time: UnixNanos::now() });
            return Ok(());
        }
        ToGuest::SetClock { unix_time } => Order::SetClock(unix_time),
        ToGuest::Host { fact } => Order::Learn(fact),
        ToGuest::PowerOff { grace_secs } => Order::PowerOff { grace: Duration::from_secs(grace_secs.into()) },
        ToGuest::Refused { reason, .. } => Order::Refused { reason },
        ToGuest::Welcome { .. } => bail!("a second welcome"),
    };
    orders.send(order).await.context("the machine is stopping")
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::BootStage;

    use super::*;

    fn log(line: &str) -> FromGuest {
        FromGuest::Log { line: line.into() }
    }

    #[tokio::test]
    async fn messages_come_out_in_order_and_the_oldest_goes_when_there_are_too_many() {
        let outbox = Outbox::new();
        for n in 0..KEPT + 2 {
            outbox.send(log(&n.to_string()));
        }
        assert_eq!(outbox.next().await, log("2"));
        assert_eq!(outbox.next().await, log("3"));
        assert!(!outbox.is_empty());
    }

    #[tokio::test]
    async fn a_flood_of_log_lines_drops_nothing_but_log_lines() {
        let outbox = Outbox::new();
        outbox.send(FromGuest::EngineUp);
        outbox.send(FromGuest::PoweringOff);
        for n in 0..2 * KEPT {
            outbox.send(log(&n.to_string()));
        }
        assert_eq!(outbox.queue().messages.len(), KEPT);
        assert_eq!(outbox.next().await, FromGuest::EngineUp);
        assert_eq!(outbox.next().await, FromGuest::PoweringOff);
        assert_eq!(outbox.next().await, log(&(KEPT + 2).to_string()));
    }

    #[tokio::test]
    async fn a_new_host_is_told_that_the_disk_is_full_beside_how_far_the_machine_is() {
        let outbox = Outbox::new();
        let full = FromGuest::DiskFull { free: 1, total: 2 };
        outbox.send(FromGuest::EngineUp);
        outbox.send(full.clone());
        outbox.queue().messages.clear();
        outbox.queue().repeat_standing();
        assert_eq!(outbox.next().await, FromGuest::EngineUp);
        assert_eq!(outbox.next().await, full);
        outbox.send(FromGuest::DiskHasRoom);
        outbox.queue().messages.clear();
        outbox.queue().repeat_standing();
        assert_eq!(outbox.next().await, FromGuest::EngineUp);
        assert_eq!(outbox.next().await, FromGuest::DiskHasRoom);
        assert!(outbox.is_empty());
    }

    #[tokio::test]
    async fn a_new_host_is_told_what_holds_now_and_once() {
        let outbox = Outbox::new();
        outbox.send(FromGuest::Stage { stage: BootStage::Engine, detail: String::new() });
        outbox.send(FromGuest::EngineUp);
        outbox.queue().repeat_standing();
        assert_eq!(outbox.queue().messages.len(), 2, "it is on its way already");
        outbox.queue().messages.clear();
        outbox.send(log("later"));
        outbox.queue().repeat_standing();
        assert_eq!(outbox.next().await, log("later"));
        assert_eq!(outbox.next().await, FromGuest::EngineUp);
        assert!(outbox.is_empty());
    }
}
