//! One task owns a running machine: it waits for its processes and for QMP at once, and says how the machine is.

use std::{collections::HashMap, mem, time::Duration};

use caisson_hypervisor::{
    BoxFuture, ConnectError, GuestVsockPort, PauseReason, StopError, Vm, VmEnd, VmState, VsockStream,
};
use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    console::Recording,
    process::{Exit, Process},
    qmp::{Command, CommandId, Event, Message, Qmp},
    vsock::{Vsock, VsockDevice},
};

/// How often a machine that waits for room on the host's disk is let try again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long QEMU may take to end after it closed QMP or said that the machine is off.
const LAST_BREATH: Duration = Duration::from_secs(5);

enum Order {
    PowerButton(oneshot::Sender<Result<(), StopError>>),
    Kill,
}

/// A machine that QEMU runs.
pub(super) struct QemuVm {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<VmState>,
    vsock: Vsock,
}

/// What a running machine consists of on our side.
pub(super) struct Parts {
    pub(super) qemu: Process,
    pub(super) console: Recording,
    pub(super) vsock: VsockDevice,
    pub(super) qmp: Qmp<UnixStream>,
}

impl QemuVm {
    /// Hands the machine to a task that ends it when the `QemuVm` is dropped.
    pub(super) fn supervise(parts: Parts) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        let (published, state) = watch::channel(VmState::Running);
        let vsock = parts.vsock.vsock.clone();
        let supervisor = Supervisor {
            parts,
            inbox,
            published,
            pressed: HashMap::new(),
            said: None,
            full: None,
            asked: None,
        };
        tokio::spawn(supervisor.run());
        Self { orders, state, vsock }
    }

    fn end(&self) -> Option<VmEnd> {
        match &*self.state.borrow() {
            VmState::Ended(end) => Some(end.clone()),
            VmState::Running | VmState::Paused(_) => None,
        }
    }

    /// How it ended; for those who found the supervisor gone.
    fn ended(&self) -> VmEnd {
        self.end().unwrap_or(VmEnd::Killed)
    }
}

impl Vm for QemuVm {
    fn connect(&self, port: GuestVsockPort) -> BoxFuture<'_, Result<VsockStream, ConnectError>> {
        Box::pin(async move {
            match self.vsock.connect(port).await {
                Ok(stream) => Ok(stream),
                Err(error) => Err(self.end().map_or(error, ConnectError::Ended)),
            }
        })
    }

    fn state(&self) -> watch::Receiver<VmState> {
        self.state.clone()
    }

    fn request_stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let sent = self.orders.send(Order::PowerButton(reply)).await;
            sent.map_err(|_| StopError::Ended(self.ended()))?;
            answer.await.map_err(|_| StopError::Ended(self.ended()))?
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Not taken: it has ended, which is what is wanted.
            let _ = self.orders.send(Order::Kill).await;
            let mut state = self.state.clone();
            let _ = state.wait_for(|state| matches!(state, VmState::Ended(_))).await;
        })
    }
}

struct Supervisor {
    parts: Parts,
    inbox: mpsc::Receiver<Order>,
    published: watch::Sender<VmState>,
    pressed: HashMap<CommandId, oneshot::Sender<Result<(), StopError>>>,
    /// Why the machine is off, if QEMU has said it.
    said: Option<VmEnd>,
    /// While it waits for room on the host's disk: when it is let try again.
    full: Option<Instant>,
    /// The question why its processors stand still.
    asked: Option<CommandId>,
}

impl Supervisor {
    async fn run(mut self) {
        let end = self.until_the_end().await;
        self.parts.qemu.kill().await;
        // Who hears of the end may look for its cause there.
        self.parts.console.finished().await;
        tracing::info!(%end, "the machine has ended");
        drop((self.parts.vsock, self.parts.qmp));
        self.published.send_replace(VmState::Ended(end));
    }

    async fn until_the_end(&mut self) -> VmEnd {
        loop {
            tokio::select! {
                exit = self.parts.qemu.exited() => return self.qemu_ended(exit),
                why = self.parts.vsock.ended() => return self.lost("vsock", why).await,
                order = self.inbox.recv() => match order {
                    Some(Order::PowerButton(reply)) => self.press(reply).await,
                    Some(Order::Kill) | None => return VmEnd::Killed,
                },
                message = self.parts.qmp.next() => match message {
                    Ok(message) => if let Some(end) = self.hear(message).await {
                        return end;
                    },
                    Err(error) => return self.lost("qmp", error.to_string()).await,
                },
                () = sleep_until(self.full.unwrap_or_else(Instant::now)), if self.full.is_some() => {
                    self.resume().await;
                }
            }
        }
    }

    async fn hear(&mut self, message: Message) -> Option<VmEnd> {
        match message {
            Message::Answer(id, Ok(answer)) if self.asked == Some(id) => return self.stands_still(&answer),
            Message::Answer(id, answer) => {
                if let Some(reply) = self.pressed.remove(&id) {
                    // Nobody waits for it any more.
                    let _ = reply.send(answer.map(drop).map_err(StopError::NotDelivered));
                }
            }
            Message::Event(event) => self.happened(event).await,
            Message::Other => {}
        }
        None
    }

    async fn happened(&mut self, event: Event) {
        tracing::debug!(?event, "qemu said");
        match event {
            Event::Shutdown(reason) => {
                let end = end_by(&reason);
                self.said = Some(match mem::take(&mut self.said) {
                    Some(VmEnd::Panicked) => VmEnd::Panicked,
                    _ => end,
                });
            }
            Event::GuestPanicked => self.said = Some(VmEnd::Panicked),
            Event::HostDiskFull => self.wait_for_room(),
            Event::Stop => self.stopped().await,
            Event::Resume => {
                self.published.send_replace(VmState::Running);
            }
        }
    }

    async fn stopped(&mut self) {
        match self.parts.qmp.send(Command::QueryStatus).await {
            Ok(id) => self.asked = Some(id),
            Err(error) => tracing::debug!(%error, "cannot ask why the machine stands still"),
        }
    }

    /// What to make of QEMU's answer: a processor that KVM could not go on with will never go on.
    fn stands_still(&mut self, answer: &Value) -> Option<VmEnd> {
        let status = answer["status"].as_str().unwrap_or_default();
        if status == "internal-error" {
            let how = "the processor's virtualization failed".into();
            return Some(VmEnd::Died { part: self.parts.qemu.name().into(), how, tail: Vec::new() });
        }
        if status == "io-error" {
            self.wait_for_room();
        } else if answer["running"] == false {
            let why = format!("the hypervisor stopped the machine's processors ({status})");
            self.published.send_replace(VmState::Paused(PauseReason::Other(why)));
        }
        None
    }

    /// The processors stand still for the host's full disk, the only error for which they do (`werror=enospc`). QEMU
    /// may tell it twice, as an event and when asked.
    fn wait_for_room(&mut self) {
        self.full.get_or_insert_with(|| Instant::now() + TRY_AGAIN);
        self.published.send_if_modified(|state| {
            let told = *state == VmState::Paused(PauseReason::HostDiskFull);
            if !told {
                *state = VmState::Paused(PauseReason::HostDiskFull);
            }
            !told
        });
    }

    /// Lets the write that found the disk full try again; if it still is, the same event comes again.
    async fn resume(&mut self) {
        self.full = None;
        if let Err(error) = self.parts.qmp.send(Command::Continue).await {
            tracing::debug!(%error, "cannot let the machine go on");
        }
    }

    async fn press(&mut self, reply: oneshot::Sender<Result<(), StopError>>) {
        match self.parts.qmp.send(Command::PowerButton).await {
            Ok(id) => {
                self.pressed.insert(id, reply);
            }
            Err(error) => {
                // Nobody waits for it any more.
                let _ = reply.send(Err(StopError::NotDelivered(error.to_string())));
            }
        }
    }

    fn qemu_ended(&mut self, exit: Exit) -> VmEnd {
        match self.said.take() {
            Some(end) if exit.success => end,
            Some(VmEnd::Panicked) => VmEnd::Panicked,
            Some(_) | None => died(self.parts.qemu.name(), exit),
        }
    }

    /// One of our ways to QEMU is gone: mostly because QEMU is, and then it tells why better.
    async fn lost(&mut self, way: &str, why: String) -> VmEnd {
        match tokio::time::timeout(LAST_BREATH, self.parts.qemu.exited()).await {
            Ok(exit) => self.qemu_ended(exit),
            Err(_) => {
                let how = format!("{way}: {why}");
                VmEnd::Died { part: self.parts.qemu.name().into(), how, tail: Vec::new() }
            }
        }
    }
}

/// QEMU's reasons: `ShutdownCause` in qapi/run-state.json.
fn end_by(reason: &str) -> VmEnd {
    match reason {
        "guest-shutdown" => VmEnd::PoweredOff,
        "guest-panic" => VmEnd::Panicked,
        "guest-reset" | "subsystem-reset" => VmEnd::Rebooted,
        other => VmEnd::Died { part: "qemu".into(), how: format!("shut down by {other}"), tail: Vec::new() },
    }
}

fn died(part: &str, exit: Exit) -> VmEnd {
    VmEnd::Died { part: part.into(), how: exit.how, tail: exit.tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_reasons_are_ours() {
        assert_eq!(end_by("guest-shutdown"), VmEnd::PoweredOff);
        assert_eq!(end_by("guest-reset"), VmEnd::Rebooted);
        assert!(matches!(end_by("host-signal"), VmEnd::Died { how, .. } if how.contains("host-signal")));
    }
}
