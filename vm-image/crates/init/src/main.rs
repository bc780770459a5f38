//! caisson-init: the machine's first process and the host's agent in it.
//!
//! What it goes through, and which module does it:
//!
//! ```text
//!  kernel -> [boot]   mounts /proc /sys /dev, loads the modules of the devices that are there, finds the
//!                     read-only root and moves into it, mounts the rest, readies cgroups     (no runtime, no threads)
//!         -> [agent]  the event loop: says hello to the host, waits for its welcome
//!              stage Agent   hostname, clock, lo
//!              stage Disk    [disk] formats, checks, mounts and grows the data disk
//!              stage Engine  [engine] starts the engine, and again whenever it ends
//!                            [host] keeps what the host tells of itself in files
//!              all the time  [link] the conversation with the host     [relay] streams to the engine and containers
//!                            [egress] the way out of the machine, on its own thread
//!                            [children] reaps every process of the machine
//!                            [guard] keeps all others from the host's streams
//!         -> [power]  stops the engine, kills the rest, unmounts, powers off
//! ```
//!
//! The kernel calls the same program as `/sbin/modprobe` when something needs a module: [modprobe].
//!
//! It has no configuration file and no shell; what it is told, it is told by the host.

mod agent;
mod backoff;
mod boot;
mod children;
mod clock;
mod disk;
mod egress;
mod engine;
mod guard;
mod host;
mod link;
mod log;
mod modprobe;
mod modules;
mod power;
mod relay;
mod vsock;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let called = arguments.first().map_or("", String::as_str);
    if Path::new(called).file_name().is_some_and(|name| name == "modprobe") {
        return modprobe::main(&arguments[1..]);
    }
    if std::process::id() != 1 {
        eprintln!("caisson-init is the first process of Caisson's machine and does nothing elsewhere");
        return ExitCode::from(2);
    }
    let outbox = link::Outbox::new();
    log::start(outbox.clone());
    if let Err(error) = boot::bring_up().and_then(|data_disk| agent::run(&outbox, data_disk)) {
        tracing::error!("{error:#}");
    }
    power::off()
}
