//! From a [`VmSpec`] to a machine that runs.
#![expect(unsafe_code, reason = "the framework's calls are foreign functions")]

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use block2::RcBlock;
use caisson_hypervisor::{
    Acceleration, BoxFuture, Capabilities, HostVsockPort, Hypervisor, LaunchError, Launched, VmSpec,
};
use dispatch2::{DispatchQueue, DispatchQueueAttr};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSError;
use objc2_virtualization::{VZVirtioSocketDevice, VZVirtioSocketListener, VZVirtualMachine};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::configuration::{PART, configuration, max_cpus};
use crate::delegates::{Accept, Guest, ListenerDelegate, MachineDelegate};
use crate::queue::Confined;
use crate::vm::VzVm;

/// How long the framework may take to start a machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How many streams of the guest's may wait to be taken; more are refused.
const BACKLOG: usize = 64;

/// Virtualization.framework.
#[derive(Debug, Default)]
pub struct Vz;

impl Vz {
    /// The framework of this Mac.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    fn supported() -> Result<(), LaunchError> {
        // SAFETY: a class property without preconditions.
        match unsafe { VZVirtualMachine::isSupported() } {
            true => Ok(()),
            false => Err(LaunchError::FeatureMissing {
                feature: PART,
                remedy: "Caisson needs a Mac that supports virtualization, with macOS 13 or newer".to_owned(),
            }),
        }
    }
}

impl Hypervisor for Vz {
    fn name(&self) -> &'static str {
        PART
    }

    fn capabilities<'a>(&'a self, _kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>> {
        Box::pin(async {
            Self::supported()?;
            Ok(Capabilities {
                acceleration: Acceleration::Hardware { by: PART.to_owned() },
                max_cpus: u32::try_from(max_cpus()).unwrap_or(u32::MAX),
                notices: Vec::new(),
            })
        })
    }

    fn launch<'a>(&'a self, spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>> {
        Box::pin(launch(spec))
    }
}

/// The objects of one machine, all on its queue.
pub(crate) struct Parts {
    pub(crate) machine: Retained<VZVirtualMachine>,
    pub(crate) vsock: Retained<VZVirtioSocketDevice>,
    // The framework holds its delegates weakly.
    _delegate: Retained<MachineDelegate>,
    _listeners: Vec<(Retained<VZVirtioSocketListener>, Retained<ListenerDelegate>)>,
}

async fn launch(spec: &VmSpec) -> Result<Launched, LaunchError> {
    Vz::supported()?;
    let (incoming, streams) = mpsc::channel(BACKLOG);
    let guest = Guest::new(incoming);
    let parts = parts(spec.clone(), guest.clone()).await?;
    // From here on, dropping the machine ends it, whether it has started or not.
    let vm = VzVm::new(parts, guest);
    start(&vm).await?;
    Ok(Launched { vm: Box::new(vm), incoming: streams })
}

async fn parts(spec: VmSpec, guest: Guest) -> Result<Confined<Parts>, LaunchError> {
    let queue = DispatchQueue::new("app.caisson.machine", DispatchQueueAttr::SERIAL);
    let runtime = Handle::current();
    let made = Confined::make(queue, move |queue| assemble(&spec, queue, &guest, &runtime)).await;
    made.unwrap_or_else(|| Err(gave_up()))
}

fn gave_up() -> LaunchError {
    LaunchError::Refused { part: PART.to_owned(), how: "its queue gave up".to_owned(), tail: Vec::new() }
}

fn assemble(
    spec: &VmSpec,
    queue: &DispatchQueue,
    guest: &Guest,
    runtime: &Handle,
) -> Result<Parts, LaunchError> {
    let configuration = configuration(spec)?;
    let delegate = MachineDelegate::new(guest.clone());
    // SAFETY: this runs on `queue`, the machine's own; the configuration was validated.
    let (machine, devices) = unsafe {
        let machine =
            VZVirtualMachine::initWithConfiguration_queue(VZVirtualMachine::alloc(), &configuration, queue);
        machine.setDelegate(Some(ProtocolObject::from_ref(&*delegate)));
        let devices = machine.socketDevices();
        (machine, devices)
    };
    let vsock = devices.iter().find_map(|device| device.downcast::<VZVirtioSocketDevice>().ok());
    let vsock = vsock.ok_or_else(|| LaunchError::Refused {
        part: PART.to_owned(),
        how: "it made no vsock device".to_owned(),
        tail: Vec::new(),
    })?;
    let listeners = spec.listen.iter().map(|port| listen(&vsock, *port, guest, runtime)).collect();
    Ok(Parts { machine, vsock, _delegate: delegate, _listeners: listeners })
}

fn listen(
    vsock: &VZVirtioSocketDevice,
    port: HostVsockPort,
    guest: &Guest,
    runtime: &Handle,
) -> (Retained<VZVirtioSocketListener>, Retained<ListenerDelegate>) {
    let accept = Accept { port, guest: guest.clone(), runtime: runtime.clone() };
    let delegate = ListenerDelegate::new(accept);
    // SAFETY: this runs on the machine's queue; listener and delegate are kept in `Parts`.
    let listener = unsafe {
        let listener = VZVirtioSocketListener::new();
        listener.setDelegate(Some(ProtocolObject::from_ref(&*delegate)));
        vsock.setSocketListener_forPort(&listener, port.0);
        listener
    };
    (listener, delegate)
}

async fn start(vm: &VzVm) -> Result<(), LaunchError> {
    let (answer, answered) = oneshot::channel();
    let asked = vm.parts().run(move |parts| {
        let answer = Cell::new(Some(answer));
        let done = RcBlock::new(move |error: *mut NSError| {
            if let Some(answer) = answer.take() {
                // Nobody waits any more if the launch was given up.
                let _ = answer.send(description(error));
            }
        });
        // SAFETY: this runs on the machine's queue, and the machine has not been started.
        unsafe { parts.machine.startWithCompletionHandler(&done) };
    });
    asked.await.map_err(|_| gave_up())?;
    match tokio::time::timeout(STARTS_WITHIN, answered).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(how))) => Err(LaunchError::Refused { part: PART.to_owned(), how, tail: Vec::new() }),
        Ok(Err(_)) => Err(gave_up()),
        Err(_) => Err(LaunchError::TimedOut {
            part: PART.to_owned(),
            expected: "start the machine",
            limit: STARTS_WITHIN,
        }),
    }
}

/// What an error that a block was called with says; `None` if there is none.
pub(crate) fn description(error: *mut NSError) -> Option<String> {
    // SAFETY: the framework passes null or an error that lives as long as the call of the block.
    unsafe { error.as_ref() }.map(|error| error.localizedDescription().to_string())
}
