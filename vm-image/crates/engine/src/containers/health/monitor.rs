//! The task of a container's check.

use std::io;
use std::path::{Path, PathBuf};

use caisson_docker_api::time::Timestamp;
use caisson_sys::replace::{Survives, replace};
use tokio::sync::watch;
use tracing::{Instrument, info_span, warn};

use super::probe::probe;
use super::{Check, Health, Status};
use crate::containers::state::{State, Status as ContainerStatus};
use crate::containers::{Containers, Handle};

/// What is known of the health, in the container's directory.
const FILE: &str = "health.json";

impl Containers {
    /// Looks after a container's health from now on, if it has a check.
    pub(in crate::containers) fn look_after(&self, container: &Handle) {
        let Some(check) = Check::of(&container.definition().config) else { return };
        let file = self.directory(&container.id).path().join(FILE);
        if let Some(health) = read(&file) {
            self.ground.healths.set(&container.id, health);
        }
        let span = info_span!(parent: None, "health", id = container.short_id());
        let monitor = Monitor { containers: self.clone(), container: container.clone(), check, file };
        tokio::spawn(monitor.run().instrument(span));
    }
}

struct Monitor {
    containers: Containers,
    container: Handle,
    check: Check,
    file: PathBuf,
}

/// What is to be done about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Probe it: the run that began then.
    Probe(Timestamp),
    /// Nothing now.
    Rest,
    /// Nothing ever.
    Over,
}

fn duty(state: &State) -> Duty {
    match state.running() {
        Some(running) if !state.describe().paused => Duty::Probe(running.started_at),
        Some(_) => Duty::Rest,
        None if matches!(state, State::Removed) => Duty::Over,
        None => Duty::Rest,
    }
}

impl Monitor {
    async fn run(self) {
        let mut status = self.container.watch();
        loop {
            let duty = duty(&status.borrow_and_update().state);
            match duty {
                Duty::Over => break,
                Duty::Rest => {
                    self.rest();
                    if status.changed().await.is_err() {
                        break;
                    }
                }
                Duty::Probe(run) => {
                    self.begin(run);
                    self.probe_while(run, status.clone()).await;
                }
            }
        }
        self.containers.ground.healths.forget(&self.container.id);
    }

    fn health(&self) -> Option<Health> {
        self.containers.ground.healths.get(&self.container.id)
    }

    fn begin(&self, run: Timestamp) {
        let before = self.health();
        if before.as_ref().is_none_or(|before| before.run != run) {
            self.keep(Health::of_new_run(before, run));
        }
    }

    /// Of a container that is not probed it is not known that it is healthy.
    fn rest(&self) {
        if let Some(health) = self.health().filter(|health| health.status != Status::Unhealthy) {
            self.keep(Health { status: Status::Unhealthy, ..health });
        }
    }

    /// Publishes, then writes down. That may fail: the next engine begins anew then.
    fn keep(&self, health: Health) {
        if let Err(error) = write(&self.file, &health)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "could not write down a container's health");
        }
        self.containers.ground.healths.set(&self.container.id, health);
    }

    /// Probes until the run ends or is paused.
    async fn probe_while(&self, run: Timestamp, mut status: watch::Receiver<ContainerStatus>) {
        loop {
            let Some(before) = self.health() else { return };
            let pause = self.check.pause(before.status, run.until(Timestamp::now()));
            let waited = tokio::select! {
                _ = status.wait_for(|status| duty(&status.state) != Duty::Probe(run)) => false,
                () = tokio::time::sleep(pause) => true,
            };
            if !waited || !self.probe_once(run, status.clone()).await {
                return;
            }
        }
    }

    /// Probes once; `false` if the run has ended or was paused meanwhile.
    async fn probe_once(&self, run: Timestamp, mut status: watch::Receiver<ContainerStatus>) -> bool {
        let stop = async {
            // An error is the end of the container, too.
            let _ = status.wait_for(|status| duty(&status.state) != Duty::Probe(run)).await;
        };
        let Some(result) = probe(&self.containers, &self.container, &self.check, stop).await else {
            return false;
        };
        let Some(mut health) = self.health() else { return false };
        if duty(&self.container.state()) != Duty::Probe(run) {
            return false;
        }
        let before = health.status;
        health.take(result, &self.check);
        let now = health.status;
        self.keep(health);
        if now != before {
            let action = format!("health_status: {}", now.name());
            self.containers.ground.tell(&self.container.definition(), &action, &[]);
        }
        true
    }
}

fn write(path: &Path, health: &Health) -> io::Result<()> {
    replace(path, &serde_json::to_vec(health)?, Survives::Crash)
}

/// What an engine before this one knew; nothing if that cannot be read.
fn read(path: &Path) -> Option<Health> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
