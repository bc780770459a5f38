//! A guest that speaks guest-proto as the real agent does, or does one thing wrong.

use std::{io, time::Duration};

use caisson_guest_proto::{
    BootStage, Duplex, FrameError, FromGuest, GUEST_API, GUEST_RELAY, HOST_CONTROL, HOST_PORTS, PROTOCOL,
    RelayRefusal, RelayReply, RelayRequest, ToGuest, UnixNanos, read_frame, write_frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinSet,
};

use super::fake::{Door, GuestSide};
use crate::VmEnd;

/// The one thing that a guest does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Its kernel never gets to the agent.
    HangsInKernel,
    /// Its kernel panics.
    Panics,
    /// It says hello and then nothing more.
    HangsAfterHello,
    /// It never says that the engine is up.
    HangsBeforeEngine,
    /// The data disk cannot be used.
    DiskFails,
    /// The engine ends before it has ever answered, again and again.
    EngineKeepsEnding,
    /// It says that the engine is up, but nothing listens for API streams.
    RefusesApi,
    /// It accepts API streams and closes them.
    DropsApi,
    /// It dies in the middle of the boot.
    DiesInBoot,
    /// After the boot it says nothing any more, not even pong.
    FallsSilent,
    /// It says something that is no message.
    TalksNonsense,
    /// It does not switch off when told to.
    IgnoresPowerOff,
    /// After the first API stream it is behind with accepting others, for a second.
    FallsBehind,
    /// The engine ends once after the boot, and comes back when the host has pinged.
    EngineEndsOnce,
    /// Its clock is a minute behind until it is set, as that of a machine which stood still unnoticed.
    LosesTime,
}

/// How a guest behaves.
#[derive(Debug, Clone)]
pub struct GuestScript {
    /// The protocol version that it says it speaks.
    pub protocol: u32,
    /// What it does wrong.
    pub wrong: Option<Misbehaviour>,
}

impl Default for GuestScript {
    fn default() -> Self {
        Self { protocol: PROTOCOL, wrong: None }
    }
}

/// A guest for [`FakeHypervisor::new`](super::FakeHypervisor::new) that behaves like this.
pub async fn run_guest(side: GuestSide, script: GuestScript) {
    side.print("[    0.000000] Linux version 6.12 (fake)");
    if script.wrong == Some(Misbehaviour::Panics) {
        side.print("[    0.100000] Kernel panic - not syncing: VFS: Unable to mount root fs");
        side.end(VmEnd::Rebooted).await;
    }
    if script.wrong == Some(Misbehaviour::HangsInKernel) {
        std::future::pending::<()>().await;
    }
    if let Err(error) = Agent::live(&side, &script).await {
        side.print(&format!("agent: {error}"));
    }
}

struct Agent<'a> {
    side: &'a GuestSide,
    script: &'a GuestScript,
    control: DuplexStream,
    doors: JoinSet<()>,
}

impl<'a> Agent<'a> {
    async fn live(side: &'a GuestSide, script: &'a GuestScript) -> Result<(), FrameError> {
        let control = side.connect(HOST_CONTROL).await?;
        let mut agent = Self { side, script, control, doors: JoinSet::new() };
        if agent.hello().await? {
            agent.boot().await?;
            agent.obey().await?;
        }
        Ok(())
    }

    async fn say(&mut self, message: FromGuest) -> Result<(), FrameError> {
        write_frame(&mut self.control, &message).await
    }

    fn does(&self, wrong: Misbehaviour) -> bool {
        self.script.wrong == Some(wrong)
    }

    /// Whether the host welcomed us.
    async fn hello(&mut self) -> Result<bool, FrameError> {
        if self.does(Misbehaviour::TalksNonsense) {
            self.control.write_all(b"\x04\0\0\0oink").await?;
        }
        let (version, boot_id) = ("0.0.0-fake".into(), "fake-boot".into());
        self.say(FromGuest::Hello { protocol: self.script.protocol, version, boot_id }).await?;
        Ok(matches!(read_frame(&mut self.control).await?, Some(ToGuest::Welcome { .. })))
    }

    async fn boot(&mut self) -> Result<(), FrameError> {
        self.enter(BootStage::Agent, "").await?;
        if self.does(Misbehaviour::HangsAfterHello) {
            std::future::pending::<()>().await;
        }
        self.enter(BootStage::Disk, "checking the file system").await?;
        if self.does(Misbehaviour::DiskFails) {
            let error = "e2fsck: unrecoverable".into();
            self.say(FromGuest::Failed { stage: BootStage::Disk, error }).await?;
            std::future::pending::<()>().await;
        }
        if self.does(Misbehaviour::DiesInBoot) {
            let how = "killed by signal 11".into();
            self.side.end(VmEnd::Died { part: "fake-hypervisor".into(), how, tail: Vec::new() }).await;
        }
        self.enter(BootStage::Engine, "").await?;
        if self.does(Misbehaviour::HangsBeforeEngine) {
            std::future::pending::<()>().await;
        }
        if self.does(Misbehaviour::EngineKeepsEnding) {
            self.engine_down().await?;
            std::future::pending::<()>().await;
        }
        self.open_doors();
        self.say(FromGuest::EngineUp).await?;
        // The engine's first connection of the ports' door; the host may not care.
        let _ = self.side.connect(HOST_PORTS).await;
        Ok(())
    }

    async fn enter(&mut self, stage: BootStage, detail: &str) -> Result<(), FrameError> {
        self.say(FromGuest::Stage { stage, detail: detail.into() }).await
    }

    async fn engine_down(&mut self) -> Result<(), FrameError> {
        let tail = "loading\npanicked at engine.rs:1".into();
        self.say(FromGuest::EngineDown { status: "exit status 101".into(), tail }).await
    }

    fn open_doors(&mut self) {
        let door = self.side.listen(GUEST_API);
        match self.script.wrong {
            Some(Misbehaviour::RefusesApi) => drop(door),
            Some(Misbehaviour::FallsBehind) => {
                drop(self.doors.spawn(serve_api_later(self.side.clone(), door)))
            }
            wrong => drop(self.doors.spawn(serve_api(door, wrong == Some(Misbehaviour::DropsApi)))),
        }
        self.doors.spawn(serve_relay(self.side.listen(GUEST_RELAY)));
    }

    /// Does what the host says until it is told to switch off.
    async fn obey(&mut self) -> Result<(), FrameError> {
        let (mut ended_once, mut clock_set) = (false, false);
        while let Some(order) = read_frame(&mut self.control).await? {
            match order {
                ToGuest::PowerOff { .. } if self.does(Misbehaviour::IgnoresPowerOff) => {}
                ToGuest::PowerOff { .. } => return self.say(FromGuest::PoweringOff).await,
                ToGuest::Ping { .. } if self.does(Misbehaviour::FallsSilent) => {}
                ToGuest::Ping { n } => {
                    if self.does(Misbehaviour::EngineEndsOnce) && !ended_once {
                        ended_once = true;
                        self.engine_down().await?;
                    } else if self.does(Misbehaviour::EngineEndsOnce) {
                        self.say(FromGuest::EngineUp).await?;
                    }
                    let mut unix_time = UnixNanos::now();
                    if self.does(Misbehaviour::LosesTime) && !clock_set {
                        unix_time.0 -= 60_000_000_000;
                    }
                    self.say(FromGuest::Pong { n, unix_time }).await?;
                }
                ToGuest::SetClock { unix_time } => {
                    clock_set = true;
                    self.side.print(&format!("clock set to {}", unix_time.0));
                }
                ToGuest::Host { fact } => self.side.print(&format!("host: {fact:?}")),
                ToGuest::Welcome { .. } | ToGuest::Refused { .. } => {}
            }
        }
        Ok(())
    }
}

/// An engine that answers `_ping` and, for the half-close, echoes what else it reads up to the end.
async fn serve_api(mut door: Door, drops: bool) {
    let mut streams = JoinSet::new();
    while let Some(stream) = door.accept().await {
        if !drops {
            streams.spawn(answer_api(Duplex::new(stream)));
        }
    }
}

async fn serve_api_later(side: GuestSide, mut first: Door) {
    if let Some(stream) = first.accept().await {
        // The host may be gone already.
        let _ = answer_api(Duplex::new(stream)).await;
    }
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    serve_api(side.listen(GUEST_API), false).await;
}

async fn answer_api(mut stream: Duplex<DuplexStream>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    if head.starts_with(b"GET /_ping ") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK";
        stream.write_all(answer).await?;
    } else {
        stream.write_all(&head).await?;
    }
    stream.shutdown().await
}

/// Reaches port 7 of any address, an echo; all other ports refuse.
async fn serve_relay(mut door: Door) {
    let mut streams = JoinSet::new();
    while let Some(stream) = door.accept().await {
        let mut stream = Duplex::new(stream);
        streams.spawn(async move {
            let Some(request) = read_frame::<RelayRequest>(&mut stream).await? else { return Ok(()) };
            if request.address.port() != 7 {
                let message = "connection refused".into();
                return write_frame(
                    &mut stream,
                    &RelayReply::Refused { kind: RelayRefusal::Refused, message },
                )
                .await;
            }
            write_frame(&mut stream, &RelayReply::Connected).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            Ok(())
        });
    }
}
