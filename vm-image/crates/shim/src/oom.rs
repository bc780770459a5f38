//! What the kernel kills in the container for want of memory: seen as it happens, by its cgroup.

use std::os::fd::{AsFd, BorrowedFd};

use caisson_runtime::cgroup::{Cgroup, MemoryEvents};

/// The kills so far.
#[derive(Debug, Default)]
pub(crate) struct OomKills {
    /// `None` before the start, and where memory is not counted.
    events: Option<MemoryEvents>,
    count: u64,
}

impl OomKills {
    /// None yet: the cgroup is the container's, and was made for it.
    pub(crate) fn of(cgroup: Option<&Cgroup>) -> Self {
        Self { events: cgroup.and_then(|cgroup| cgroup.memory_events().ok()), count: 0 }
    }

    /// What has an exceptional condition when it is time to count again.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// How many there were when they were last counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Counts them, and says whether there are more than before.
    pub(crate) fn recount(&mut self) -> bool {
        let Some(events) = &self.events else { return false };
        match events.oom_kills() {
            Ok(count) => count > std::mem::replace(&mut self.count, count),
            // Who cannot be read is ready for ever.
            Err(error) => {
                eprintln!("count the kills for want of memory: {error}");
                self.events = None;
                false
            }
        }
    }
}
