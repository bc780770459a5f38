//! The guest's vsock, on our side: a vhost-user device in this process.
//!
//! QEMU hands the device's rings over through a socket and shares the guest's memory; from then on packets go between the
//! guest and this process with nobody in between, no kernel module and no root. `device` serves the rings on a
//! thread of its own, `mux` knows the streams, `stream` is a stream's end for the rest of the program.
//!
//! Why not the ready-made `vhost-device-vsock` 0.3: it keeps no half-close, stalls when both directions of a stream are busy
//! (it stops writing to the host while it waits for the guest to read, and the other way round: 16 MiB through an
//! echo never came back), cannot take packets of more than one descriptor, and aborts with the machine when a client
//! goes away at the wrong moment. It would also be one more program to install.

mod device;
mod mux;
mod packet;
mod stream;

use std::{
    collections::HashMap,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use caisson_hypervisor::{ConnectError, GuestVsockPort, HostVsockPort, Incoming, LaunchError, VsockStream};
use tokio::sync::{mpsc, oneshot};
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
};

use self::{
    device::{Device, KICK},
    stream::{HostEnd, Shared},
};

/// How long the guest may take to accept a stream; this is for a guest that is busy booting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Streams of the guest's that wait to be taken, before more are refused.
const WAITING_STREAMS: usize = 1024;

/// The way into a guest.
#[derive(Clone)]
pub(super) struct Vsock(Arc<Shared>);

/// The device of one machine. Dropping it ends it.
pub(super) struct VsockDevice {
    pub(super) vsock: Vsock,
    socket: PathBuf,
    ended: oneshot::Receiver<String>,
}

type Daemon = VhostUserDaemon<Arc<Mutex<Device>>>;

/// Makes a machine's vsock, to which QEMU connects at `socket`, and waits for the guest on these ports.
pub(super) fn plug(socket: &Path, ports: &[HostVsockPort]) -> Result<(VsockDevice, Incoming), LaunchError> {
    let failed =
        |source| LaunchError::File { action: "make the vsock device at", path: socket.into(), source };
    let (streams, incoming) = mpsc::channel(WAITING_STREAMS);
    let listeners: HashMap<_, _> = ports.iter().map(|port| (port.0, streams.clone())).collect();
    let (shared, daemon) = daemon(listeners).map_err(failed)?;
    let listener = Listener::new(socket, true).map_err(|error| failed(io::Error::other(error)))?;
    let (tell, ended) = oneshot::channel();
    let serving = shared.clone();
    let serve = move || {
        let why = serve(daemon, listener);
        serving.mux().close();
        // Nobody waits any more: fine.
        let _ = tell.send(why);
    };
    std::thread::Builder::new().name("vsock".into()).spawn(serve).map_err(failed)?;
    Ok((VsockDevice { vsock: Vsock(shared), socket: socket.into(), ended }, incoming))
}

fn daemon(
    listeners: HashMap<u32, mpsc::Sender<(HostVsockPort, VsockStream)>>,
) -> io::Result<(Arc<Shared>, Daemon)> {
    let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
    let kick = event()?;
    let shared = Arc::new(Shared::new(kick.try_clone()?));
    let kick_fd = kick.as_raw_fd();
    let device = Arc::new(Mutex::new(Device::new(shared.clone(), listeners, kick, event()?)));
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new("vsock-setup".into(), device, memory)
        .map_err(|error| io::Error::other(error.to_string()))?;
    for handler in daemon.get_epoll_handlers() {
        handler.register_listener(kick_fd, EventSet::IN, KICK.into())?;
    }
    Ok((shared, daemon))
}

/// Serves the one QEMU that connects until it is gone. Gives why, in words.
fn serve(mut daemon: Daemon, listener: Listener) -> String {
    let served = daemon.start(listener).and_then(|()| daemon.wait());
    for handler in daemon.get_epoll_handlers() {
        handler.send_exit_event();
    }
    served.map_or_else(|error| error.to_string(), |()| "qemu closed its vsock".into())
}

impl VsockDevice {
    /// Returns why it ended, once it has. May be dropped while waiting.
    pub(super) async fn ended(&mut self) -> String {
        (&mut self.ended).await.unwrap_or_else(|_| "its thread is gone".into())
    }
}

impl Drop for VsockDevice {
    fn drop(&mut self) {
        self.vsock.0.mux().close();
        // A thread that still waits for QEMU finds somebody there who leaves at once. If none waits, nobody is there.
        let _ = UnixStream::connect(&self.socket);
    }
}

impl Vsock {
    /// Opens a stream to a port in the guest.
    pub(super) async fn connect(&self, port: GuestVsockPort) -> Result<VsockStream, ConnectError> {
        let (opened, answer) = oneshot::channel();
        let id = self.0.mux().open(port, opened);
        // From here on dropping this future gives the stream up.
        let end = HostEnd { shared: self.0.clone(), id };
        self.0.kick();
        match tokio::time::timeout(CONNECT_LIMIT, answer).await {
            Ok(Ok(Ok(()))) => Ok(Box::new(end)),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(ConnectError::Refused(port)),
            Err(_) => Err(ConnectError::TimedOut { port, limit: CONNECT_LIMIT }),
        }
    }
}
