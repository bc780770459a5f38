//! Engines that are killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::PublishedPort;

/// Tells [`victim`] where its home is.
const HOME: &str = "CAISSON_NETWORKS_TEST_VICTIM";

#[test]
fn the_next_engine_keeps_what_lives_and_removes_what_is_dead() {
    in_own_system(async |home| {
        let first = home.open().await;
        let web = first.attach(request("web", vec![publish(None, HostPorts::Ephemeral)])).await.unwrap();
        first.attach(request("dead", vec![publish(None, HostPorts::exactly(8081))])).await.unwrap();
        first.attach(request("robbed", vec![])).await.unwrap();
        let robbed = first.sandbox("robbed").unwrap().netns.unwrap();
        let server = listen_in(&web);
        forget(first).await;
        netns::remove(&robbed).unwrap();

        let second = home.open().await;
        let live = ["web".to_owned(), "robbed".to_owned(), "never-attached".to_owned()];
        let restored = second.restore(&live).await;
        assert_eq!(restored.len(), 1);
        assert_eq!(restored[0].sandbox, web, "the same namespace, addresses and ports");
        assert!(restored[0].lost.is_empty());
        let port = web.published[0].host_port.0;
        converse(connect(SocketAddr::new("127.0.0.1".parse().unwrap(), port)).unwrap(), &server);
        assert!(connect("127.0.0.1:8081".parse().unwrap()).is_err());
        let next = second.attach(request("next", vec![])).await.unwrap();
        assert_eq!(address(&next).to_string(), "172.17.0.3", "the dead one's address is free");
        for container in ["web", "next"] {
            second.detach(container).await.unwrap();
        }
        second.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn a_port_that_was_taken_meanwhile_is_reported_and_forgotten() {
    in_own_system(async |home| {
        let first = home.open().await;
        let web = first.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        forget(first).await;
        let _theirs = TcpListener::bind("0.0.0.0:8080").unwrap();
        let second = home.open().await;
        let [restored] = &second.restore(&["web".to_owned()]).await[..] else { panic!() };
        let is_v6 = |port: &PublishedPort| port.host_ip.is_ipv6();
        assert_eq!(restored.lost.len(), 1);
        assert_eq!(restored.sandbox.netns, web.netns);
        assert!(restored.sandbox.published.iter().all(is_v6));
        assert_eq!(second.sandbox("web").unwrap(), restored.sandbox);
    });
}

#[test]
fn after_a_kill_at_any_moment_nothing_is_left() {
    in_own_system(async |home| {
        for steps in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
            kill_after(&home, steps);
            let networks = home.open().await;
            assert!(networks.restore(&[]).await.is_empty());
            let sandbox = networks.attach(request("probe", vec![])).await.unwrap();
            assert_eq!(address(&sandbox).to_string(), "172.17.0.2", "after {steps} steps");
            networks.detach("probe").await.unwrap();
            networks.close().await;
            assert_eq!((home.namespaces(), devices().len()), (0, 0), "after {steps} steps");
            let records = std::fs::read_dir(home.exec_root().join("sandboxes")).unwrap().count();
            assert_eq!(records, 0, "after {steps} steps");
        }
    });
}

/// Kills an engine that attaches and detaches without rest, when it has done so many steps.
fn kill_after(home: &Home, steps: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crashes::victim", "--ignored", "--nocapture"])
        .env(HOME, home.0.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let done = lines.filter(|line| line.contains("step")).take(steps + 1).count();
    assert_eq!(done, steps + 1, "the victim lived long enough");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "started and killed by after_a_kill_at_any_moment_nothing_is_left"]
fn victim() {
    let Ok(home) = std::env::var(HOME) else { return };
    let (root, exec_root) = (PathBuf::from(&home).join("root"), PathBuf::from(&home).join("exec"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let networks = Networks::open(&root, &exec_root, Options::new(Publisher::Native)).await.unwrap();
        println!("step");
        for n in 0.. {
            let wish = publish(None, HostPorts::Ephemeral);
            networks.attach(request(&format!("c{n}"), vec![wish])).await.unwrap();
            println!("step");
            if n % 3 == 2 {
                networks.detach(&format!("c{}", n - 1)).await.unwrap();
                println!("step");
            }
        }
    });
}
