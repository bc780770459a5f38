//! What the framework tells us on the machine's queue: that the guest stopped, and that it connects.
#![expect(
    unsafe_code,
    reason = "delegates are Objective-C classes, and the framework's calls foreign functions"
)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use caisson_hypervisor::{Ending, HostVsockPort, VmEnd, VsockStream};
use objc2::rc::Retained;
use objc2::runtime::NSObject;
use objc2::{AnyThread, DefinedClass, define_class, msg_send};
use objc2_foundation::{NSError, NSObjectProtocol};
use objc2_virtualization::{
    VZVirtioSocketConnection, VZVirtioSocketDevice, VZVirtioSocketListener, VZVirtioSocketListenerDelegate,
    VZVirtualMachine, VZVirtualMachineDelegate,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::warn;

use crate::configuration::PART;

/// Where the guest's streams go.
pub(crate) type Streams = mpsc::Sender<(HostVsockPort, VsockStream)>;

/// What the guest does that is told here: it ends, and it opens streams.
#[derive(Clone)]
pub(crate) struct Guest {
    /// Where its end is told.
    pub(crate) ending: Ending,
    /// Gone when the machine is, so that its receiver ends.
    incoming: Arc<Mutex<Option<Streams>>>,
}

impl Guest {
    /// A guest whose streams go to `incoming`.
    pub(crate) fn new(incoming: Streams) -> Self {
        Self { ending: Ending::default(), incoming: Arc::new(Mutex::new(Some(incoming))) }
    }

    /// The machine is gone.
    pub(crate) fn ended(&self, why: VmEnd) {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.ending.ended(why);
    }

    fn hand_on(&self, port: HostVsockPort, stream: VsockStream) -> bool {
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        incoming.as_ref().is_some_and(|incoming| incoming.try_send((port, stream)).is_ok())
    }
}

define_class!(
    // SAFETY: NSObject has no rules for its subclasses, and this one implements no `Drop`.
    #[unsafe(super(NSObject))]
    #[ivars = Guest]
    pub(crate) struct MachineDelegate;

    // SAFETY: NSObjectProtocol has no rules of its own.
    unsafe impl NSObjectProtocol for MachineDelegate {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl VZVirtualMachineDelegate for MachineDelegate {
        #[unsafe(method(guestDidStopVirtualMachine:))]
        fn guest_did_stop(&self, _machine: &VZVirtualMachine) {
            self.ivars().ended(VmEnd::PoweredOff);
        }

        #[unsafe(method(virtualMachine:didStopWithError:))]
        fn did_stop_with_error(&self, _machine: &VZVirtualMachine, error: &NSError) {
            let how = error.localizedDescription().to_string();
            self.ivars().ended(VmEnd::Died { part: PART.to_owned(), how, tail: Vec::new() });
        }
    }
);

impl MachineDelegate {
    pub(crate) fn new(guest: Guest) -> Retained<Self> {
        let this = Self::alloc().set_ivars(guest);
        // SAFETY: NSObject's `init` takes nothing and returns the object.
        unsafe { msg_send![super(this), init] }
    }
}

/// What a listener needs to hand a stream on.
pub(crate) struct Accept {
    /// The port that it listens on.
    pub(crate) port: HostVsockPort,
    /// Where streams go, while the machine lives.
    pub(crate) guest: Guest,
    /// The runtime that the streams belong to; the queue's threads are none of its own.
    pub(crate) runtime: Handle,
}

define_class!(
    // SAFETY: NSObject has no rules for its subclasses, and this one implements no `Drop`.
    #[unsafe(super(NSObject))]
    #[ivars = Accept]
    pub(crate) struct ListenerDelegate;

    // SAFETY: NSObjectProtocol has no rules of its own.
    unsafe impl NSObjectProtocol for ListenerDelegate {}

    // SAFETY: the method has the protocol's signature.
    unsafe impl VZVirtioSocketListenerDelegate for ListenerDelegate {
        #[unsafe(method(listener:shouldAcceptNewConnection:fromSocketDevice:))]
        fn should_accept(
            &self,
            _listener: &VZVirtioSocketListener,
            connection: &VZVirtioSocketConnection,
            _device: &VZVirtioSocketDevice,
        ) -> bool {
            let accept = self.ivars();
            let taken = descriptor(connection).and_then(|descriptor| stream(descriptor, &accept.runtime));
            match taken {
                Ok(stream) => accept.guest.hand_on(accept.port, stream),
                Err(error) => {
                    warn!(port = accept.port.0, %error, "could not take over a stream of the guest's");
                    false
                }
            }
        }
    }
);

impl ListenerDelegate {
    pub(crate) fn new(accept: Accept) -> Retained<Self> {
        let this = Self::alloc().set_ivars(accept);
        // SAFETY: NSObject's `init` takes nothing and returns the object.
        unsafe { msg_send![super(this), init] }
    }
}

/// A descriptor of our own for a connection; the connection object may go.
pub(crate) fn descriptor(connection: &VZVirtioSocketConnection) -> std::io::Result<OwnedFd> {
    // SAFETY: the descriptor is open for as long as `connection` lives, which is longer than this borrow.
    unsafe { BorrowedFd::borrow_raw(connection.fileDescriptor()) }.try_clone_to_owned()
}

/// A connection's descriptor as a stream. It is a stream socket, for which tokio's Unix stream makes the right calls.
pub(crate) fn stream(descriptor: OwnedFd, runtime: &Handle) -> std::io::Result<VsockStream> {
    let socket = UnixStream::from(descriptor);
    socket.set_nonblocking(true)?;
    let _entered = runtime.enter();
    Ok(Box::new(tokio::net::UnixStream::from_std(socket)?))
}
