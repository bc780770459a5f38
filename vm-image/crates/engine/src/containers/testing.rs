//! Containers for tests, on directories of their own and without root: they can be made, found and removed, not started.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use caisson_docker_api::container::{Config, HostConfig};
use caisson_docker_api::time::Timestamp;
use caisson_guest_proto::{read_frame, write_frame};
use caisson_images::Store;
use caisson_networks::{Networks, Options, Publisher, Sandbox};
use caisson_runtime::cgroup::Cgroup;
use caisson_shim::config::SOCKET_FILE;
use caisson_shim::proto::{Reply, Request};
use caisson_volumes::Volumes;
use tokio::net::UnixListener;

use super::exec::Execs;
use super::health::Healths;
use super::quota::Quota;
use super::record::Definition;
use super::spec::cgroup_path;
use super::state::{Exited, FailedRemovals, Running, State, Status};
use super::support::Support;
use super::task::History;
use super::{Containers, Ground, Handle};

/// Where the containers of a test are.
pub(super) struct Home {
    pub(super) containers: Containers,
    _root: tempfile::TempDir,
}

impl Home {
    pub(super) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["containers", "shims", "base-layer", "view"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let options = Options::new(Publisher::External(at("ports.sock")));
        let networks = Networks::open(&at("networks"), &at("exec"), options).await.unwrap();
        let containers = Containers::new(Ground {
            quota: Quota::probe(&at("containers")),
            containers: at("containers"),
            shims: at("shims"),
            shim: at("no-shim"),
            base_layer: at("base-layer"),
            view: at("view"),
            images: Store::open(at("images")).unwrap(),
            networks,
            volumes: Volumes::open(at("volumes")).unwrap(),
            events: Arc::default(),
            ending: AtomicBool::new(false),
            execs: Execs::default(),
            healths: Healths::default(),
            support: Support::default(),
            environment: None,
            host_gateways: Vec::new(),
            remap: None,
        });
        Self { containers, _root: root }
    }

    /// Puts a container on the disk.
    pub(super) fn lay_out(&self, definition: &Definition) {
        let directory = self.containers.ground.directory(&definition.id);
        directory.make().unwrap();
        directory.define(definition).unwrap();
    }

    /// A container in this state.
    pub(super) fn adopt(&self, definition: Definition, state: State) -> Handle {
        self.lay_out(&definition);
        self.containers.adopt(definition, state, History::default())
    }

    /// Answers for a container's shim; see [`serve`].
    pub(super) fn serve_shim(
        &self,
        id: &str,
        answer: impl Fn(Request) -> Option<Reply> + Send + Sync + 'static,
    ) {
        let bundle = self.containers.ground.shims.join(id);
        std::fs::create_dir(&bundle).unwrap();
        serve(&bundle, answer);
    }
}

/// Answers for the shim of a bundle; `None` closes the connection without an answer.
pub(super) fn serve(bundle: &Path, answer: impl Fn(Request) -> Option<Reply> + Send + Sync + 'static) {
    let listener = UnixListener::bind(bundle.join(SOCKET_FILE)).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Ok(Some(request)) = read_frame(&mut stream).await else { continue };
            if let Some(reply) = answer(request) {
                // A client that goes before its answer is what some tests are about.
                let _ = write_frame(&mut stream, &reply).await;
            }
        }
    });
}

/// A container of this name, with nothing asked of it.
pub(super) fn definition(name: &str) -> Definition {
    Definition {
        id: format!("{name:0<64}"),
        name: name.to_owned(),
        created: Timestamp::ZERO,
        image: String::new(),
        config: Config::default(),
        host_config: HostConfig::default(),
        networks: Default::default(),
        links: Vec::new(),
        mounts: Vec::new(),
        raw_sockets: false,
        path: "true".into(),
        args: Vec::new(),
    }
}

/// An empty cgroup of a container's; says so where it cannot be had.
pub(super) fn empty_cgroup(definition: &Definition) -> Option<Cgroup> {
    let cgroup = Cgroup::of(Some(&cgroup_path(definition)));
    let made = cgroup.filter(|cgroup| std::fs::create_dir_all(cgroup.directory()).is_ok());
    if made.is_none() {
        eprintln!("skipped: needs a cgroup v2 that may be written to");
    }
    made
}

/// A container that runs, in no network.
pub(super) fn running(pid: u32) -> State {
    let sandbox = Sandbox {
        container: String::new(),
        netns: None,
        endpoints: Vec::new(),
        published: Vec::new(),
        resolver: false,
    };
    State::Running(Running {
        pid,
        started_at: Timestamp::ZERO,
        paused: false,
        oom_kills: 0,
        finished_before: Timestamp::ZERO,
        sandbox,
    })
}

/// What is published of a container that was never started again by its policy.
pub(super) fn status(state: State, ends: u64, exit_code: i32) -> Status {
    Status { state, ends, exit_code, restarts: 0, failed_removals: FailedRemovals::default() }
}

/// A container that has ended so.
pub(super) fn exited(exit_code: i32) -> State {
    State::Exited(Exited {
        started_at: Timestamp::from_unix_nanos(1),
        finished_at: Timestamp::from_unix_nanos(2),
        exit_code,
        oom_killed: false,
        error: String::new(),
    })
}
