//! A hypervisor whose guests are futures.
//!
//! A guest program gets a [`GuestSide`] and does what a guest can do: call the host, be called, print, end. When it
//! returns, the machine has switched itself off. What the hypervisor itself does wrong is set by [`LaunchFault`] and
//! by [`FakeHypervisor::kill_machine`].

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use caisson_guest_proto::{GuestVsockPort, HostVsockPort};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::{
    Acceleration, BoxFuture, Capabilities, ConnectError, Hypervisor, LaunchError, Launched, Notice,
    PauseReason, StopError, Vm, VmEnd, VmSpec, VmState, VsockStream,
};

/// How long a stream may wait to be accepted by the guest.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a stream holds that nobody has read yet.
const STREAM_BUFFER: usize = 64 << 10;

type Guest = Arc<dyn Fn(GuestSide) -> BoxFuture<'static, ()> + Send + Sync>;

/// What goes wrong before a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFault {
    /// A program is not installed.
    ProgramMissing,
    /// The hypervisor ends with a message.
    Refuses,
    /// The hypervisor does nothing, for ever.
    Hangs,
}

/// A hypervisor whose guests are futures.
#[derive(Clone)]
pub struct FakeHypervisor {
    guest: Guest,
    fault: Arc<Mutex<Option<LaunchFault>>>,
    running: Arc<Mutex<Option<Arc<Power>>>>,
    launches: Arc<AtomicUsize>,
}

impl FakeHypervisor {
    /// A hypervisor that runs this guest in every machine.
    pub fn new<F>(guest: impl Fn(GuestSide) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            guest: Arc::new(move |side| Box::pin(guest(side))),
            fault: Arc::default(),
            running: Arc::default(),
            launches: Arc::default(),
        }
    }

    /// What goes wrong from now on; `None` mends it.
    pub fn set_fault(&self, fault: Option<LaunchFault>) {
        *lock(&self.fault) = fault;
    }

    /// How many machines were powered on so far.
    #[must_use]
    pub fn launches(&self) -> usize {
        self.launches.load(Ordering::SeqCst)
    }

    /// Ends the running machine as `kill -9` of a real hypervisor's process does.
    pub fn kill_machine(&self) {
        if let Some(power) = &*lock(&self.running) {
            let how = "killed by signal 9".into();
            power.cut(VmEnd::Died { part: "fake-hypervisor".into(), how, tail: Vec::new() });
        }
    }

    /// Stops the running machine's processors, or lets them go on.
    pub fn pause_machine(&self, reason: Option<PauseReason>) {
        if let Some(power) = &*lock(&self.running) {
            power.set(reason.map_or(VmState::Running, VmState::Paused));
        }
    }

    async fn power_on(&self, spec: &VmSpec) -> Result<Launched, LaunchError> {
        let fault = *lock(&self.fault);
        match fault {
            Some(LaunchFault::ProgramMissing) => return Err(program_missing()),
            Some(LaunchFault::Refuses) => {
                let tail = vec!["fake-hypervisor: out of fakes".into()];
                return Err(LaunchError::Refused {
                    part: "fake-hypervisor".into(),
                    how: "exit status 1".into(),
                    tail,
                });
            }
            Some(LaunchFault::Hangs) => return std::future::pending().await,
            None => {}
        }
        for (action, path) in [("open the kernel", &spec.kernel), ("open the data disk", &spec.data_disk)] {
            std::fs::File::open(path).map_err(|source| LaunchError::File {
                action,
                path: path.clone(),
                source,
            })?;
        }
        self.launches.fetch_add(1, Ordering::SeqCst);
        Ok(self.run(spec))
    }

    fn run(&self, spec: &VmSpec) -> Launched {
        let (streams, incoming) = mpsc::channel(16);
        let doors = Doors::default();
        let power = Arc::new(Power::on());
        let side = GuestSide {
            streams,
            listen: spec.listen.clone(),
            doors: doors.clone(),
            console: spec.console_log.clone(),
            power: power.clone(),
        };
        let guest = (self.guest)(side);
        let at_the_end = power.clone();
        let task = tokio::spawn(async move {
            guest.await;
            at_the_end.cut(VmEnd::PoweredOff);
        });
        power.holds(task.abort_handle());
        *lock(&self.running) = Some(power.clone());
        Launched { vm: Box::new(FakeVm { power, doors }), incoming }
    }
}

impl Hypervisor for FakeHypervisor {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn capabilities<'a>(&'a self, _kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>> {
        let missing = *lock(&self.fault) == Some(LaunchFault::ProgramMissing);
        let notices = vec![Notice::KvmAbsent];
        let capabilities = Capabilities { acceleration: Acceleration::Emulated, max_cpus: 4, notices };
        Box::pin(async move { if missing { Err(program_missing()) } else { Ok(capabilities) } })
    }

    fn launch<'a>(&'a self, spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>> {
        Box::pin(self.power_on(spec))
    }
}

fn program_missing() -> LaunchError {
    LaunchError::ProgramMissing {
        program: "fake-hypervisor".into(),
        purpose: "runs the machine",
        install: "install it: apt-get install fake-hypervisor".into(),
        looked_in: vec!["/usr/bin".into()],
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the machine is on, and the guest's task.
struct Power {
    state: watch::Sender<VmState>,
    guest: Mutex<Option<AbortHandle>>,
}

impl Power {
    fn on() -> Self {
        Self { state: watch::Sender::new(VmState::Running), guest: Mutex::default() }
    }

    fn holds(&self, guest: AbortHandle) {
        *lock(&self.guest) = Some(guest);
    }

    fn set(&self, state: VmState) {
        self.state.send_if_modified(|now| {
            let on = !matches!(now, VmState::Ended(_));
            if on {
                *now = state;
            }
            on
        });
    }

    /// Ends the machine, unless it has ended.
    fn cut(&self, end: VmEnd) {
        self.set(VmState::Ended(end));
        if let Some(guest) = &*lock(&self.guest) {
            guest.abort();
        }
    }
}

/// The guest's ports: who listens gets the streams.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<HashMap<GuestVsockPort, mpsc::Sender<DuplexStream>>>>);

/// A port on which a guest listens.
pub struct Door(mpsc::Receiver<DuplexStream>);

impl Door {
    /// The next stream that the host opens.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}

/// What a guest can do.
#[derive(Clone)]
pub struct GuestSide {
    streams: mpsc::Sender<(HostVsockPort, VsockStream)>,
    listen: Vec<HostVsockPort>,
    doors: Doors,
    console: PathBuf,
    power: Arc<Power>,
}

impl GuestSide {
    /// Opens a stream to the host.
    pub async fn connect(&self, port: HostVsockPort) -> io::Result<DuplexStream> {
        if !self.listen.contains(&port) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let (guest, host) = tokio::io::duplex(STREAM_BUFFER);
        let sent = self.streams.send((port, Box::new(host))).await;
        sent.map(|()| guest).map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    /// Listens on a port until the door is dropped.
    #[must_use]
    pub fn listen(&self, port: GuestVsockPort) -> Door {
        let (sender, streams) = mpsc::channel(16);
        lock(&self.doors.0).insert(port, sender);
        Door(streams)
    }

    /// Prints a line on the console.
    pub fn print(&self, line: &str) {
        let console = OpenOptions::new().create(true).append(true).open(&self.console);
        let written = console.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("a fake guest's console is a file in a test's directory");
    }

    /// Ends the machine in a way of its own, such as a panic. Nothing of the guest runs after that.
    pub async fn end(&self, end: VmEnd) {
        self.power.cut(end);
        std::future::pending().await
    }
}

struct FakeVm {
    power: Arc<Power>,
    doors: Doors,
}

impl FakeVm {
    fn ended(&self) -> Option<VmEnd> {
        match &*self.power.state.borrow() {
            VmState::Ended(end) => Some(end.clone()),
            VmState::Running | VmState::Paused(_) => None,
        }
    }

    async fn open(&self, port: GuestVsockPort) -> Result<VsockStream, ConnectError> {
        if let Some(end) = self.ended() {
            return Err(ConnectError::Ended(end));
        }
        let door = lock(&self.doors.0).get(&port).cloned().ok_or(ConnectError::Refused(port))?;
        let (host, guest) = tokio::io::duplex(STREAM_BUFFER);
        match tokio::time::timeout(CONNECT_LIMIT, door.send(guest)).await {
            Ok(Ok(())) => Ok(Box::new(host)),
            Ok(Err(_)) => Err(ConnectError::Refused(port)),
            Err(_) => Err(ConnectError::TimedOut { port, limit: CONNECT_LIMIT }),
        }
    }
}

impl Vm for FakeVm {
    fn connect(&self, port: GuestVsockPort) -> BoxFuture<'_, Result<VsockStream, ConnectError>> {
        Box::pin(self.open(port))
    }

    fn state(&self) -> watch::Receiver<VmState> {
        self.power.state.subscribe()
    }

    fn request_stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        // Like many a guest, ours does not hear the button.
        Box::pin(async { self.ended().map_or(Ok(()), |end| Err(StopError::Ended(end))) })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        self.power.cut(VmEnd::Killed);
        Box::pin(async {})
    }
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        self.power.cut(VmEnd::Killed);
    }
}
