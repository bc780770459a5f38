//! What passes between networks, and from another machine.

use std::process::Command;

use super::*;
use crate::CreateRequest;

/// Another machine: a namespace with a cable to this system, whose router this system is.
struct OtherMachine(Netns, #[expect(dead_code, reason = "holds the namespace's file")] tempfile::TempDir);

const OURS: &str = "203.0.113.1";
const THEIRS: &str = "203.0.113.2";

impl OtherMachine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (netns, ()) = netns::create(&dir.path().join("ns"), || Ok(())).unwrap();
        let file = dir.path().join("ns");
        run(&["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1"]);
        run(&["ip", "addr", "add", &format!("{OURS}/24"), "dev", "wire0"]);
        run(&["ip", "link", "set", "wire0", "up"]);
        let own = Netns::current().unwrap();
        drop(own);
        run(&["sh", "-c", &format!("ip link set wire1 netns {}", pid_file(&file))]);
        let machine = Self(netns, dir);
        machine.inside(|| {
            run(&["ip", "link", "set", "lo", "up"]);
            run(&["ip", "addr", "add", &format!("{THEIRS}/24"), "dev", "wire1"]);
            run(&["ip", "link", "set", "wire1", "up"]);
            run(&["ip", "route", "add", "default", "via", OURS]);
        });
        machine
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::enter(&self.0, || Ok(work())).unwrap()
    }
}

/// `ip` takes a namespace by its path.
fn pid_file(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cannot_connect(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_err()
}

fn plain(name: &str) -> CreateRequest {
    CreateRequest { name: name.into(), ..CreateRequest::default() }
}

#[test]
fn networks_are_apart_and_internal_ones_shut() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(plain("one")).await.unwrap();
        networks.create(plain("two")).await.unwrap();
        networks.create(CreateRequest { internal: true, ..plain("inner") }).await.unwrap();
        let a = networks.attach(on("one", "a", vec![])).await.unwrap();
        let b = networks.attach(on("two", "b", vec![])).await.unwrap();
        let c = networks.attach(on("one", "c", vec![])).await.unwrap();
        let _servers = [listen_in(&a), listen_in(&b)];
        let at = |sandbox: &Sandbox| SocketAddr::new(address(sandbox), 80);
        assert!(inside(&b, || Ok(cannot_connect(at(&a)))), "from another network");
        drop(inside(&c, || connect(at(&a))));
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
        let i = networks.attach(on("inner", "i", vec![])).await.unwrap();
        let (i_at, _server) = (at(&i), listen_in(&i));
        assert!(inside(&c, || Ok(cannot_connect(i_at))), "into an internal network");
    });
}

#[test]
fn another_machine_reaches_published_ports_and_nothing_else() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let other = OtherMachine::new();
        let wishes = vec![
            publish(None, HostPorts::exactly(8080)),
            publish(Some("127.0.0.1"), HostPorts::exactly(8081)),
        ];
        let web = networks.attach(request("web", wishes)).await.unwrap();
        let server = listen_in(&web);
        let published = |port| SocketAddr::new(OURS.parse().unwrap(), port);
        let client = other.inside(|| connect(published(8080)).unwrap());
        let (served, from) = server.accept().unwrap();
        assert_eq!(from.ip().to_string(), THEIRS, "the client's own address");
        drop((client, served));
        assert!(other.inside(|| cannot_connect(published(8081))), "a port of this system's loopback only");
        let direct = SocketAddr::new(address(&web), 80);
        assert!(other.inside(|| cannot_connect(direct)), "past the published port");
        // This system itself, and containers by its socket.
        converse(connect(published(8080)).unwrap(), &server);
        networks.create(plain("else")).await.unwrap();
        let elsewhere = networks.attach(on("else", "e", vec![])).await.unwrap();
        converse(inside(&elsewhere, || connect(published(8080))), &server);
        converse(inside(&web, || connect(published(8080))), &server);

        let theirs = other.inside(|| TcpListener::bind((THEIRS, 9000)).unwrap());
        let out = inside(&web, || connect(SocketAddr::new(THEIRS.parse().unwrap(), 9000)));
        let (_, from) = theirs.accept().unwrap();
        assert_eq!(from.ip().to_string(), OURS, "what leaves has this system's address");
        drop(out);

        networks.detach("web").await.unwrap();
        assert!(other.inside(|| cannot_connect(published(8080))));
        let next = networks.attach(request("next", vec![])).await.unwrap();
        assert_eq!(address(&next), address(&web));
        let _server = listen_in(&next);
        assert!(other.inside(|| cannot_connect(published(8080))), "no rule is left for whoever comes next");
    });
}

fn with_option(name: &str, option: &str, value: &str) -> CreateRequest {
    CreateRequest { options: [(option.to_owned(), value.to_owned())].into(), ..plain(name) }
}

#[test]
fn a_networks_gateway_mode_says_who_comes_in() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let other = OtherMachine::new();
        const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
        const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
        networks.create(with_option("routed", MODE, "routed")).await.unwrap();
        networks.create(with_option("bare", MODE, "nat-unprotected")).await.unwrap();
        networks.create(with_option("trusting", TRUSTED, "nosuch0:wire0")).await.unwrap();
        networks.create(plain("plain")).await.unwrap();
        let client = networks.attach(on("plain", "client", vec![])).await.unwrap();
        let port = || vec![publish(None, HostPorts::Ephemeral)];
        // From another machine, and from another network, to a port that is published and to one that is not.
        for (network, expected) in [
            ("routed", [true, true, false, false]),
            ("bare", [true, false, true, false]),
            ("trusting", [true, false, false, false]),
            ("plain", [false, false, false, false]),
        ] {
            let shown = networks.attach(on(network, "shown", port())).await.unwrap();
            let hidden = networks.attach(on(network, "hidden", vec![])).await.unwrap();
            let _servers = [listen_in(&shown), listen_in(&hidden)];
            let at = |sandbox: &Sandbox| SocketAddr::new(address(sandbox), 80);
            let from_client = |to| network != "plain" && inside(&client, || Ok(!cannot_connect(to)));
            let reached = [
                other.inside(|| !cannot_connect(at(&shown))),
                from_client(at(&shown)),
                other.inside(|| !cannot_connect(at(&hidden))),
                from_client(at(&hidden)),
            ];
            assert_eq!(reached, expected, "{network}");
            let ephemeral = shown.published.iter().filter(|port| port.host_port.0 == 0).count();
            assert_eq!(ephemeral, usize::from(network == "routed"), "a port of its own needs none of ours");
            for container in ["shown", "hidden"] {
                networks.detach(container).await.unwrap();
            }
        }
    });
}

#[test]
fn what_leaves_has_the_address_that_its_network_says() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let other = OtherMachine::new();
        run(&["ip", "addr", "add", "203.0.113.77/24", "dev", "wire0"]);
        let source = with_option("source", "com.docker.network.host_ipv4", "203.0.113.77");
        networks.create(source).await.unwrap();
        let sandbox = networks.attach(on("source", "s", vec![])).await.unwrap();
        let theirs = other.inside(|| TcpListener::bind((THEIRS, 9000)).unwrap());
        let _out = inside(&sandbox, || connect(SocketAddr::new(THEIRS.parse().unwrap(), 9000)));
        assert_eq!(theirs.accept().unwrap().1.ip().to_string(), "203.0.113.77");
    });
}

/// Whatever rights a container has over its own network.
#[test]
fn no_route_leads_out_of_an_internal_network_and_nobody_poses_as_another() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let other = OtherMachine::new();
        let theirs = other.inside(|| TcpListener::bind((THEIRS, 9000)).unwrap());
        let there = SocketAddr::new(THEIRS.parse().unwrap(), 9000);
        networks.create(CreateRequest { internal: true, ..plain("inner") }).await.unwrap();
        let inner = networks.attach(on("inner", "i", vec![])).await.unwrap();
        let gateway = networks.inspect("inner").unwrap().pools[0].gateway.unwrap().to_string();
        inside(&inner, || {
            run(&["ip", "route", "add", "default", "via", &gateway]);
            assert!(cannot_connect(there));
            Ok(())
        });
        assert!(has_dropped("inner: internal, nobody gets out"));

        let liar = networks.attach(on("bridge", "liar", vec![])).await.unwrap();
        inside(&liar, || {
            drop(connect(there)?);
            run(&["ip", "addr", "add", "10.250.0.9/32", "dev", "eth0"]);
            run(&["ip", "route", "replace", "default", "via", "172.17.0.1", "src", "10.250.0.9"]);
            assert!(cannot_connect(there));
            Ok(())
        });
        assert_eq!(theirs.accept().unwrap().1.ip().to_string(), OURS, "under its own address it got out");
        assert!(has_dropped("bridge: nobody has another's address"));
    });
}

#[test]
fn the_rules_are_what_the_records_say_after_a_kill() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let other = OtherMachine::new();
        let web =
            networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let server = listen_in(&web);
        forget(networks).await;
        let kernel = caisson_nftables::Kernel::open().unwrap();
        kernel.delete(caisson_nftables::Family::Inet, "caisson").unwrap();
        let again = home.open().await;
        again.restore(&["web".to_owned()]).await;
        let client = other.inside(|| connect(SocketAddr::new(OURS.parse().unwrap(), 8080)).unwrap());
        assert_eq!(server.accept().unwrap().1.ip().to_string(), THEIRS);
        drop(client);
        again.detach("web").await.unwrap();
        again.close().await;
        let left = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&left.stdout).contains("caisson"), "nothing is left");
    });
}

/// Whether packets were dropped by the rule with this comment: counted, so before anybody else could have taken them.
fn has_dropped(comment: &str) -> bool {
    let listed = Command::new("nft").args(["list", "table", "inet", "caisson"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().any(|line| line.contains(comment) && !line.contains("packets 0"))
}

/// Whether this system has a connection of its own at one of its ports, as a socket that copies has.
fn is_served_by_a_socket(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == ESTABLISHED
    })
}

fn has_ended(mut client: TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match client.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

fn routes_loopback(device: &str) -> bool {
    let switch = format!("/proc/sys/net/ipv4/conf/{device}/route_localnet");
    std::fs::read_to_string(switch).unwrap().trim() == "1"
}

#[test]
fn own_connections_are_led_past_the_socket_and_end_with_the_port() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let _other = OtherMachine::new();
        let wishes = vec![
            publish(None, HostPorts::exactly(8080)),
            publish(Some("127.0.0.1"), HostPorts::exactly(8081)),
            publish(Some(OURS), HostPorts::exactly(8082)),
            publish(Some("::1"), HostPorts::exactly(8083)),
        ];
        let web = networks.attach(request("web", wishes)).await.unwrap();
        let server = listen_in(&web);
        let mut clients = Vec::new();
        for (address, port, led) in [
            ("127.0.0.1", 8080, true),
            ("127.0.0.9", 8080, true),
            (OURS, 8080, true),
            ("127.0.0.1", 8081, true),
            (OURS, 8082, true),
            ("::1", 8083, false),
        ] {
            let client = connect(SocketAddr::new(address.parse().unwrap(), port)).unwrap();
            let (served, from) = server.accept().unwrap();
            assert_eq!(from.ip().to_string(), "172.17.0.1", "{address}:{port}");
            if led {
                assert!(!is_served_by_a_socket(port), "{address}:{port}");
                clients.push((client, served));
            }
        }
        assert!(connect(SocketAddr::new(OURS.parse().unwrap(), 8081)).is_err(), "a port of the loopback");
        let theirs = TcpListener::bind("127.0.0.1:9000").unwrap();
        let kept = connect(theirs.local_addr().unwrap()).unwrap();

        networks.detach("web").await.unwrap();
        for (client, _) in clients {
            assert!(has_ended(client));
        }
        assert!(connect("127.0.0.1:8080".parse().unwrap()).is_err());
        converse(kept, &theirs);
    });
}

/// A container with every right over its own network sends to and from loopback addresses.
#[test]
fn loopback_addresses_are_routed_where_they_must_and_stay_this_systems_own() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(plain("else")).await.unwrap();
        let liar = networks.attach(on("else", "liar", vec![])).await.unwrap();
        let bridge = format!("br-{}", &networks.inspect("else").unwrap().id[..12]);
        assert!(!routes_loopback(&bridge));
        let port = vec![publish(Some("127.0.0.1"), HostPorts::exactly(8080))];
        let _web = networks.attach(on("else", "web", port)).await.unwrap();
        assert!(routes_loopback(&bridge) && !routes_loopback("lo"), "where it must");

        let _private = TcpListener::bind("127.0.0.1:9000").unwrap();
        let open = TcpListener::bind("0.0.0.0:9001").unwrap();
        let gateway = networks.inspect("else").unwrap().pools[0].gateway.unwrap().to_string();
        inside(&liar, || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")?;
            run(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
            run(&["ip", "route", "flush", "table", "local", "dev", "lo"]);
            run(&["ip", "route", "add", "127.0.0.1", "via", &gateway]);
            for port in [8080, 9000] {
                assert!(cannot_connect(SocketAddr::new("127.0.0.1".parse().unwrap(), port)), "{port}");
            }
            run(&["ip", "addr", "add", "127.0.0.2/32", "dev", "eth0"]);
            run(&["ip", "route", "replace", &gateway, "dev", "eth0", "src", "127.0.0.2"]);
            assert!(cannot_connect(SocketAddr::new(gateway.parse().unwrap(), 9001)));
            Ok(())
        });
        open.set_nonblocking(true).unwrap();
        assert!(open.accept().is_err(), "somebody came from a loopback address");
        assert!(has_dropped("loopback addresses are reached from within only"));
        assert!(has_dropped("nobody else has a loopback address"));

        networks.detach("web").await.unwrap();
        assert!(!routes_loopback(&bridge), "nobody needs it any more");
    });
}

#[test]
fn what_an_engine_that_was_killed_has_left_open_is_closed() {
    for live in [vec!["other".to_owned()], vec![]] {
        in_own_system(async |home| {
            let first = home.open().await;
            first.create(plain("else")).await.unwrap();
            for (network, container, port) in [("bridge", "web", 8080), ("else", "other", 8081)] {
                let port = vec![publish(None, HostPorts::exactly(port))];
                first.attach(on(network, container, port)).await.unwrap();
            }
            let other = format!("br-{}", &first.inspect("else").unwrap().id[..12]);
            forget(first).await;
            assert!(routes_loopback("docker0") && routes_loopback(&other));
            let second = home.open().await;
            second.restore(&live).await;
            assert!(!routes_loopback("docker0"));
            assert_eq!(routes_loopback(&other), !live.is_empty());
        });
    }
}

#[test]
fn connections_to_containers_that_died_after_a_kill_end_and_others_go_on() {
    for live in [vec!["living".to_owned()], vec![]] {
        in_own_system(async |home| {
            let first = home.open().await;
            let mut connections = Vec::new();
            for (container, port) in [("dying", 8080), ("living", 8081)] {
                let wishes = vec![publish(None, HostPorts::exactly(port))];
                let server = listen_in(&first.attach(request(container, wishes)).await.unwrap());
                let client = connect(SocketAddr::new("127.0.0.1".parse().unwrap(), port)).unwrap();
                assert!(!is_served_by_a_socket(port));
                connections.push((client, server));
            }
            forget(first).await;
            let second = home.open().await;
            assert_eq!(second.restore(&live).await.len(), live.len());
            let [(to_dead, _), (to_other, server)] = connections.try_into().unwrap();
            assert!(has_ended(to_dead));
            match live.is_empty() {
                true => assert!(has_ended(to_other)),
                false => converse(to_other, &server),
            }
        });
    }
}

/// Whatever somebody else takes away, or puts in.
#[test]
fn rules_that_somebody_else_changes_are_there_again_at_once() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let ours = rules();
        assert!(ours.contains("loopback addresses are reached from within only"));
        for command in [
            "flush ruleset",
            "flush chain inet caisson raw",
            "flush map inet caisson own_ports_of_all",
            "delete chain inet caisson postrouting",
            "insert rule inet caisson forward accept",
            "add chain inet caisson theirs",
            "flush ruleset",
        ] {
            run(&["nft", command]);
            while rules() != ours {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

/// What the kernel refuses is tried again, though nobody changes anything any more.
#[test]
fn rules_that_cannot_be_written_again_are_so_when_they_can() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let ours = rules();
        let others = OthersTable::hold();
        while networks.shared.firewall.is_whole() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(others);
        while rules() != ours {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Whoever connects meets the rules, though they are being written again.
#[test]
fn own_connections_are_led_while_rules_are_written_again() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let web =
            networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let server = listen_in(&web);
        let shared = networks.shared.clone();
        let writing = tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                assert!(shared.restore_rules().unwrap());
            }
        });
        while !writing.is_finished() {
            let client = connect("127.0.0.1:8080".parse().unwrap()).unwrap();
            assert!(!is_served_by_a_socket(8080));
            drop((client, server.accept().unwrap()));
        }
        writing.await.unwrap();
    });
}
