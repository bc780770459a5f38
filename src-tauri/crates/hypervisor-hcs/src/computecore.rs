//! `computecore.dll`: the Host Compute Service's functions, looked up when the first machine is wanted.
#![expect(unsafe_code, reason = "the service's calls are foreign functions")]

use std::ffi::c_void;
use std::sync::OnceLock;

use caisson_hypervisor::{LaunchError, VmEnd};
use windows::Win32::Foundation::{HLOCAL, LocalFree};
use windows::Win32::Security::SECURITY_DESCRIPTOR;
use windows::Win32::System::HostComputeSystem::{
    HCS_EVENT, HCS_EVENT_CALLBACK, HCS_EVENT_OPTIONS, HCS_OPERATION, HCS_OPERATION_COMPLETION, HCS_SYSTEM,
    HcsEventOptionNone, HcsEventServiceDisconnect, HcsEventSystemExited,
};
use windows::core::{HRESULT, HSTRING, PCWSTR, PWSTR};

use crate::exit::{died, end};
use crate::library::Library;

type OnSystem = unsafe extern "system" fn(HCS_SYSTEM, HCS_OPERATION, PCWSTR) -> HRESULT;

/// The functions of `computecore.dll` that a machine takes.
pub(crate) struct ComputeCore {
    create_operation: unsafe extern "system" fn(*const c_void, HCS_OPERATION_COMPLETION) -> HCS_OPERATION,
    close_operation: unsafe extern "system" fn(HCS_OPERATION),
    wait: unsafe extern "system" fn(HCS_OPERATION, u32, *mut PWSTR) -> HRESULT,
    create: unsafe extern "system" fn(
        PCWSTR,
        PCWSTR,
        HCS_OPERATION,
        *const SECURITY_DESCRIPTOR,
        *mut HCS_SYSTEM,
    ) -> HRESULT,
    close: unsafe extern "system" fn(HCS_SYSTEM),
    start: OnSystem,
    shut_down: OnSystem,
    terminate: OnSystem,
    properties: OnSystem,
    set_callback: unsafe extern "system" fn(
        HCS_SYSTEM,
        HCS_EVENT_OPTIONS,
        *const c_void,
        HCS_EVENT_CALLBACK,
    ) -> HRESULT,
    grant_access: unsafe extern "system" fn(PCWSTR, PCWSTR) -> HRESULT,
}

/// Why a call of the service's failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: HRESULT,
    /// The service's own account, in JSON, if it gave one.
    result: String,
}

/// `HCS_E_HYPERV_NOT_INSTALLED` and `HCS_E_SERVICE_NOT_AVAILABLE` (hcserror.h).
const NOT_INSTALLED: [i32; 2] = [0x8037_0102_u32 as i32, 0x8037_0114_u32 as i32];
/// `E_ACCESSDENIED` and `HCS_E_ACCESS_DENIED`.
const DENIED: [i32; 2] = [0x8007_0005_u32 as i32, 0x8037_011B_u32 as i32];

impl Failure {
    /// How it is told: the system's words for the code, and the service's account.
    pub(crate) fn how(&self) -> String {
        let told = format!("{} ({:#010x})", self.code.message(), self.code.0);
        match self.result.is_empty() {
            true => told,
            false => format!("{told}: {}", self.result),
        }
    }

    /// As the failure of a launch, in which the service was asked to `action`.
    pub(crate) fn at_launch(self, action: &str) -> LaunchError {
        if NOT_INSTALLED.contains(&self.code.0) {
            return absent();
        }
        if DENIED.contains(&self.code.0) {
            return LaunchError::FeatureMissing {
                feature: "permission to run Hyper-V machines",
                remedy: "add this user to the group \"Hyper-V Administrators\" and sign in again".to_owned(),
            };
        }
        let how = format!("could not {action}: {}", self.how());
        LaunchError::Refused { part: "Hyper-V".to_owned(), how, tail: Vec::new() }
    }
}

/// What a computer without Hyper-V is told.
pub(crate) fn absent() -> LaunchError {
    LaunchError::FeatureMissing {
        feature: "Hyper-V",
        remedy: "turn on the Windows feature \"Virtual Machine Platform\" \
                 (dism /online /enable-feature /featurename:VirtualMachinePlatform) and restart"
            .to_owned(),
    }
}

impl ComputeCore {
    /// The library, loaded once; an error says what to enable.
    pub(crate) fn get() -> Result<&'static Self, LaunchError> {
        static LOADED: OnceLock<Option<ComputeCore>> = OnceLock::new();
        LOADED.get_or_init(Self::load).as_ref().ok_or_else(absent)
    }

    fn load() -> Option<Self> {
        let library = Library::load("computecore.dll")?;
        // SAFETY: the fields' types are the signatures of these functions in ComputeCore.h.
        unsafe {
            Some(Self {
                create_operation: library.function(c"HcsCreateOperation")?,
                close_operation: library.function(c"HcsCloseOperation")?,
                wait: library.function(c"HcsWaitForOperationResult")?,
                create: library.function(c"HcsCreateComputeSystem")?,
                close: library.function(c"HcsCloseComputeSystem")?,
                start: library.function(c"HcsStartComputeSystem")?,
                shut_down: library.function(c"HcsShutDownComputeSystem")?,
                terminate: library.function(c"HcsTerminateComputeSystem")?,
                properties: library.function(c"HcsGetComputeSystemProperties")?,
                set_callback: library.function(c"HcsSetComputeSystemCallback")?,
                grant_access: library.function(c"HcsGrantVmAccess")?,
            })
        }
    }

    /// Lets the machine `id`, which may not exist yet, open a file.
    pub(crate) fn grant_access(&self, id: &str, path: &std::path::Path) -> Result<(), Failure> {
        let (id, path) = (HSTRING::from(id), HSTRING::from(path));
        // SAFETY: both strings end with a zero and outlive the call.
        check(unsafe { (self.grant_access)(PCWSTR(id.as_ptr()), PCWSTR(path.as_ptr())) })
    }

    /// Runs `call` with an operation and waits for its result.
    fn operate(&self, limit_ms: u32, call: impl FnOnce(HCS_OPERATION) -> HRESULT) -> Result<String, Failure> {
        // SAFETY: an operation without a callback needs no context.
        let operation = unsafe { (self.create_operation)(std::ptr::null(), None) };
        let result = check(call(operation)).and_then(|()| self.wait(operation, limit_ms));
        // SAFETY: the operation is open, and not used again.
        unsafe { (self.close_operation)(operation) };
        result
    }

    fn wait(&self, operation: HCS_OPERATION, limit_ms: u32) -> Result<String, Failure> {
        let mut document = PWSTR::null();
        // SAFETY: the operation is open; the service fills in a string of its own, or null.
        let code = unsafe { (self.wait)(operation, limit_ms, &raw mut document) };
        let result = take(document);
        match code.is_ok() {
            true => Ok(result),
            false => Err(Failure { code, result }),
        }
    }
}

fn check(code: HRESULT) -> Result<(), Failure> {
    match code.is_ok() {
        true => Ok(()),
        false => Err(Failure { code, result: String::new() }),
    }
}

/// A string that the service allocated, which goes back to it.
fn take(text: PWSTR) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the service's strings end with a zero; ours to free with `LocalFree` (HcsWaitForOperationResult).
    unsafe {
        let taken = text.to_string().unwrap_or_default();
        LocalFree(Some(HLOCAL(text.as_ptr().cast())));
        taken
    }
}

/// What is called when the machine has exited.
type OnExit = Box<dyn Fn(VmEnd) + Send + Sync>;

/// What the service's callback gets, at an address of its own.
struct Watcher {
    on_exit: OnExit,
}

/// A compute system. Closing its last handle terminates it.
pub(crate) struct System {
    core: &'static ComputeCore,
    handle: HCS_SYSTEM,
    // The service holds a pointer to it until the handle closes.
    watcher: Box<Watcher>,
}

// SAFETY: compute system handles may be used from any thread, at the same time (HCS documentation, "Handles").
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

impl System {
    /// Creates the system that `document` describes. It does not run yet. Blocks.
    pub(crate) fn create(id: &str, document: &str, on_exit: OnExit) -> Result<Self, LaunchError> {
        let core = ComputeCore::get()?;
        let (id, document) = (HSTRING::from(id), HSTRING::from(document));
        let mut handle = HCS_SYSTEM::default();
        // SAFETY: the strings end with a zero and outlive the call; no security descriptor means the default one.
        let call = |operation| unsafe {
            let (id, document) = (PCWSTR(id.as_ptr()), PCWSTR(document.as_ptr()));
            (core.create)(id, document, operation, std::ptr::null(), &raw mut handle)
        };
        core.operate(CREATE_MS, call).map_err(|failure| failure.at_launch("create the machine"))?;
        let system = Self { core, handle, watcher: Box::new(Watcher { on_exit }) };
        system.listen().map_err(|failure| failure.at_launch("watch the machine"))?;
        Ok(system)
    }

    fn listen(&self) -> Result<(), Failure> {
        let context: *const Watcher = &raw const *self.watcher;
        // SAFETY: the handle is open; the context lives until `drop` has closed it, and no callback runs after that.
        let code = unsafe {
            (self.core.set_callback)(self.handle, HcsEventOptionNone, context.cast(), Some(on_event))
        };
        check(code)
    }

    /// Starts it. Blocks.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        self.operate(self.core.start, CREATE_MS, None).map(drop)
    }

    /// Asks its guest to shut down. Blocks until the request is delivered.
    pub(crate) fn shut_down(&self) -> Result<(), Failure> {
        self.operate(self.core.shut_down, REQUEST_MS, None).map(drop)
    }

    /// Ends it. Blocks until it is gone.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        self.operate(self.core.terminate, CREATE_MS, None).map(drop)
    }

    /// Its properties, as JSON. Blocks.
    pub(crate) fn properties(&self) -> Result<String, Failure> {
        self.operate(self.core.properties, REQUEST_MS, Some("{}"))
    }

    fn operate(&self, call: OnSystem, limit_ms: u32, options: Option<&str>) -> Result<String, Failure> {
        let options = options.map(HSTRING::from);
        let options = options.as_ref().map_or(PCWSTR::null(), |text| PCWSTR(text.as_ptr()));
        // SAFETY: the handle is open, and the options end with a zero or are null.
        self.core.operate(limit_ms, |operation| unsafe { call(self.handle, operation, options) })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used again; the service runs no callback after this returns.
        unsafe { (self.core.close)(self.handle) };
    }
}

/// How long the service may take to create, start or end a machine, in milliseconds.
const CREATE_MS: u32 = 30_000;
/// How long it may take to pass a request on, in milliseconds.
const REQUEST_MS: u32 = 10_000;

unsafe extern "system" fn on_event(event: *const HCS_EVENT, context: *const c_void) {
    // SAFETY: the service passes an event that lives as long as this call, and the context that `listen` gave.
    let (event, watcher) = unsafe { (&*event, &*context.cast::<Watcher>()) };
    if event.Type == HcsEventSystemExited {
        (watcher.on_exit)(end(&data(event)));
    } else if event.Type == HcsEventServiceDisconnect {
        (watcher.on_exit)(died("the Host Compute Service ended"));
    }
}

/// What an event carries; empty if nothing.
fn data(event: &HCS_EVENT) -> String {
    if event.EventData.is_null() {
        return String::new();
    }
    // SAFETY: an event's data is null or ends with a zero, and lives as long as the event.
    unsafe { event.EventData.to_string() }.unwrap_or_default()
}
