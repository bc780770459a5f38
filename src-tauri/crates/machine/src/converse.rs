//! The conversation with a guest: from its first call to the end of its machine.

use std::{sync::Arc, time::Duration};

use caisson_guest_proto::{
    Duplex, FrameError, FromGuest, HOST_CONTROL, HOST_EGRESS, HOST_PORTS, HostFact, HostVsockPort, PROTOCOL,
    ToGuest, UnixNanos, check_protocol,
};
use caisson_hypervisor::{Incoming, Launched, Vm, VmEnd, VmState, VsockStream};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use crate::{
    EngineStatus, GuestInfo, Limits, MachineState, Stage, Unavailable,
    boot::BootError,
    handle::Request,
    health::{Clock, Pulse},
    link::Link,
    owner::Owner,
    ping,
    queue::Waiter,
    state::{Course, Effect, Stopping, effect_of, in_ms},
};

/// How long the hypervisor may take to press the power button.
const PRESS_LIMIT: Duration = Duration::from_secs(2);

/// A machine that is powered on, and what we know of its guest.
pub(crate) struct Guest {
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) course: Course,
    incoming: Incoming,
    state: watch::Receiver<VmState>,
    link: Option<Link>,
    engine: EngineStatus,
    pulse: Pulse,
    clock: Clock,
    /// What the guest that is connected knows of this computer.
    told: Vec<HostFact>,
    /// The question whether the engine answers, while it is asked.
    ping: JoinSet<Result<(), String>>,
    stopping: Option<Stopping>,
}

/// What is due at a certain moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The stage has taken too long.
    Stage(Stage),
    /// The next step towards the end.
    StopStep,
    /// Somebody has waited too long for the engine to come back.
    Patience,
}

impl Guest {
    pub(crate) fn new(launched: Launched, course: Course) -> Self {
        let vm: Arc<dyn Vm> = launched.vm.into();
        let state = vm.state();
        Self {
            vm,
            course,
            incoming: launched.incoming,
            state,
            link: None,
            engine: EngineStatus::Off,
            pulse: Pulse::heard_at(Instant::now()),
            clock: Clock::default(),
            told: Vec::new(),
            ping: JoinSet::new(),
            stopping: None,
        }
    }

    fn welcomed(&self) -> Option<&Link> {
        self.link.as_ref().filter(|link| link.welcomed)
    }

    /// Whether clients can be served.
    fn serves(&self) -> bool {
        self.course.running() && self.engine == EngineStatus::Up && self.stopping.is_none()
    }

    /// Why a stage that took too long did; the engine's own words are better than that it is late.
    fn timed_out(&self, stage: Stage, limits: &Limits) -> BootError {
        match &self.engine {
            EngineStatus::Restarting { status, tail } if stage == Stage::Engine => {
                BootError::EngineDown { status: status.clone(), tail: tail.clone() }
            }
            EngineStatus::Restarting { .. } | EngineStatus::Up | EngineStatus::Off => {
                BootError::TimedOut { stage, limit: limits.of(stage) }
            }
        }
    }
}

impl Owner {
    /// Until the machine is off. An error ended it against our will; it may still run then.
    pub(crate) async fn converse(&mut self, guest: &mut Guest) -> Result<(), BootError> {
        guest.course.enter(Stage::Kernel, "", Instant::now());
        self.publish(&guest.course);
        let mut look = look_every(self.config.limits.ping_every);
        loop {
            let due = self.next_due(guest);
            tokio::select! {
                biased;
                // First, so that what a guest said before its end is heard before its end is seen.
                message = next_of(&mut guest.link) => self.heard(guest, message).await?,
                changed = guest.state.changed() => {
                    if changed.is_err() {
                        return Err(BootError::Bug("the hypervisor's supervisor".into()));
                    }
                    if let Some(end) = self.powered(guest) {
                        return if guest.stopping.is_some() { Ok(()) } else { Err(BootError::Ended(end)) };
                    }
                }
                Some(answered) = guest.ping.join_next() => {
                    let answered = answered.map_err(|error| BootError::Bug(error.to_string()))?;
                    answered.map_err(BootError::NoAnswer)?;
                    self.answered(guest);
                }
                request = self.requests.recv(), if !self.queue.shutting_down => {
                    self.requested(guest, request).await;
                }
                Some((port, stream)) = guest.incoming.recv() => self.called(guest, port, stream),
                Ok(()) = self.facts.changed() => self.tell_facts(guest),
                () = sleep_until_due(due) => {
                    if let Some((_, due)) = due {
                        self.overdue(guest, due).await?;
                    }
                }
                _ = look.tick() => self.look_after(guest)?,
            }
        }
    }

    /// The machine's power has changed. Gives how it ended, if it did.
    fn powered(&self, guest: &mut Guest) -> Option<VmEnd> {
        let paused = match &*guest.state.borrow_and_update() {
            VmState::Running => None,
            VmState::Paused(why) => Some(why.clone()),
            VmState::Ended(end) => return Some(end.clone()),
        };
        match &paused {
            Some(why) => tracing::warn!(%why, "the machine's processors stand still"),
            None => {
                tracing::info!("the machine's processors run");
                // While they stood still, so did the guest's clock.
                set_clock(guest);
            }
        }
        self.status.send_modify(|status| status.paused = paused);
        None
    }

    fn next_due(&self, guest: &Guest) -> Option<(Instant, Due)> {
        let limits = &self.config.limits;
        if let Some(stopping) = guest.stopping {
            return stopping.until().map(|until| (until, Due::StopStep));
        }
        if guest.course.running() {
            return self.queue.patience_ends(limits.engine_restart).map(|end| (end, Due::Patience));
        }
        match guest.course.stage()? {
            // Whoever asks the engine has the stage's limit, and knows better what went wrong.
            Stage::Socket => None,
            stage => guest.course.deadline(limits).map(|end| (end, Due::Stage(stage))),
        }
    }

    async fn overdue(&mut self, guest: &mut Guest, due: Due) -> Result<(), BootError> {
        let (limits, now) = (self.config.limits, Instant::now());
        match due {
            Due::Stage(stage) => return Err(guest.timed_out(stage, &limits)),
            Due::StopStep => {
                if let Some(step) = guest.stopping {
                    self.take_step(guest, step.next(&limits, now)).await;
                }
            }
            Due::Patience => {
                let (status, tail) = match &guest.engine {
                    EngineStatus::Restarting { status, tail } => (status.as_str(), tail.as_slice()),
                    EngineStatus::Off | EngineStatus::Up => ("it does not answer", [].as_slice()),
                };
                let why = || Unavailable::EngineDown { status: status.into(), tail: tail.to_vec() };
                self.queue.refuse_older(limits.engine_restart, now, why);
            }
        }
        Ok(())
    }

    /// The engine has answered our question: the machine runs.
    fn answered(&mut self, guest: &mut Guest) {
        let took = guest.course.finish(Instant::now());
        guest.engine = EngineStatus::Up;
        tracing::info!(?took, "the machine runs");
        self.publish(&guest.course);
        self.status.send_modify(|status| {
            status.engine = EngineStatus::Up;
            status.boot_ms = Some(in_ms(took));
        });
        self.queue.serve(&guest.vm);
    }

    async fn requested(&mut self, guest: &mut Guest, request: Option<Request>) {
        let now = Instant::now();
        let ending = guest.stopping.is_some();
        match request {
            Some(Request::Start(reply)) => self.wanted(guest, Waiter::Start(reply), now),
            Some(Request::Find(reply)) if ending => Waiter::Need(reply).refuse(Unavailable::Stopped),
            Some(Request::Need(reply) | Request::Find(reply)) => {
                self.wanted(guest, Waiter::Need(reply), now);
            }
            Some(Request::Stop(reply)) => self.queue.wait_for_end(reply),
            Some(Request::Restart(reply)) => self.queue.restart(Waiter::Start(reply), now),
            Some(Request::ShutDown) | None => self.queue.shutting_down = true,
        }
        if !ending && self.queue.wants_end() {
            self.begin_stopping(guest).await;
        }
    }

    fn wanted(&mut self, guest: &Guest, waiter: Waiter, now: Instant) {
        if guest.stopping.is_some() {
            self.queue.wait_for_next(waiter, now);
            return;
        }
        self.queue.wait(waiter, now);
        if guest.serves() {
            self.queue.serve(&guest.vm);
        }
    }

    async fn begin_stopping(&mut self, guest: &mut Guest) {
        let limits = self.config.limits;
        let grace_secs = u32::try_from(limits.stop_grace.as_secs()).unwrap_or(u32::MAX);
        let told = guest.welcomed().is_some_and(|link| link.tell(ToGuest::PowerOff { grace_secs }));
        self.status.send_modify(|status| status.state = MachineState::Stopping);
        guest.ping = JoinSet::new();
        self.take_step(guest, Stopping::begin(told, &limits, Instant::now())).await;
    }

    async fn take_step(&self, guest: &mut Guest, step: Stopping) {
        guest.stopping = Some(step);
        match step {
            Stopping::Told { .. } => {}
            Stopping::Pressed { .. } => {
                tracing::warn!("the guest did not switch off in time; pressing the power button");
                // Whether it was pressed or not: if the machine is not off in time, force follows.
                let _ = timeout(PRESS_LIMIT, guest.vm.request_stop()).await;
            }
            Stopping::Forced => guest.vm.kill().await,
        }
    }

    /// The guest has opened a stream to us.
    fn called(&self, guest: &mut Guest, port: HostVsockPort, stream: VsockStream) {
        match port {
            HOST_CONTROL => guest.link = Some(Link::over(stream)),
            HOST_PORTS => {
                // The engine in the guest comes again, with all that it wants.
                if self.ports.try_send(Box::new(Duplex::new(stream))).is_err() {
                    tracing::warn!("nobody takes the guest's streams about ports");
                }
            }
            HOST_EGRESS => {
                // It is closed then, and the guest's program tries again.
                if self.egress.try_send(Box::new(Duplex::new(stream))).is_err() {
                    tracing::warn!("nobody takes the guest's streams that leave it");
                }
            }
            other => {
                tracing::warn!(port = other.0, "the guest opened a stream to a port that is none of ours")
            }
        }
    }

    async fn heard(
        &mut self,
        guest: &mut Guest,
        message: Result<Option<FromGuest>, FrameError>,
    ) -> Result<(), BootError> {
        let now = Instant::now();
        match message {
            Ok(Some(message)) => {
                guest.pulse.heard(now);
                self.act_on(guest, effect_of(message), now).await
            }
            // The machine has ended, which its state tells, or the agent comes again; if neither, it is silent.
            Ok(None) | Err(FrameError::Io(_) | FrameError::Truncated) => {
                tracing::info!("the guest's control stream ended");
                guest.link = None;
                Ok(())
            }
            Err(error @ (FrameError::TooLong(_) | FrameError::Malformed(_) | FrameError::Unwritable(_))) => {
                guest.link = None;
                Err(BootError::ProtocolBroken(error.to_string()))
            }
        }
    }

    async fn act_on(&mut self, guest: &mut Guest, effect: Effect, now: Instant) -> Result<(), BootError> {
        if let Effect::Log(line) = effect {
            tracing::info!(target: "guest", "{line}");
            return Ok(());
        }
        if let Effect::Hello { protocol, version, boot_id } = effect {
            return self.greeted(guest, protocol, GuestInfo { version, boot_id }, now).await;
        }
        if guest.welcomed().is_none() {
            return Err(BootError::ProtocolBroken("it did not begin with hello".into()));
        }
        if guest.stopping.is_some() {
            return Ok(());
        }
        match effect {
            Effect::Enter(stage, detail) => {
                guest.course.enter(stage, &detail, now);
                self.publish(&guest.course);
            }
            Effect::EngineUp => self.engine_up(guest, now),
            Effect::EngineDown { status, tail } => self.engine_down(guest, status, tail),
            Effect::Disk(full) => self.status.send_modify(|status| status.disk_full = full),
            Effect::Fail(error) => return Err(error),
            Effect::Pong(n, theirs) => {
                if guest.clock.is_wrong(n, theirs, UnixNanos::now()) {
                    tracing::info!("the clocks have come apart; setting the guest's");
                    set_clock(guest);
                }
            }
            Effect::Hello { .. } | Effect::Log(_) | Effect::Alive => {}
        }
        Ok(())
    }

    async fn greeted(
        &mut self,
        guest: &mut Guest,
        protocol: u32,
        info: GuestInfo,
        now: Instant,
    ) -> Result<(), BootError> {
        if let Err(mismatch) = check_protocol(protocol) {
            if let Some(link) = guest.link.take() {
                link.refuse(mismatch.to_string()).await;
            }
            return Err(BootError::ProtocolMismatch { guest: mismatch.theirs, host: mismatch.ours });
        }
        let Some(link) = &mut guest.link else { return Ok(()) };
        let unix_time = UnixNanos::now();
        let hostname = self.config.hostname.clone();
        link.welcomed = link.tell(ToGuest::Welcome { protocol: PROTOCOL, unix_time, hostname });
        guest.told.clear();
        self.tell_facts(guest);
        tracing::info!(version = info.version, boot_id = info.boot_id, "the guest said hello");
        self.status.send_modify(|status| status.guest = Some(info));
        if guest.stopping.is_none() {
            guest.course.enter(Stage::Agent, "", now);
            self.publish(&guest.course);
        }
        Ok(())
    }

    /// Tells the guest what it does not know yet of this computer. What finds no room is told with the next look.
    fn tell_facts(&mut self, guest: &mut Guest) {
        let facts = self.facts.borrow_and_update();
        guest.told.retain(|fact| facts.contains(fact));
        for fact in facts.iter() {
            let known = guest.told.contains(fact);
            if !known && guest.welcomed().is_some_and(|link| link.tell(ToGuest::Host { fact: fact.clone() }))
            {
                guest.told.push(fact.clone());
            }
        }
    }

    fn engine_up(&mut self, guest: &mut Guest, now: Instant) {
        guest.engine = EngineStatus::Up;
        if guest.course.running() {
            self.status.send_modify(|status| status.engine = EngineStatus::Up);
            self.queue.serve(&guest.vm);
        } else if guest.ping.is_empty() {
            guest.course.enter(Stage::Socket, "", now);
            self.publish(&guest.course);
            let (vm, limit) = (guest.vm.clone(), self.config.limits.socket);
            guest.ping.spawn(async move { ping::until_answered(&*vm, limit).await });
        }
    }

    fn engine_down(&self, guest: &mut Guest, engine_status: String, tail: Vec<String>) {
        tracing::warn!(status = engine_status, last = tail.last(), "the engine ended by itself");
        guest.engine = EngineStatus::Restarting { status: engine_status, tail };
        self.status.send_modify(|status| status.engine = guest.engine.clone());
    }

    /// Every few seconds: does the guest live, and is its clock right?
    fn look_after(&mut self, guest: &mut Guest) -> Result<(), BootError> {
        let (limits, now, wall) = (&self.config.limits, Instant::now(), UnixNanos::now());
        if matches!(&*guest.state.borrow(), VmState::Paused(_)) {
            guest.pulse.heard(now);
        }
        let silent = guest.pulse.silent(limits.silence, limits.ping_every, now);
        if silent && guest.course.running() && guest.stopping.is_none() {
            return Err(BootError::Silent(limits.silence));
        }
        self.tell_facts(guest);
        let n = guest.pulse.next_ping();
        let Some(link) = guest.welcomed() else { return Ok(()) };
        if link.tell(ToGuest::Ping { n }) {
            guest.clock.ask(n, wall);
        }
        Ok(())
    }
}

/// Sets the guest's clock. If it cannot be told now, the next pong finds it wrong.
fn set_clock(guest: &Guest) {
    let unix_time = UnixNanos::now();
    if let Some(link) = guest.welcomed() {
        link.tell(ToGuest::SetClock { unix_time });
    }
}

/// The next message of a guest that is connected.
async fn next_of(link: &mut Option<Link>) -> Result<Option<FromGuest>, FrameError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_due(due: Option<(Instant, Due)>) {
    match due {
        Some((at, _)) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn look_every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
