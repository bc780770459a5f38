//! QEMU on Linux: how a machine is put together, in order.

mod acceleration;
mod arguments;
mod console;
mod leftovers;
mod process;
mod programs;
mod qmp;
mod supervise;
mod vsock;

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use caisson_hypervisor::{
    BoxFuture, Capabilities, Hypervisor, LaunchError, Launched, VmSpec,
    console::{BoundedLog, begin},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Mutex,
};

use self::{
    acceleration::Kvm,
    arguments::Sockets,
    console::Recording,
    leftovers::Records,
    process::Process,
    programs::{QEMU, Search},
    qmp::{Command, Qmp, QmpError},
    supervise::{Parts, QemuVm},
};

/// How long QEMU may take to come up, on a busy computer.
const START_LIMIT: Duration = Duration::from_secs(15);

/// The QEMU backend.
#[derive(Debug)]
pub struct Qemu {
    search: Search,
    cache: PathBuf,
    /// Held while it is found out, so that two who ask at once do not try twice.
    probing: Mutex<()>,
}

impl Qemu {
    /// The backend. What it finds out about this computer is kept in the directory `cache`.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self { search: Search::of_environment(), cache, probing: Mutex::new(()) }
    }

    async fn find_capabilities(&self, kernel: &Path) -> Result<Capabilities, LaunchError> {
        let qemu = self.search.find(&QEMU)?;
        Ok(self.kvm(&qemu, kernel).await.capabilities())
    }

    async fn kvm(&self, qemu: &Path, kernel: &Path) -> Kvm {
        let _alone = self.probing.lock().await;
        acceleration::find_out(qemu, kernel, &self.cache).await
    }

    async fn power_on(&self, spec: &VmSpec) -> Result<Launched, LaunchError> {
        let qemu = self.search.find(&QEMU)?;
        check_files(spec)?;
        let acceleration = self.kvm(&qemu, &spec.kernel).await.capabilities().acceleration;
        let sockets = Sockets::within(&spec.runtime_dir);
        let mut records = Records::end_leftovers(&spec.runtime_dir);
        let log = begin(&spec.console_log)?;
        let (vsock, incoming) = vsock::plug(&sockets.vsock, &spec.listen)?;
        let (arguments, qmp) = (arguments::machine(spec, &acceleration, &sockets), listen(&sockets.qmp)?);
        let (qemu, console) = start(&qemu, &arguments, log, &mut records).await?;
        let (qemu, qmp) = let_run(qemu, qmp).await?;
        let parts = Parts { qemu, console, vsock, qmp };
        Ok(Launched { vm: Box::new(QemuVm::supervise(parts)), incoming })
    }
}

impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn capabilities<'a>(&'a self, kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>> {
        Box::pin(self.find_capabilities(kernel))
    }

    fn launch<'a>(&'a self, spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>> {
        Box::pin(self.power_on(spec))
    }
}

/// QEMU's own messages about files are many and vary; these say which part of the machine is missing.
fn check_files(spec: &VmSpec) -> Result<(), LaunchError> {
    let open = |action, path: &Path| {
        File::open(path).map(drop).map_err(|source| LaunchError::File { action, path: path.into(), source })
    };
    open("open the kernel", &spec.kernel)?;
    open("open the initial ramdisk", &spec.initrd)?;
    if let Some(root) = &spec.root {
        open("open the root disk", root)?;
    }
    let data = File::options().read(true).write(true).open(&spec.data_disk);
    data.map(drop).map_err(|source| LaunchError::File {
        action: "open the data disk",
        path: spec.data_disk.clone(),
        source,
    })
}

/// Starts QEMU; its console goes to `log` from its first byte on.
async fn start(
    program: &Path,
    arguments: &[OsString],
    log: BoundedLog,
    records: &mut Records,
) -> Result<(Process, Recording), LaunchError> {
    let spawned = Process::spawn(program, arguments).await;
    let (process, output) =
        spawned.map_err(|source| LaunchError::File { action: "run", path: program.into(), source })?;
    records.add(process.name(), process.pid());
    Ok((process, Recording::start(output, log)))
}

/// Makes a socket of ours, in place of a stale one.
fn listen(path: &Path) -> Result<UnixListener, LaunchError> {
    let file = |action| move |source| LaunchError::File { action, path: path.into(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("replace the old socket")(error));
        }
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path).map_err(file("listen on"))
}

/// Waits for QEMU to connect, and returns when the machine's processors run.
async fn let_run(
    mut process: Process,
    listener: UnixListener,
) -> Result<(Process, Qmp<UnixStream>), LaunchError> {
    let ready = async {
        let (stream, _) = listener.accept().await?;
        let mut qmp = Qmp::open(stream).await?;
        let answer = qmp.call(Command::Continue).await?;
        Ok::<_, QmpError>((qmp, answer))
    };
    let opened = within_limit(&mut process, "take orders", ready).await?;
    let refused = |how| LaunchError::Refused { part: process.name().into(), how, tail: Vec::new() };
    let (qmp, answer) = match opened {
        Ok(opened) => opened,
        // QEMU's own last words tell more than that it closed the socket, if it is about to end.
        Err(error) => return Err(last_words(&mut process, error).await),
    };
    answer.map_err(refused)?;
    Ok((process, qmp))
}

/// Waits for the process to be ready, to end, or to take too long, whichever comes first.
async fn within_limit<T>(
    process: &mut Process,
    expected: &'static str,
    ready: impl Future<Output = T>,
) -> Result<T, LaunchError> {
    let waited = tokio::time::timeout(START_LIMIT, async {
        tokio::select! {
            biased;
            ready = ready => Ok(ready),
            exit = process.exited() => Err(exit),
        }
    });
    match waited.await {
        Ok(Ok(ready)) => Ok(ready),
        Ok(Err(exit)) => {
            Err(LaunchError::Refused { part: process.name().into(), how: exit.how, tail: exit.tail })
        }
        Err(_) => {
            process.kill().await;
            Err(LaunchError::TimedOut { part: process.name().into(), expected, limit: START_LIMIT })
        }
    }
}

async fn last_words(process: &mut Process, error: QmpError) -> LaunchError {
    let part = process.name().to_owned();
    match tokio::time::timeout(Duration::from_secs(1), process.exited()).await {
        Ok(exit) => LaunchError::Refused { part, how: exit.how, tail: exit.tail },
        Err(_) => LaunchError::Refused { part, how: error.to_string(), tail: Vec::new() },
    }
}
