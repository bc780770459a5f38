//! What a container's shim tells while it runs: of each time that the kernel has killed in it for want of memory, and of its end.

use std::path::PathBuf;

use caisson_runtime::cgroup::Cgroup;
use caisson_shim::proto::{ExitRecord, Request as ShimRequest, State as ShimState};
use tokio::sync::mpsc;

use super::record::Definition;
use super::shim::Shim;
use super::spec::cgroup_path;
use super::state::{Running, State};
use super::task::Task;

/// What has happened to a container that runs.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// The kernel has killed for want of memory: so many of its processes since its start.
    OomKills(u64),
    /// It has ended: how, if that is known.
    Ended(Option<ExitRecord>),
}

/// The news of one run, which a task of its own hears from the shim.
pub(super) struct Watch(mpsc::Receiver<News>);

impl Watch {
    /// Of a container that this engine has started.
    pub(super) fn of_started(shim: Shim, record: PathBuf) -> Self {
        let (tell, news) = mpsc::channel(1);
        tokio::spawn(async move { follow(&shim, record, &tell).await });
        Self(news)
    }

    /// Of a container that an engine before this one has started, of which the shim may be late. One whose start was asked for and not
    /// answered does not run, and will not.
    pub(super) fn of_found(shim: Shim, record: PathBuf) -> Self {
        let (tell, news) = mpsc::channel(1);
        tokio::spawn(async move {
            let created = shim.answered().await == Some(ShimState::Created);
            if created && shim.order(&ShimRequest::Discard).await.is_ok() {
                // Without a hearer the container's task is gone.
                let _ = tell.send(News::Ended(None)).await;
            } else {
                follow(&shim, record, &tell).await;
            }
        });
        Self(news)
    }

    /// What comes next. Nothing does after the end.
    pub(super) async fn next(&mut self) -> News {
        // Who failed to hear it knows no more than one who found no record.
        self.0.recv().await.unwrap_or(News::Ended(None))
    }
}

async fn follow(shim: &Shim, record: PathBuf, tell: &mpsc::Sender<News>) {
    let ended = shim.ended(&record, tell).await;
    // Without a hearer the container's task is gone.
    let _ = tell.send(News::Ended(ended)).await;
}

/// How many processes of a container that runs the kernel has killed for want of memory: what a new engine finds.
pub(super) fn oom_kills(definition: &Definition) -> u64 {
    Cgroup::of(Some(&cgroup_path(definition))).map_or(0, |cgroup| cgroup.oom_kills())
}

impl Task {
    /// Deals with all that is known of a run, to its end.
    pub(super) async fn hear_to_the_end(&mut self, mut watch: Watch) {
        loop {
            match watch.next().await {
                News::OomKills(count) => self.out_of_memory(count),
                News::Ended(record) => return self.ended(record).await,
            }
        }
    }

    /// The kernel has killed; the container may go on. As with containerd, kills that come at once are one event.
    pub(super) fn out_of_memory(&mut self, count: u64) {
        let State::Running(running) = self.state() else { return };
        if count <= running.oom_kills {
            return;
        }
        self.status
            .send_modify(|status| status.state = State::Running(Running { oom_kills: count, ..running }));
        self.ground.tell(&self.definition, "oom", &[]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caisson_guest_proto::{read_frame, write_frame};
    use caisson_shim::config::SOCKET_FILE;
    use caisson_shim::proto::{Reply, UnixNanos};
    use tokio::net::UnixListener;

    use super::super::Handle;
    use super::super::testing::{Home, definition, running};
    use super::*;

    /// A shim whose container has had so many kills, one after the other, when it is asked to watch; and then ends, if it does.
    struct Told {
        kills: &'static [u64],
        oom_killed: bool,
        ends: bool,
    }

    impl Told {
        fn replies(&self, request: &ShimRequest) -> Vec<Reply> {
            let record =
                ExitRecord { code: 1, finished_at: UnixNanos(1), oom_killed: self.oom_killed, failure: None };
            let ended = self.ends.then_some(Reply::Exited(record));
            match request {
                ShimRequest::State => {
                    vec![Reply::State(ShimState::Running { pid: 1, started_at: UnixNanos(1) })]
                }
                // An older one knows no such request.
                ShimRequest::Watch if self.kills.is_empty() => Vec::new(),
                ShimRequest::Watch => {
                    let kills = self.kills.iter().map(|count| Reply::OomKills { count: *count });
                    kills.chain(ended).collect()
                }
                ShimRequest::Wait => ended.into_iter().collect(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A container with such a shim.
    fn found(home: &Home, name: &str, told: Told) -> Handle {
        let definition = definition(name);
        let bundle = home.containers.ground.shims.join(&definition.id);
        std::fs::create_dir(&bundle).unwrap();
        let listener = UnixListener::bind(bundle.join(SOCKET_FILE)).unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_frame(&mut stream).await.unwrap().unwrap();
                for reply in told.replies(&request) {
                    write_frame(&mut stream, &reply).await.unwrap();
                }
                if !told.ends {
                    open.push(stream);
                }
            }
        });
        home.adopt(definition, running(1))
    }

    /// The container's events, until this one.
    async fn events(home: &Home, last: &str) -> Vec<String> {
        let (past, mut live) = home.containers.ground.events.subscribe();
        let mut told: Vec<String> = past.into_iter().map(|event| event.action).collect();
        while told.last().is_none_or(|action| action != last) {
            let event = tokio::time::timeout(Duration::from_secs(10), live.recv()).await.unwrap().unwrap();
            told.push(event.action);
        }
        told
    }

    #[tokio::test]
    async fn each_rise_is_an_event() {
        let home = Home::new().await;
        let handle = found(&home, "greedy", Told { kills: &[0, 1, 3, 3], oom_killed: true, ends: true });
        assert_eq!(events(&home, "die").await, ["oom", "oom", "die"]);
        assert!(handle.state().describe().oom_killed);
    }

    #[tokio::test]
    async fn it_is_told_while_the_container_runs() {
        let home = Home::new().await;
        let handle = found(&home, "survivor", Told { kills: &[0, 1], oom_killed: true, ends: false });
        assert_eq!(events(&home, "oom").await, ["oom"]);
        let told = handle.state().describe();
        assert!(told.running && told.oom_killed);
    }

    #[tokio::test]
    async fn an_older_shim_tells_at_the_end() {
        let home = Home::new().await;
        let handle = found(&home, "older", Told { kills: &[], oom_killed: true, ends: true });
        assert_eq!(events(&home, "die").await, ["oom", "die"]);
        assert!(handle.state().describe().oom_killed);
    }

    #[tokio::test]
    async fn of_who_has_enough_there_is_nothing_to_tell() {
        let home = Home::new().await;
        let handle = found(&home, "modest", Told { kills: &[0], oom_killed: false, ends: true });
        assert_eq!(events(&home, "die").await, ["die"]);
        assert!(!handle.state().describe().oom_killed);
    }
}
