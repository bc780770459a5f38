//! The course of one life of the machine, as pure functions of what happened and when.
//!
//! [`Course`] is the boot's stages with their times; [`effect_of`] is what a message of the guest's means;
//! [`Stopping`] is the order in which a machine is asked, pressed and forced to end. Nothing here waits or sends.

use std::time::Duration;

use caisson_guest_proto::{FromGuest, UnixNanos};
use tokio::time::Instant;

use crate::{
    DiskRoom, Limits, MachineState, Progress, Stage, StageStatus,
    boot::{BootError, stage_of},
};

/// How far a boot has come, and how long its stages took.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    wished: Instant,
    steps: [Step; Stage::ALL.len()],
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Booting(Stage),
    Running,
}

#[derive(Debug, Clone)]
struct Step {
    stage: Stage,
    progress: Progress,
    text: String,
    since: Option<Instant>,
    took: Option<Duration>,
}

impl Step {
    fn end(&mut self, progress: Progress, now: Instant) {
        self.progress = progress;
        self.took = self.since.map(|since| now - since);
    }
}

impl Course {
    /// A boot that somebody has just wished for.
    pub(crate) fn wished(now: Instant) -> Self {
        let steps = Stage::ALL.map(|stage| Step {
            stage,
            progress: Progress::Waiting,
            text: stage.text().into(),
            since: None,
            took: None,
        });
        Self { wished: now, steps, phase: Phase::Preparing }
    }

    /// A stage begins, and with that those before it are done. A stage that is past does not come back.
    ///
    /// The detail, if any, replaces the stage's text, also when the stage has begun already.
    pub(crate) fn enter(&mut self, stage: Stage, detail: &str, now: Instant) {
        match self.phase {
            Phase::Running => return,
            Phase::Booting(at) if at > stage => return,
            Phase::Booting(_) | Phase::Preparing => {}
        }
        for step in self.steps.iter_mut().filter(|step| step.stage < stage) {
            if step.progress == Progress::Active {
                step.end(Progress::Done, now);
            }
            step.progress = Progress::Done;
        }
        let step = &mut self.steps[stage as usize];
        if step.progress == Progress::Waiting {
            step.progress = Progress::Active;
            step.since = Some(now);
        }
        if !detail.is_empty() {
            step.text = detail.into();
        }
        self.phase = Phase::Booting(stage);
    }

    /// The engine has answered. Gives how long it took since the wish.
    pub(crate) fn finish(&mut self, now: Instant) -> Duration {
        for step in &mut self.steps {
            if step.progress == Progress::Active {
                step.end(Progress::Done, now);
            }
        }
        self.phase = Phase::Running;
        now - self.wished
    }

    /// The machine has failed. Gives the stage that did, if it was in one.
    pub(crate) fn fail(&mut self, now: Instant) -> Option<Stage> {
        let stage = self.stage()?;
        self.steps[stage as usize].end(Progress::Failed, now);
        Some(stage)
    }

    /// The stage that it is in.
    pub(crate) fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Booting(stage) => Some(stage),
            Phase::Preparing | Phase::Running => None,
        }
    }

    /// Whether the engine has answered.
    pub(crate) fn running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// When the stage that it is in has taken too long.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let stage = self.stage()?;
        Some(self.steps[stage as usize].since? + limits.of(stage))
    }

    /// The state as others see it.
    pub(crate) fn state(&self) -> MachineState {
        match self.phase {
            Phase::Preparing => MachineState::Preparing,
            Phase::Booting(stage) => MachineState::Booting { stage },
            Phase::Running => MachineState::Running,
        }
    }

    /// The stages as others see them.
    pub(crate) fn stages(&self) -> Vec<StageStatus> {
        let status = |step: &Step| StageStatus {
            stage: step.stage,
            progress: step.progress,
            text: step.text.clone(),
            took_ms: step.took.map(in_ms),
        };
        self.steps.iter().map(status).collect()
    }
}

/// A duration as it travels.
pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a message of the guest's means for the machine.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The agent introduces itself.
    Hello { protocol: u32, version: String, boot_id: String },
    /// A stage of the boot begins.
    Enter(Stage, String),
    /// The engine answers inside the guest.
    EngineUp,
    /// The engine is down and will be started again.
    EngineDown { status: String, tail: Vec<String> },
    /// The data disk has too little room, or enough again.
    Disk(Option<DiskRoom>),
    /// The guest cannot go on.
    Fail(BootError),
    /// A line for our log.
    Log(String),
    /// The ping of this number reached it when its clock said this.
    Pong(u64, UnixNanos),
    /// It lives, which is all that it says.
    Alive,
}

/// What a message of the guest's means for the machine.
pub(crate) fn effect_of(message: FromGuest) -> Effect {
    match message {
        FromGuest::Hello { protocol, version, boot_id } => Effect::Hello { protocol, version, boot_id },
        FromGuest::Stage { stage, detail } => Effect::Enter(stage_of(stage), detail),
        FromGuest::EngineUp => Effect::EngineUp,
        FromGuest::EngineDown { status, tail } => {
            Effect::EngineDown { status, tail: tail.lines().map(str::to_owned).collect() }
        }
        FromGuest::DiskFull { free, total } => Effect::Disk(Some(DiskRoom { free, total })),
        FromGuest::DiskHasRoom => Effect::Disk(None),
        FromGuest::Failed { stage, error } => Effect::Fail(BootError::Guest { stage, error }),
        FromGuest::Log { line } => Effect::Log(line),
        FromGuest::Pong { n, unix_time } => Effect::Pong(n, unix_time),
        FromGuest::PoweringOff => Effect::Alive,
    }
}

/// How a machine is brought to its end: told, then the power button, then force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// The agent was told to power off.
    Told { until: Instant },
    /// The power button was pressed.
    Pressed { until: Instant },
    /// It is ended by force.
    Forced,
}

impl Stopping {
    /// The first step. A guest whose agent does not listen to us has nothing mounted yet, or nothing to say any more.
    pub(crate) fn begin(agent_listens: bool, limits: &Limits, now: Instant) -> Self {
        if agent_listens {
            Self::Told { until: now + limits.stop_grace + limits.power_off }
        } else {
            Self::Forced
        }
    }

    /// The step after this one.
    pub(crate) fn next(self, limits: &Limits, now: Instant) -> Self {
        match self {
            Self::Told { .. } => Self::Pressed { until: now + limits.power_button },
            Self::Pressed { .. } | Self::Forced => Self::Forced,
        }
    }

    /// When the next step is due.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Told { until } | Self::Pressed { until } => Some(until),
            Self::Forced => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::BootStage;

    use super::*;

    fn at(origin: Instant, ms: u64) -> Instant {
        origin + Duration::from_millis(ms)
    }

    #[test]
    fn each_stage_knows_how_long_it_took() {
        let t0 = Instant::now();
        let mut course = Course::wished(t0);
        assert_eq!(course.state(), MachineState::Preparing);
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            course.enter(stage, "", at(t0, 100 * (index as u64 + 1)));
            assert_eq!(course.state(), MachineState::Booting { stage });
        }
        assert_eq!(course.finish(at(t0, 1000)), Duration::from_secs(1));
        let took: Vec<_> = course.stages().iter().map(|stage| stage.took_ms.unwrap()).collect();
        assert_eq!(took, [100, 100, 100, 100, 100, 400]);
        assert!(course.stages().iter().all(|stage| stage.progress == Progress::Done));
        assert_eq!(course.state(), MachineState::Running);
    }

    #[test]
    fn a_stage_that_is_past_does_not_come_back() {
        let t0 = Instant::now();
        let mut course = Course::wished(t0);
        course.enter(Stage::Engine, "", t0);
        course.enter(Stage::Disk, "again", at(t0, 5));
        assert_eq!(course.stage(), Some(Stage::Engine));
        course.finish(at(t0, 6));
        course.enter(Stage::Agent, "", at(t0, 7));
        assert!(course.running());
    }

    #[test]
    fn another_detail_does_not_start_the_stage_anew() {
        let (t0, limits) = (Instant::now(), Limits::default());
        let mut course = Course::wished(t0);
        assert_eq!(course.deadline(&limits), None);
        course.enter(Stage::Disk, "checking", t0);
        course.enter(Stage::Disk, "growing", at(t0, 900));
        assert_eq!(course.deadline(&limits), Some(t0 + limits.disk));
        assert_eq!(course.stages()[Stage::Disk as usize].text, "growing");
    }

    #[test]
    fn a_failure_names_the_stage_that_it_happened_in() {
        let t0 = Instant::now();
        let mut course = Course::wished(t0);
        assert_eq!(course.fail(t0), None);
        course.enter(Stage::Kernel, "", t0);
        assert_eq!(course.fail(at(t0, 30)), Some(Stage::Kernel));
        let kernel = &course.stages()[Stage::Kernel as usize];
        assert_eq!((kernel.progress, kernel.took_ms), (Progress::Failed, Some(30)));
        let mut course = Course::wished(t0);
        course.finish(t0);
        assert_eq!(course.fail(t0), None);
    }

    #[test]
    fn a_guest_is_told_then_pressed_then_forced() {
        let (t0, limits) = (Instant::now(), Limits::default());
        let told = Stopping::begin(true, &limits, t0);
        assert_eq!(told.until(), Some(t0 + limits.stop_grace + limits.power_off));
        let pressed = told.next(&limits, t0);
        assert_eq!(pressed, Stopping::Pressed { until: t0 + limits.power_button });
        assert_eq!(pressed.next(&limits, t0), Stopping::Forced);
        assert_eq!(Stopping::begin(false, &limits, t0), Stopping::Forced);
    }

    #[test]
    fn the_guests_words_become_ours() {
        let entered = effect_of(FromGuest::Stage { stage: BootStage::Disk, detail: "d".into() });
        assert!(matches!(entered, Effect::Enter(Stage::Disk, detail) if detail == "d"));
        let down = effect_of(FromGuest::EngineDown { status: "s".into(), tail: "a\nb\n".into() });
        assert!(matches!(down, Effect::EngineDown { tail, .. } if tail == ["a", "b"]));
    }
}
