//! The machine's clock, which the host sets: at the welcome and whenever the host finds it has slept.

use caisson_guest_proto::UnixNanos;
use rustix::time::{ClockId, Timespec, clock_settime};

/// Sets the wall clock. What fails is logged: a machine with a wrong clock still runs.
pub(crate) fn set(time: UnixNanos) {
    let since = time.since_epoch();
    let seconds = i64::try_from(since.as_secs()).expect("nanoseconds in a u64 are under 2^35 seconds");
    let timespec = Timespec { tv_sec: seconds, tv_nsec: i64::from(since.subsec_nanos()) };
    if let Err(error) = clock_settime(ClockId::Realtime, timespec) {
        tracing::warn!("could not set the clock: {error}");
    }
}
