//! The task that owns the machine: it rests until somebody wants the machine, then leads it through one life.

use std::{path::Path, sync::Arc, time::Duration};

use caisson_guest_proto::{HOST_CONTROL, HOST_EGRESS, HOST_PORTS, HostFact};
use caisson_hypervisor::{Capabilities, Hypervisor, Launched, VmSpec, VsockStream};
use caisson_os::ProcessLock;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use crate::{
    Failure, MachineConfig, MachineState, MachineStatus, Progress, Stage, Unavailable,
    boot::BootError,
    console,
    converse::Guest,
    disk,
    handle::Request,
    host,
    image::Image,
    queue::{Queue, Waiter},
    state::Course,
};

/// The machine's owner.
pub(crate) struct Owner {
    pub(crate) config: Arc<MachineConfig>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// What the guest is to know of this computer.
    pub(crate) facts: watch::Receiver<Vec<HostFact>>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) status: watch::Sender<MachineStatus>,
    pub(crate) ports: mpsc::Sender<VsockStream>,
    pub(crate) egress: mpsc::Sender<VsockStream>,
    pub(crate) queue: Queue,
    pub(crate) possession: ProcessLock,
}

/// How one life of the machine ended.
enum End {
    /// At somebody's wish.
    Stopped,
    /// Against our will.
    Failed(Box<Failure>),
}

impl Owner {
    /// Until the daemon ends.
    pub(crate) async fn run(mut self) {
        while !self.queue.shutting_down {
            if self.queue.wants_machine() {
                self.live().await;
            } else {
                let request = self.requests.recv().await;
                self.while_off(request);
            }
        }
        drop(self.possession);
    }

    fn while_off(&mut self, request: Option<Request>) {
        let now = Instant::now();
        match request {
            Some(Request::Start(reply) | Request::Restart(reply)) => {
                self.queue.wait(Waiter::Start(reply), now);
            }
            Some(Request::Need(reply)) => self.queue.wait(Waiter::Need(reply), now),
            Some(Request::Find(reply)) => Waiter::Need(reply).refuse(Unavailable::Stopped),
            Some(Request::Stop(reply)) => {
                self.set_off();
                // Nobody waits any more: fine, it is off.
                let _ = reply.send(Ok(()));
            }
            Some(Request::ShutDown) | None => self.queue.shutting_down = true,
        }
    }

    /// One life of the machine, from the wish to its end, and who waits is told.
    async fn live(&mut self) {
        match self.life().await {
            End::Stopped => {
                self.set_off();
                self.queue.turn_over(|| Unavailable::Stopped);
            }
            End::Failed(failure) => {
                tracing::error!(code = failure.code.as_str(), %failure, "the machine failed");
                self.status.send_modify(|status| {
                    status.state = MachineState::Failed;
                    status.forget_the_guest();
                    status.failure = Some((*failure).clone());
                });
                self.queue.turn_over(|| Unavailable::Failed(failure.clone()));
            }
        }
    }

    fn set_off(&self) {
        self.status.send_modify(|status| {
            status.state = MachineState::Stopped;
            status.forget_the_guest();
            status.failure = None;
            // A boot that was ended is in none of its stages any more.
            let left = status.stages.iter_mut().filter(|stage| stage.progress == Progress::Active);
            left.for_each(|stage| stage.progress = Progress::Waiting);
        });
    }

    async fn life(&mut self) -> End {
        let mut course = Course::wished(Instant::now());
        self.status.send_modify(|status| {
            *status =
                MachineStatus { notices: status.notices.clone(), ..MachineStatus::new(status.hypervisor) };
            status.state = MachineState::Preparing;
        });
        match self.prepared_and_launched(&mut course).await {
            Ok(Some(launched)) => self.with_guest(Guest::new(launched, course)).await,
            Ok(None) => End::Stopped,
            Err(error) => self.failed(&error, &mut course, false),
        }
    }

    /// The two steps before there is a guest. `None` if somebody wished for the end meanwhile.
    async fn prepared_and_launched(&mut self, course: &mut Course) -> Result<Option<Launched>, BootError> {
        let config = self.config.clone();
        let work = tokio::task::spawn_blocking(move || prepare(&config));
        let Some(prepared) = self.attend(work).await else { return Ok(None) };
        let image = prepared.map_err(|error| BootError::Bug(error.to_string()))??;
        course.enter(Stage::Hypervisor, "", Instant::now());
        self.publish(course);
        let limit = self.config.limits.hypervisor;
        let work = power_on(self.hypervisor.clone(), self.status.clone(), spec(&self.config, image), limit);
        let Some(launched) = self.attend(Box::pin(work)).await else { return Ok(None) };
        launched.map(Some)
    }

    /// Does some work while requests are answered. `None` if one of them ended the boot.
    async fn attend<T>(&mut self, mut work: impl Future<Output = T> + Unpin) -> Option<T> {
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                request = self.requests.recv() => if self.ends_boot(request) { return None },
            }
        }
    }

    fn ends_boot(&mut self, request: Option<Request>) -> bool {
        let now = Instant::now();
        match request {
            Some(Request::Start(reply)) => self.queue.wait(Waiter::Start(reply), now),
            Some(Request::Need(reply) | Request::Find(reply)) => self.queue.wait(Waiter::Need(reply), now),
            Some(Request::Stop(reply)) => {
                self.queue.wait_for_end(reply);
                return true;
            }
            Some(Request::Restart(reply)) => {
                self.queue.restart(Waiter::Start(reply), now);
                return true;
            }
            Some(Request::ShutDown) | None => {
                self.queue.shutting_down = true;
                return true;
            }
        }
        false
    }

    async fn with_guest(&mut self, mut guest: Guest) -> End {
        let ended = self.converse(&mut guest).await;
        // Before anybody is told: nothing of it may be left when the next one starts.
        guest.vm.kill().await;
        match ended {
            Ok(()) => End::Stopped,
            Err(error) => self.failed(&error, &mut guest.course, true),
        }
    }

    fn failed(&self, error: &BootError, course: &mut Course, ran: bool) -> End {
        let stage = course.fail(Instant::now());
        self.status.send_modify(|status| status.stages = course.stages());
        let tail = if ran { console::tail(&self.config.console_log) } else { Vec::new() };
        End::Failed(Box::new(error.failure(stage, tail)))
    }

    /// Shows how far the boot has come.
    pub(crate) fn publish(&self, course: &Course) {
        self.status.send_modify(|status| {
            status.state = course.state();
            status.stages = course.stages();
        });
    }
}

/// Looks at everything that a machine needs before it can run.
fn prepare(config: &MachineConfig) -> Result<Image, BootError> {
    let image = Image::open(&config.image, &config.image_found_whole)?;
    disk::prepare(&config.data_disk, config.data_size)?;
    make_dir("sockets", &config.runtime_dir)?;
    make_dir("log", config.console_log.parent().unwrap_or(Path::new(".")))?;
    Ok(image)
}

fn make_dir(what: &'static str, path: &Path) -> Result<(), BootError> {
    host::make_private_dir(path).map_err(|source| BootError::Directory { what, path: path.into(), source })
}

fn spec(config: &MachineConfig, image: Image) -> VmSpec {
    VmSpec {
        kernel: image.kernel,
        initrd: image.initrd,
        root: image.root,
        data_disk: config.data_disk.clone(),
        cmdline: image.cmdline,
        cpus: config.cpus,
        memory: config.memory,
        listen: vec![HOST_CONTROL, HOST_PORTS, HOST_EGRESS],
        console_log: config.console_log.clone(),
        runtime_dir: config.runtime_dir.clone(),
    }
}

/// Asks the hypervisor what it can do, shows it, and powers the machine on.
async fn power_on(
    hypervisor: Arc<dyn Hypervisor>,
    status: watch::Sender<MachineStatus>,
    mut spec: VmSpec,
    limit: Duration,
) -> Result<Launched, BootError> {
    let work = async {
        let capabilities = hypervisor.capabilities(&spec.kernel).await?;
        spec.cpus = spec.cpus.clamp(1, capabilities.max_cpus);
        show(&status, capabilities);
        hypervisor.launch(&spec).await
    };
    match timeout(limit, work).await {
        Ok(launched) => Ok(launched?),
        Err(_) => Err(BootError::TimedOut { stage: Stage::Hypervisor, limit }),
    }
}

fn show(status: &watch::Sender<MachineStatus>, capabilities: Capabilities) {
    status.send_modify(|status| {
        status.acceleration = Some(capabilities.acceleration);
        status.notices = capabilities.notices;
    });
}
