//! From a [`VmSpec`] to a machine that runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use caisson_hypervisor::{
    Acceleration, BoxFuture, Capabilities, Ending, HostVsockPort, Hypervisor, Incoming, LaunchError,
    Launched, VmEnd, VmSpec, VsockStream,
};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::warn;
use windows::core::GUID;

use crate::computecore::{ComputeCore, System};
use crate::document::{Devices, document};
use crate::hvsocket::Listener;
use crate::vm::HcsVm;
use crate::{console, pump, vhd, virtdisk};

/// How many streams of the guest's may wait to be taken.
const BACKLOG: usize = 64;
/// How the names of the machines' root disks begin.
const ROOT: &str = "root-";
/// What a listener that failed waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hyper-V, by the Host Compute Service.
#[derive(Debug, Default)]
pub struct Hcs;

impl Hcs {
    /// The service of this computer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Hypervisor for Hcs {
    fn name(&self) -> &'static str {
        "Hyper-V"
    }

    fn capabilities<'a>(&'a self, _kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>> {
        Box::pin(async {
            ComputeCore::get()?;
            Ok(Capabilities {
                acceleration: Acceleration::Hardware { by: "Hyper-V".to_owned() },
                max_cpus: max_cpus(),
                notices: Vec::new(),
            })
        })
    }

    fn launch<'a>(&'a self, spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>> {
        Box::pin(launch(spec.clone()))
    }
}

fn max_cpus() -> u32 {
    available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Where the machine's end is told, and what has to end with it.
#[derive(Clone, Default)]
pub(crate) struct Guest {
    pub(crate) ending: Ending,
    listeners: Arc<Mutex<Vec<Arc<Listener>>>>,
}

impl Guest {
    /// The machine is gone.
    pub(crate) fn ended(&self, why: VmEnd) {
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            listener.close();
        }
        self.ending.ended(why);
    }
}

async fn launch(spec: VmSpec) -> Result<Launched, LaunchError> {
    let core = ComputeCore::get()?;
    let id = GUID::new().map_err(|error| refused("make an id for the machine", &error.message()))?;
    let name = format!("{id:?}");
    let pipe = format!(r"\\.\pipe\caisson-console-{name}");
    let guest = Guest::default();
    console::record(&pipe, &spec.console_log, guest.ending.watch())?;
    let runtime = Handle::current();
    // Creating and starting blocks for as long as the service takes.
    let launching = tokio::task::spawn_blocking(move || power_on(core, &name, &pipe, &spec, guest, &runtime));
    launching.await.map_err(|error| refused("start the machine", &error.to_string()))?
}

fn power_on(
    core: &'static ComputeCore,
    name: &str,
    pipe: &str,
    spec: &VmSpec,
    guest: Guest,
    runtime: &Handle,
) -> Result<Launched, LaunchError> {
    let data = virtdisk::data_disk(&spec.data_disk)?;
    let root = spec.root.as_deref().map(|raw| fixed_root(raw, &spec.runtime_dir, name)).transpose()?;
    let files = [&spec.kernel, &spec.initrd, &data].into_iter().chain(&root);
    for file in files {
        core.grant_access(name, file)
            .map_err(|failure| failure.at_launch("let the machine open its files"))?;
    }
    let cpus = spec.cpus.clamp(1, max_cpus());
    let devices = Devices { root: root.as_deref(), data: &data, console: pipe, cpus };
    let told = guest.clone();
    let on_exit = Box::new(move |why| told.ended(why));
    let system = System::create(name, &document(spec, &devices).to_string(), on_exit)?;
    let machine = runtime_id(&system)?;
    // From here on, dropping the machine ends it and its listeners, whether it has started or not.
    let vm = HcsVm::new(system, machine, guest);
    let incoming = listen(machine, &spec.listen, vm.guest(), runtime)?;
    vm.start().map_err(|failure| failure.at_launch("start the machine"))?;
    Ok(Launched { vm: Box::new(vm), incoming })
}

fn refused(action: &str, why: &str) -> LaunchError {
    let how = format!("could not {action}: {why}");
    LaunchError::Refused { part: "Hyper-V".to_owned(), how, tail: Vec::new() }
}

/// The root as a VHD in the machine's own directory. It is written anew at each start: a copy of some MiB.
///
/// Each machine has a file of its own name, because the process of the machine before may still hold that one's open while
/// it dies.
fn fixed_root(raw: &Path, into: &Path, machine: &str) -> Result<PathBuf, LaunchError> {
    remove_old_roots(into);
    let vhd = into.join(format!("{ROOT}{machine}.vhd"));
    vhd::write_fixed(raw, &vhd).map_err(|source| LaunchError::File {
        action: "write the root disk",
        path: vhd.clone(),
        source,
    })?;
    Ok(vhd)
}

/// What the machines before have left. A file that is still held goes at the next start.
fn remove_old_roots(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(ROOT) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The id by which sockets find the machine.
fn runtime_id(system: &System) -> Result<GUID, LaunchError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Properties {
        runtime_id: String,
    }
    let told = system.properties().map_err(|failure| failure.at_launch("ask for the machine's id"))?;
    let properties: Properties =
        serde_json::from_str(&told).map_err(|error| refused("read the machine's id", &error.to_string()))?;
    GUID::try_from(properties.runtime_id.as_str())
        .map_err(|error| refused("read the machine's id", &error.to_string()))
}

/// Listens on all ports before the guest's first instruction. Each port has a thread that ends with the machine.
fn listen(
    machine: GUID,
    ports: &[HostVsockPort],
    guest: &Guest,
    runtime: &Handle,
) -> Result<Incoming, LaunchError> {
    let (streams, incoming) = mpsc::channel(BACKLOG);
    for port in ports.iter().copied() {
        let failed = |error: std::io::Error| refused("listen for the guest", &error.to_string());
        let listener = Arc::new(Listener::new(machine, port.0).map_err(failed)?);
        guest.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&listener));
        let (streams, runtime) = (streams.clone(), runtime.clone());
        std::thread::Builder::new()
            .name(format!("hvsocket-accept-{}", port.0))
            .spawn(move || accept(&listener, port, &streams, &runtime))
            .map_err(failed)?;
    }
    Ok(incoming)
}

fn accept(
    listener: &Listener,
    port: HostVsockPort,
    streams: &mpsc::Sender<(HostVsockPort, VsockStream)>,
    runtime: &Handle,
) {
    let _entered = runtime.enter();
    while let Some(accepted) = listener.accept() {
        match accepted.and_then(pump::stream) {
            Ok(stream) => {
                if streams.blocking_send((port, stream)).is_err() {
                    return;
                }
            }
            // A guest that hangs up too early is one; the next stream may be a good one.
            Err(error) => {
                warn!(port = port.0, %error, "could not take over a stream of the guest's");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}
