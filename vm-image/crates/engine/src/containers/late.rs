//! Containers whose shim is there and late, or whose network is not on record: what they are taken for until more is known.

use caisson_docker_api::time::Timestamp;
use caisson_networks::Sandbox;
use caisson_shim::proto::State as ShimState;
use tracing::warn;

use super::record::{Definition, StoredState};
use super::shared::{network_namespace, network_namespace_path};
use super::shim::timestamp;
use super::state::{Running, State};
use super::task::{Request, Task};
use super::{Containers, Handle, cgroup};

impl Containers {
    /// Hears what is to be known of a container when its shim answers at last.
    pub(super) async fn restore_late(self, handle: Handle) {
        let word = self.ground.shim_of(&handle.id).answered().await;
        // Another word is one of its end, which its task hears itself.
        let Some(ShimState::Running { pid, started_at }) = word else { return };
        let started_at = timestamp(started_at);
        if handle.ask(|answer| Request::Runs { pid, started_at, answer }).await.is_ok() {
            self.restore_execs(&handle).await;
        }
    }
}

impl Task {
    /// A container that was taken for running does run.
    pub(super) async fn runs(&mut self, pid: u32, started_at: Timestamp) {
        let State::Running(mut running) = self.state() else { return };
        let presumed = network_namespace_path(running.pid);
        running.sandbox.netns = running
            .sandbox
            .netns
            .map(|path| if path == presumed { network_namespace_path(pid) } else { path });
        self.set_state(State::Running(Running { pid, started_at, ..running }), false).await;
    }
}

/// What a container is taken for whose shim is there and does not answer: its first process and when it was started, if there is
/// one or should be.
pub(super) fn presumed(definition: &Definition, stored: &StoredState) -> Option<(u32, Timestamp)> {
    let pid = cgroup::directory(definition).and_then(|directory| cgroup::first_process(&directory));
    match stored {
        // No process has the number 0.
        StoredState::Running { started_at } => Some((pid.unwrap_or(0), *started_at)),
        StoredState::Created { .. } | StoredState::Restarting(_) | StoredState::Exited(_) => {
            pid.map(|pid| (pid, Timestamp::now()))
        }
    }
}

/// The sandbox of a running container of which the networks know nothing: one that lives in another's network, or has lost its own. It
/// is in the namespace of its process, and not in the host's unless that is.
pub(super) fn without_record(definition: &Definition, pid: u32) -> Sandbox {
    if !definition.host_config.network_mode.starts_with("container:") {
        warn!(id = definition.short_id(), "a running container has lost its network");
    }
    Sandbox {
        container: definition.id.clone(),
        // A process that is gone has a path that leads nowhere.
        netns: network_namespace(pid).unwrap_or_else(|_| Some(network_namespace_path(pid))),
        endpoints: Vec::new(),
        published: Vec::new(),
        resolver: false,
    }
}

#[cfg(test)]
mod tests {
    use caisson_shim::proto::{Reply, Request as ShimRequest, UnixNanos};

    use super::super::record::Standing;
    use super::super::testing::{Home, definition, running};
    use super::*;

    #[test]
    fn a_network_that_nobody_remembers_is_not_taken_for_the_host_s() {
        let netns = |pid| without_record(&definition("lost"), pid).netns;
        assert_eq!(netns(0), Some("/proc/0/ns/net".into()));
        assert_eq!(netns(std::process::id()), None, "this one is in the host's");
    }

    #[tokio::test]
    async fn what_a_late_shim_tells_is_taken_over() {
        let home = Home::new().await;
        let definition = definition("late");
        let mut state = running(0);
        if let State::Running(running) = &mut state {
            running.sandbox = without_record(&definition, 0);
        }
        home.serve_shim(&definition.id, |request| match request {
            ShimRequest::State => Some(Reply::State(ShimState::Running { pid: 7, started_at: UnixNanos(5) })),
            _ => None,
        });
        let handle = home.adopt(definition, state);
        home.containers.clone().restore_late(handle.clone()).await;
        let state = handle.state();
        let running = state.running().unwrap();
        assert_eq!((running.pid, running.started_at), (7, Timestamp::from_unix_nanos(5)));
        assert_eq!(running.sandbox.netns, Some("/proc/7/ns/net".into()));
    }

    #[test]
    fn who_is_late_is_taken_for_what_was_written() {
        let definition = definition("late");
        assert_eq!(
            presumed(&definition, &StoredState::Running { started_at: Timestamp::from_unix_nanos(1) }),
            Some((0, Timestamp::from_unix_nanos(1)))
        );
        assert_eq!(presumed(&definition, &Standing::new().state), None);
    }
}
