//! How a boot goes, while it goes: a line a stage. On a terminal the line of the stage at hand is kept up to date.

use crate::report::{plain, say, seconds};
use caisson_app_api::{
    ApiError, Client, Event, MachineState, MachineStatus, StageProgress, StageStatus, Subscription,
};
use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    pin::pin,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::interval};

/// How often the running time is brought up to date.
const TICK: Duration = Duration::from_millis(100);

/// Back to the start of the line, and clear it (ECMA-48, `EL`).
const CLEAR_LINE: &str = "\r\x1b[K";

/// Waits for `done` and shows each stage of the boot meanwhile.
pub(crate) async fn show(
    client: &Client,
    done: impl Future<Output = Result<MachineStatus, ApiError>>,
) -> Result<MachineStatus, ApiError> {
    let (told, mut statuses) = mpsc::channel(16);
    let listening = tokio::spawn(listen(client.events().await?, told));
    let mut lines = Lines::new(io::stdout().is_terminal());
    let mut done = pin!(done);
    let mut tick = interval(TICK);
    let outcome = loop {
        tokio::select! {
            outcome = &mut done => break outcome,
            Some(status) = statuses.recv() => lines.tell(&status),
            _ = tick.tick() => lines.tick(),
        }
    };
    listening.abort();
    // A daemon that is gone has no status; the outcome says so already.
    let last = if outcome.is_ok() { outcome.clone() } else { client.machine_status().await };
    if let Ok(status) = &last {
        lines.tell(status);
    }
    lines.clear();
    outcome
}

/// In a task of its own, for an item that is half read must not be dropped.
async fn listen(mut events: Subscription<Event>, told: mpsc::Sender<MachineStatus>) {
    // Without events there are no lines; how it ends is told all the same.
    while let Some(Ok(event)) = events.next().await {
        if let Event::Machine(status) = event
            && told.send(*status).await.is_err()
        {
            return;
        }
    }
}

/// The lines on the screen.
struct Lines {
    terminal: bool,
    /// Whether this boot has begun: before that the stages are those of the last one.
    begun: bool,
    /// How many stages have their final line.
    told: usize,
    /// The stage at hand and since when.
    active: Option<(StageStatus, Instant)>,
}

impl Lines {
    fn new(terminal: bool) -> Self {
        Self { terminal, begun: false, told: 0, active: None }
    }

    fn tell(&mut self, status: &MachineStatus) {
        self.begun |= matches!(status.state, MachineState::Preparing | MachineState::Booting { .. });
        if !self.begun {
            return;
        }
        for line in status.stages.iter().skip(self.told).map_while(final_line) {
            self.clear();
            say(&format!("  {line}"));
            self.told += 1;
        }
        let active = status.stages.iter().find(|stage| stage.progress == StageProgress::Active);
        self.active = active.map(|stage| match self.active.take() {
            Some((old, since)) if old.stage == stage.stage => (stage.clone(), since),
            _ => (stage.clone(), Instant::now()),
        });
        self.tick();
    }

    fn tick(&self) {
        if let (true, Some((stage, since))) = (self.terminal, &self.active) {
            draw(&format!("{CLEAR_LINE}  …  {}  {}", plain(&stage.text), seconds(since.elapsed())));
        }
    }

    fn clear(&self) {
        if self.terminal {
            draw(CLEAR_LINE);
        }
    }
}

/// That a terminal could not be written to is no reason to stop waiting for the machine.
fn draw(text: &str) {
    let mut screen = io::stdout();
    let _ = screen.write_all(text.as_bytes()).and_then(|()| screen.flush());
}

/// The final line of a stage, if it is over.
pub(crate) fn final_line(stage: &StageStatus) -> Option<String> {
    let mark = match stage.progress {
        StageProgress::Done => "done",
        StageProgress::Failed => "failed",
        StageProgress::Waiting | StageProgress::Active => return None,
    };
    let took = stage.took_ms.map_or_else(String::new, |ms| seconds(Duration::from_millis(ms.into())));
    Some(format!("{mark:<6}  {:<40} {took:>7}", stage.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caisson_app_api::BootStage;

    #[test]
    fn a_line_says_stage_outcome_and_time() {
        let stage = StageStatus {
            stage: BootStage::Kernel,
            progress: StageProgress::Done,
            text: "Starting the Linux kernel".into(),
            took_ms: Some(2340),
        };
        let line = "done    Starting the Linux kernel                  2.3 s";
        assert_eq!(final_line(&stage).as_deref(), Some(line));
        assert_eq!(final_line(&StageStatus { progress: StageProgress::Active, ..stage }), None);
    }
}
