//! The machine's host as this crate sees it: a socket that speaks PORTS and that comes and goes.

use caisson_guest_proto::{
    PortOutcome, PortsAnswer, PortsCall, PortsReply, PortsRequest, PublishRefused, RefusalCode, read_frame,
    write_frame,
};
use tokio::net::{UnixListener, UnixStream};

use caisson_guest_proto::PortProtocol;

use super::*;
use crate::ContainerPort;

struct FakeHost {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

/// One connection from the engine.
struct Engine(UnixStream);

impl FakeHost {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("ports.sock")).unwrap();
        Self { dir, listener }
    }

    fn publisher(&self) -> Publisher {
        Publisher::External(self.dir.path().join("ports.sock"))
    }

    /// Waits for the engine and for the `Reconcile` with which it begins.
    async fn welcome(&self) -> (Engine, Vec<PortForward>) {
        let mut engine = self.accept().await;
        let ports = engine.reconcile(&[]).await;
        (engine, ports)
    }

    async fn accept(&self) -> Engine {
        Engine(self.listener.accept().await.unwrap().0)
    }
}

impl Engine {
    async fn next(&mut self) -> PortsRequest {
        read_frame(&mut self.0).await.unwrap().unwrap()
    }

    async fn reply(&mut self, id: u64, result: Result<PortsAnswer, PublishRefused>) {
        write_frame(&mut self.0, &PortsReply { id, result }).await.unwrap();
    }

    /// Answers a `Reconcile`, with a refusal for these keys; returns what was told.
    async fn reconcile(&mut self, refused: &[&str]) -> Vec<PortForward> {
        let request = self.next().await;
        let PortsCall::Reconcile { ports } = request.call else { panic!("{request:?}") };
        let outcome = |forward: &PortForward| PortOutcome {
            key: forward.key.clone(),
            result: match refused.contains(&forward.key.as_str()) {
                true => Err(refusal(RefusalCode::InUse)),
                false => Ok(forward.host_port),
            },
        };
        let outcomes = ports.iter().map(outcome).collect();
        self.reply(request.id, Ok(PortsAnswer::Reconciled { outcomes })).await;
        ports
    }

    /// Answers a `Publish`; returns what was asked for.
    async fn publish(&mut self, result: Result<u16, RefusalCode>) -> PortForward {
        let request = self.next().await;
        let PortsCall::Publish { forward } = request.call else { panic!("{request:?}") };
        let answer = result.map(|host_port| PortsAnswer::Published { host_port }).map_err(refusal);
        self.reply(request.id, answer).await;
        forward
    }

    async fn unpublish(&mut self) -> String {
        let (key, keep_connections) = self.unpublish_one().await;
        assert!(!keep_connections, "{key}");
        key
    }

    /// Its key, and whether its connections are kept.
    async fn unpublish_one(&mut self) -> (String, bool) {
        let request = self.next().await;
        let PortsCall::Unpublish { key, keep_connections } = request.call else { panic!("{request:?}") };
        self.reply(request.id, Ok(PortsAnswer::Unpublished)).await;
        (key, keep_connections)
    }
}

fn refusal(code: RefusalCode) -> PublishRefused {
    PublishRefused { code, message: "address already in use".into(), holder: Some("nginx (pid 812)".into()) }
}

fn owner() -> Owner<'static> {
    Owner {
        container: "c0ffee",
        name: "web",
        reach: Reach { address: "172.17.0.2".parse().unwrap(), ipv6: None },
        routed: [None, None],
    }
}

fn wish(host_ip: Option<&str>, host_ports: HostPorts) -> PortBinding {
    PortBinding {
        container_port: ContainerPort(80),
        protocol: PortProtocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_ports,
    }
}

#[tokio::test]
async fn the_host_is_told_everything_again_whenever_it_comes_back() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, told) = host.welcome().await;
    assert!(told.is_empty());
    let wishes = [wish(None, HostPorts::Ephemeral)];
    let (opened, asked) = tokio::join!(ports.open(owner(), &wishes), async {
        [engine.publish(Ok(41000)).await, engine.publish(Ok(41000)).await]
    });
    let opened = opened.unwrap();
    let asked = asked.map(|forward| (forward.key, forward.host_ip.to_string(), forward.host_port));
    assert_eq!(asked[0], ("c0ffee/0".into(), "0.0.0.0".into(), 0));
    assert_eq!(asked[1], ("c0ffee/1".into(), "::".into(), 41000));

    drop(engine);
    let (mut engine, told) = host.welcome().await;
    assert_eq!(told, opened.iter().map(PortRecord::forward).collect::<Vec<_>>());
    let closed = tokio::join!(ports.close(&opened[1..]), engine.unpublish()).1;
    assert_eq!(closed, "c0ffee/1");

    // What is closed while the host is away is closed when it is back.
    drop(engine);
    ports.close(&opened[..1]).await;
    let (_engine, told) = host.welcome().await;
    assert!(told.is_empty());
}

#[tokio::test]
async fn a_port_of_ipv6_leads_to_the_containers_address_of_it() {
    for (ipv6, expected) in [(None, "172.17.0.2:80"), (Some("fd00::2"), "[fd00::2]:80")] {
        let host = FakeHost::new();
        let ports = Ports::start(host.publisher(), std::iter::empty());
        let (mut engine, _) = host.welcome().await;
        let ipv6 = ipv6.map(|ipv6| ipv6.parse().unwrap());
        let owner = Owner { reach: Reach { ipv6, ..owner().reach }, ..owner() };
        let wishes = [wish(None, HostPorts::exactly(8080))];
        let (opened, asked) = tokio::join!(ports.open(owner, &wishes), async {
            [engine.publish(Ok(8080)).await, engine.publish(Ok(8080)).await]
        });
        opened.unwrap();
        assert_eq!(asked.map(|forward| forward.target.to_string()), ["172.17.0.2:80", expected]);
    }
}

#[tokio::test]
async fn connections_live_on_through_a_listener_that_is_gone_and_its_number_is_anybodys() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, _) = host.welcome().await;
    let wishes = [wish(Some("127.0.0.1"), HostPorts::exactly(8080))];
    for _ in 0..2 {
        let (opened, _) = tokio::join!(ports.open(owner(), &wishes), engine.publish(Ok(8080)));
        let opened = opened.unwrap();
        let retired = tokio::join!(ports.retire(&opened), engine.unpublish_one()).1;
        assert_eq!(retired, ("c0ffee/0".into(), true));
    }
}

#[tokio::test]
async fn a_refusal_carries_the_hosts_reason_and_closes_what_was_open() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, _) = host.welcome().await;
    let wishes = [wish(None, HostPorts::exactly(8080))];
    let (opened, closed) = tokio::join!(ports.open(owner(), &wishes), async {
        engine.publish(Ok(8080)).await;
        engine.publish(Err(RefusalCode::InUse)).await;
        engine.unpublish().await
    });
    assert_eq!(
        opened.unwrap_err().to_string(),
        "failed to bind host port for [::]:8080:172.17.0.2:80/tcp: address already in use (held by nginx (pid 812))"
    );
    assert_eq!(closed, "c0ffee/0");
}

#[tokio::test]
async fn a_host_without_ipv6_publishes_on_ipv4_and_a_taken_ephemeral_port_is_chosen_anew() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, _) = host.welcome().await;
    let wishes = [wish(None, HostPorts::Ephemeral)];
    let (opened, ()) = tokio::join!(ports.open(owner(), &wishes), async {
        engine.publish(Ok(41000)).await;
        engine.publish(Err(RefusalCode::InUse)).await;
        engine.unpublish().await;
        engine.publish(Ok(42000)).await;
        engine.publish(Err(RefusalCode::NotAvailable)).await;
    });
    let opened = opened.unwrap();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].published.host_port, HostPort(42000));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_no_port_now_or_later() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, _) = host.welcome().await;
    let wishes = [wish(Some("127.0.0.1"), HostPorts::exactly(8080))];
    let (opened, ()) = tokio::join!(ports.open(owner(), &wishes), async {
        engine.next().await;
        drop(engine);
    });
    assert_eq!(
        opened.unwrap_err().to_string(),
        "failed to bind host port for 127.0.0.1:8080:172.17.0.2:80/tcp: the host of this machine does not answer"
    );
    let (mut engine, told) = host.welcome().await;
    assert!(told.is_empty());
    let (opened, _) = tokio::join!(ports.open(owner(), &wishes), engine.publish(Ok(8080)));
    opened.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_holds_up_a_stop_once_and_closes_all() {
    let host = FakeHost::new();
    let ports = Ports::start(host.publisher(), std::iter::empty());
    let (mut engine, _) = host.welcome().await;
    let wishes: Vec<_> = (8080..8085).map(|port| wish(Some("127.0.0.1"), HostPorts::exactly(port))).collect();
    let (opened, ()) = tokio::join!(ports.open(owner(), &wishes), async {
        for port in 8080..8085 {
            engine.publish(Ok(port)).await;
        }
    });
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    ports.close(&opened.unwrap()).await;
    assert!(before.elapsed().as_secs() < 15, "{:?}", before.elapsed());
    for n in (0..5).rev() {
        assert_eq!(engine.unpublish().await, format!("c0ffee/{n}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_away_is_waited_for_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::start(Publisher::External(dir.path().join("none.sock")), std::iter::empty());
    let before = tokio::time::Instant::now();
    let wishes = [wish(Some("127.0.0.1"), HostPorts::exactly(8080))];
    let error = ports.open(owner(), &wishes).await.unwrap_err();
    assert!(matches!(error, PublishError::Away(_)), "{error}");
    let waited = before.elapsed();
    assert!((1..=20).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_starts_without_its_host_waits_once_and_keeps_its_ports() {
    let dir = tempfile::tempdir().unwrap();
    let forwards: Vec<PortForward> = (0..50)
        .map(|n| PortForward {
            key: format!("c0ffee/{n}"),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 8000 + n,
            protocol: PortProtocol::Tcp,
            target: "172.17.0.2:80".parse().unwrap(),
        })
        .collect();
    let socket = dir.path().join("ports.sock");
    let ports = Ports::start(Publisher::External(socket.clone()), forwards.iter().cloned());
    let before = tokio::time::Instant::now();
    for forward in &forwards {
        ports.reopen("web", &PortRecord::of(forward)).await.unwrap();
    }
    assert!(before.elapsed().as_secs() < 10, "{:?}", before.elapsed());
    let host = FakeHost { listener: UnixListener::bind(&socket).unwrap(), dir };
    let (_engine, mut told) = host.welcome().await;
    told.sort_by_key(|forward| forward.host_port);
    assert_eq!(told, forwards);
}

#[tokio::test]
async fn the_ports_of_the_last_engine_are_in_the_first_reconcile_and_stay() {
    let host = FakeHost::new();
    let forward = PortForward {
        key: "c0ffee/0".into(),
        host_ip: "127.0.0.1".parse().unwrap(),
        host_port: 8080,
        protocol: PortProtocol::Tcp,
        target: "172.17.0.2:80".parse().unwrap(),
    };
    let ports = Ports::start(host.publisher(), std::iter::once(forward.clone()));
    let (mut engine, told) = host.welcome().await;
    assert_eq!(told, std::slice::from_ref(&forward));
    let record = PortRecord::of(&forward);
    let (reopened, asked) = tokio::join!(ports.reopen("web", &record), engine.publish(Ok(8080)));
    reopened.unwrap();
    assert_eq!(asked, forward);
}

#[tokio::test(start_paused = true)]
async fn what_the_host_could_not_open_again_is_asked_for_until_it_can() {
    let host = FakeHost::new();
    let forward = |n: u16| PortForward {
        key: format!("c0ffee/{n}"),
        host_ip: "127.0.0.1".parse().unwrap(),
        host_port: 8080 + n,
        protocol: PortProtocol::Tcp,
        target: "172.17.0.2:80".parse().unwrap(),
    };
    let recorded = [forward(0), forward(1)];
    let ports = Ports::start(host.publisher(), recorded.iter().cloned());
    let mut engine = host.accept().await;
    let limit = std::time::Duration::from_secs(600);
    for _ in 0..3 {
        let told = tokio::time::timeout(limit, engine.reconcile(&["c0ffee/1"])).await;
        assert_eq!(told.expect("the host is asked again"), recorded);
    }
    // What is closed meanwhile is not asked for again.
    let gone = [PortRecord::of(&forward(0))];
    let closed = tokio::join!(ports.close(&gone), engine.unpublish()).1;
    assert_eq!(closed, "c0ffee/0");
    assert_eq!(engine.reconcile(&[]).await, recorded[1..]);
    let more = tokio::time::timeout(limit, engine.next()).await;
    assert!(more.is_err(), "all is open: {more:?}");
}
