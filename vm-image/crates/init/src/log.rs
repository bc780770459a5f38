//! The log: each line goes to the console, which the host keeps in a file, and to the host as a message.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;

use caisson_guest_proto::FromGuest;
use rustix::time::{ClockId, clock_gettime};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::link::Outbox;

/// From here on everything that is logged goes out. To be called once.
pub(crate) fn start(outbox: Arc<Outbox>) {
    tracing::subscriber::set_global_default(Log { outbox }).expect("nothing else sets a subscriber");
}

/// The subscriber: no spans, no filters, no dependencies that PID 1 would have to carry.
struct Log {
    outbox: Arc<Outbox>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("caisson")
    }

    fn event(&self, event: &Event<'_>) {
        let line = line(since_boot(), event);
        // A console that cannot be written to leaves nowhere to say so.
        let _ = writeln!(std::io::stderr(), "{line}");
        self.outbox.send(FromGuest::Log { line });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Seconds since the kernel started.
fn since_boot() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// `[    1.234] init: message key=value`, in the shape of the kernel's own lines among which it stands.
fn line(seconds: f64, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = match *event.metadata().level() {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        _ => "",
    };
    format!("[{seconds:9.3}] init: {level}{}{}", fields.message, fields.rest)
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}
