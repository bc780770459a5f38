//! Networks that users make, and containers on several of them.

use super::*;
use crate::error::chain;
use crate::{CreateError, CreateRequest, ErrorKind, IpamRequest, PoolRequest, RemoveError};

fn plain(name: &str) -> CreateRequest {
    CreateRequest { name: name.into(), ..CreateRequest::default() }
}

fn in_range(name: &str, subnet: &str) -> CreateRequest {
    let pool = PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
    CreateRequest { ipam: Some(IpamRequest { config: vec![pool], ..IpamRequest::default() }), ..plain(name) }
}

fn join(network: &str) -> Join {
    Join { network: network.into(), ..Join::default() }
}

fn default_route(sandbox: &Sandbox) -> String {
    inside(sandbox, || std::fs::read_to_string("/proc/thread-self/net/route"))
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("00000000"))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .unwrap_or_default()
}

#[test]
fn a_network_is_made_used_and_removed_and_nothing_is_left() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let made = networks.create(plain("mine")).await.unwrap();
        assert_eq!(made.pools[0].subnet.to_string(), "172.18.0.0/16");
        assert!(devices().contains(&format!("br-{}", &made.id[..12])));
        let a = networks.attach(on("mine", "a", vec![])).await.unwrap();
        let b = networks.attach(on(&made.id[..10], "b", vec![])).await.unwrap();
        assert_eq!([address(&a).to_string(), address(&b).to_string()], ["172.18.0.2", "172.18.0.3"]);
        assert!(a.resolver && default_route(&a) == "eth0");
        let server = listen_in(&a);
        converse(inside(&b, || connect(SocketAddr::new(address(&a), 80))), &server);

        let error = networks.remove("mine").await.unwrap_err();
        assert!(matches!(error, RemoveError::InUse { .. }));
        assert!(error.to_string().starts_with(
            "error while removing network: network mine has active endpoints (name:\"a\" id:\""
        ));
        for container in ["a", "b"] {
            networks.detach(container).await.unwrap();
        }
        assert_eq!(networks.remove("mine").await.unwrap().id, made.id);
        assert!(matches!(networks.remove("mine").await, Err(RemoveError::NoNetwork(_))));
        assert!(matches!(networks.remove("host").await, Err(RemoveError::BuiltIn(_))));
        assert!(matches!(
            networks.attach(on("mine", "a", vec![])).await.unwrap_err().kind(),
            ErrorKind::NotFound
        ));
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn ranges_that_are_taken_are_refused_or_passed_over() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(in_range("a", "172.18.0.0/15")).await.unwrap();
        let overlap = networks.create(in_range("b", "172.19.3.0/24")).await.unwrap_err();
        assert!(matches!(overlap, CreateError::Overlap));
        let b = networks.create(plain("b")).await.unwrap();
        assert_eq!(b.pools[0].subnet.to_string(), "172.20.0.0/16");
        assert!(matches!(networks.create(plain("b")).await, Err(CreateError::NameTaken(_))));
        let ipv6 = networks.create(CreateRequest { enable_ipv6: Some(true), ..plain("six") }).await.unwrap();
        assert_eq!(ipv6.pools.len(), 2);
        assert!(ipv6.pools[1].subnet.to_string().starts_with("fd"));
        let again = home.open().await;
        assert_eq!(again.inspect("six").unwrap(), ipv6, "networks outlive the engine");
    });
}

#[test]
fn a_container_on_two_networks_goes_out_by_the_one_with_priority() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(plain("aa")).await.unwrap();
        networks.create(plain("bb")).await.unwrap();
        networks.create(CreateRequest { internal: true, ..plain("a-inner") }).await.unwrap();
        let both = AttachRequest {
            networks: vec![Join { gw_priority: 1, ..join("bb") }, join("aa"), join("a-inner")],
            ..request("c", vec![publish(None, HostPorts::exactly(8080))])
        };
        let sandbox = networks.attach(both).await.unwrap();
        let interfaces: Vec<_> =
            sandbox.endpoints.iter().map(|e| (e.interface.as_str(), e.network.as_str())).collect();
        assert_eq!(interfaces, [("eth0", "bb"), ("eth1", "aa"), ("eth2", "a-inner")]);
        assert_eq!(default_route(&sandbox), "eth0");
        let bb = sandbox.endpoints[0].network_id.clone();
        let server = listen_in(&sandbox);
        let published = "127.0.0.1:8080".parse().unwrap();
        converse(connect(published).unwrap(), &server);

        networks.disconnect("c", &bb).await.unwrap();
        assert_eq!(default_route(&sandbox), "eth1", "the other way out");
        converse(connect(published).unwrap(), &server);
        let aa = sandbox.endpoints[1].network_id.clone();
        networks.disconnect("c", &aa).await.unwrap();
        assert_eq!(default_route(&sandbox), "", "an internal network is no way out");
        assert!(connect(published).is_err());
        let again = networks.connect("c", join("aa")).await.unwrap();
        assert_eq!(again.endpoints.last().unwrap().interface, "eth3");
        assert_eq!(default_route(&sandbox), "eth3");
        converse(connect(published).unwrap(), &server);
        let twice = networks.connect("c", join("aa")).await.unwrap_err();
        assert_eq!(chain(&twice), "endpoint with name c already exists in network aa");
        networks.detach("c").await.unwrap();
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn addresses_that_are_asked_for_are_granted_once() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(in_range("r", "10.5.0.0/24")).await.unwrap();
        let asking = |container: &str, address: &str| AttachRequest {
            networks: vec![Join {
                ipv4: Some(address.parse().unwrap()),
                mac: Some("02:11:22:33:44:55".parse().unwrap()),
                ..join("r")
            }],
            ..request(container, vec![])
        };
        let sandbox = networks.attach(asking("a", "10.5.0.77")).await.unwrap();
        assert_eq!(address(&sandbox).to_string(), "10.5.0.77");
        assert_eq!(sandbox.endpoints[0].link.as_ref().unwrap().mac.to_string(), "02:11:22:33:44:55");
        for (taken, message) in [
            ("10.5.0.77", "Address already in use"),
            ("10.5.0.1", "Address already in use"),
            ("10.6.0.1", "no configured subnet or ip-range contain the IP address 10.6.0.1"),
        ] {
            assert_eq!(chain(&networks.attach(asking("b", taken)).await.unwrap_err()), message);
        }
        assert!(networks.sandbox("b").is_none());
    });
}

#[test]
fn ipv6_neighbours_reach_each_other() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks
            .create(CreateRequest { enable_ipv4: Some(false), enable_ipv6: Some(true), ..plain("six") })
            .await
            .unwrap();
        let a = networks.attach(on("six", "a", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let b = networks.attach(on("six", "b", vec![])).await.unwrap();
        let at = a.endpoints[0].link.as_ref().unwrap().ipv6.unwrap();
        assert!(a.endpoints[0].link.as_ref().unwrap().ipv4.is_none());
        let server = inside(&a, || TcpListener::bind("[::]:80"));
        converse(inside(&b, || connect(SocketAddr::new(at.address, 80))), &server);
        converse(connect("127.0.0.1:8080".parse().unwrap()).unwrap(), &server);
    });
}

#[test]
fn neighbours_that_must_not_talk_do_not() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let options = [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into();
        networks.create(CreateRequest { options, ..plain("deaf") }).await.unwrap();
        let a = networks.attach(on("deaf", "a", vec![])).await.unwrap();
        let b = networks.attach(on("deaf", "b", vec![])).await.unwrap();
        let server = listen_in(&a);
        let at = SocketAddr::new(address(&a), 80);
        converse(connect(at).unwrap(), &server);
        let refused = inside(&b, || Ok(TcpStream::connect_timeout(&at, Duration::from_millis(300)).is_err()));
        assert!(refused, "isolated ports do not reach each other");
    });
}

#[test]
fn what_a_killed_engine_was_making_or_removing_is_gone_with_the_next() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let made = networks.create(plain("half")).await.unwrap();
        let mut record = networks.shared.book().network(&made.id).unwrap().clone();
        record.unfinished = true;
        networks.shared.pen().put_network(record).unwrap();
        assert!(networks.inspect("half").is_err());
        let again = home.open().await;
        assert!(again.inspect("half").is_err());
        assert!(devices().is_empty());
        again.create(plain("half")).await.unwrap();
    });
}

#[test]
fn configurations_are_taken_over_and_kept_while_in_use() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let config = CreateRequest { config_only: true, ..in_range("config", "10.7.0.0/24") };
        assert_eq!(networks.create(config).await.unwrap().driver, "null");
        let from = CreateRequest { config_from: Some("config".into()), ..plain("taker") };
        let taker = networks.create(from).await.unwrap();
        assert_eq!(
            (taker.pools[0].subnet.to_string(), taker.driver.as_str()),
            ("10.7.0.0/24".into(), "bridge")
        );
        assert!(matches!(networks.remove("config").await, Err(RemoveError::Configures(_))));
        assert!(networks.attach(on("config", "c", vec![])).await.is_err());
        networks.remove("taker").await.unwrap();
        networks.remove("config").await.unwrap();
    });
}

#[test]
fn macvlan_neighbours_share_their_parents_wire() {
    in_own_system(async |home| {
        let networks = home.open().await;
        // A wire is one only with somebody at its other end.
        networks.attach(on("bridge", "other-end", vec![])).await.unwrap();
        let options = [("parent".to_owned(), "docker0".to_owned())].into();
        let made = networks
            .create(CreateRequest { driver: "macvlan".into(), options, ..in_range("mv", "10.8.0.0/24") })
            .await;
        let made = match made {
            Err(error) if chain(&error).contains("operation not supported") => {
                eprintln!("skipped: this kernel has no macvlan");
                return;
            }
            made => made.unwrap(),
        };
        assert_eq!(made.driver, "macvlan");
        let a = networks.attach(on("mv", "a", vec![])).await.unwrap();
        let b = networks.attach(on("mv", "b", vec![])).await.unwrap();
        let server = listen_in(&a);
        converse(inside(&b, || connect(SocketAddr::new(address(&a), 80))), &server);
        for container in ["a", "b"] {
            networks.detach(container).await.unwrap();
        }
        networks.remove("mv").await.unwrap();
        assert!(devices().contains(&"docker0".to_owned()), "the parent is not this network's");
    });
}

#[test]
fn a_default_bridge_without_containers_makes_way_for_the_hosts_routes() {
    in_own_system(async |home| {
        let file = home.0.path().join("routes");
        let options = Options { avoid: Some(file.clone()), ..Options::new(Publisher::Native) };
        let networks = Networks::open(&home.root(), &home.exec_root(), options).await.unwrap();
        let first = networks.attach(on("bridge", "first", vec![])).await.unwrap();
        assert_eq!(address(&first).to_string(), "172.17.0.2");
        std::fs::write(&file, "172.17.0.0/16\nno range\n\n172.18.128.0/20\nfd00::/8\n").unwrap();
        let second = networks.attach(on("bridge", "second", vec![])).await.unwrap();
        assert_eq!(address(&second).to_string(), "172.17.0.3", "it stays while somebody is there");
        assert_eq!(networks.create(plain("new")).await.unwrap().pools[0].subnet.to_string(), "172.19.0.0/16");
        for container in ["first", "second"] {
            networks.detach(container).await.unwrap();
        }
        let third = networks.attach(on("bridge", "third", vec![])).await.unwrap();
        assert_eq!(address(&third).to_string(), "172.20.0.2");
        let server = listen_in(&third);
        converse(connect(SocketAddr::new(address(&third), 80)).unwrap(), &server);
    });
}

/// Containers come and go while the host's routes change: whoever is there is a neighbour of all others.
#[test]
fn a_default_bridge_makes_way_from_under_nobody() {
    in_own_system(async |home| {
        let file = home.0.path().join("routes");
        let options = Options { avoid: Some(file.clone()), ..Options::new(Publisher::Native) };
        let networks = Networks::open(&home.root(), &home.exec_root(), options).await.unwrap();
        for round in 0..60 {
            let ranges = ["172.17.0.0/16\n", "172.18.0.0/16\n172.19.0.0/16\n"];
            std::fs::write(&file, ranges[round % 2]).unwrap();
            let a = tokio::spawn({
                let networks = networks.clone();
                async move { networks.attach(on("bridge", "a", vec![])).await.unwrap() }
            });
            tokio::time::sleep(Duration::from_micros(round as u64 * 100)).await;
            std::fs::write(&file, ranges[(round + 1) % 2]).unwrap();
            let b = networks.attach(on("bridge", "b", vec![])).await.unwrap();
            let (a, subnet) = (a.await.unwrap(), networks.inspect("bridge").unwrap().pools[0].subnet);
            for sandbox in [&a, &b] {
                assert!(subnet.contains(address(sandbox)), "{} is not of {subnet}", address(sandbox));
            }
            let server = listen_in(&a);
            converse(inside(&b, || connect(SocketAddr::new(address(&a), 80))), &server);
            drop(server);
            for container in ["a", "b"] {
                networks.detach(container).await.unwrap();
            }
        }
        // What it made way for all the time is no fiction.
        let subnet = networks.inspect("bridge").unwrap().pools[0].subnet;
        std::fs::write(&file, format!("{subnet}\n")).unwrap();
        let c = networks.attach(on("bridge", "c", vec![])).await.unwrap();
        assert!(!subnet.contains(address(&c)), "it did not move from {subnet}");
    });
}

/// What lies on a parent of two networks is whoever's mark is on it; a bridge stands in for the VLAN, which this kernel may
/// not have.
#[test]
fn a_parent_that_idle_networks_share_goes_with_the_engine() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let mac = crate::Mac([2, 0, 0, 0, 0, 9]);
        Netlink::open().unwrap().batch(vec![netlink::create_bridge("wire0.10", mac, 1500)]).unwrap();
        let mut ids = Vec::new();
        for (name, subnet) in [("one", "10.8.0.0/24"), ("two", "10.9.0.0/24")] {
            let options = [("parent".to_owned(), "wire0.10".to_owned())].into();
            let request = CreateRequest { driver: "macvlan".into(), options, ..in_range(name, subnet) };
            ids.push(networks.create(request).await.unwrap().id);
        }
        let marked = netlink::set_alias("wire0.10", &format!("caisson:{}", ids[0]));
        Netlink::open().unwrap().batch(vec![marked]).unwrap();
        networks.close().await;
        assert_eq!(devices(), Vec::<String>::new());
    });
}

#[test]
fn a_bridge_that_the_user_has_made_is_used_and_stays() {
    in_own_system(async |home| {
        let mac = crate::Mac([2, 0, 0, 0, 0, 9]);
        Netlink::open().unwrap().batch(vec![netlink::create_bridge("br9", mac, 1500)]).unwrap();
        let networks = home.open().await;
        let options = [("com.docker.network.bridge.name".to_owned(), "br9".to_owned())].into();
        networks.create(CreateRequest { options, ..plain("mine") }).await.unwrap();
        let a = networks.attach(on("mine", "a", vec![])).await.unwrap();
        let b = networks.attach(on("mine", "b", vec![])).await.unwrap();
        let server = listen_in(&a);
        converse(inside(&b, || connect(SocketAddr::new(address(&a), 80))), &server);
        for container in ["a", "b"] {
            networks.detach(container).await.unwrap();
        }
        networks.remove("mine").await.unwrap();
        networks.close().await;
        assert_eq!(devices(), ["br9"]);
    });
}

/// A join whose network becomes the way out.
fn first(network: &str) -> Join {
    Join { gw_priority: 1, ..join(network) }
}

#[test]
fn a_connection_that_fails_for_its_ports_changes_nothing() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(plain("out")).await.unwrap();
        networks.create(CreateRequest { internal: true, ..plain("inner") }).await.unwrap();
        let wish = vec![publish(Some("127.0.0.1"), HostPorts::exactly(8080))];
        let before = networks.attach(on("inner", "c", wish)).await.unwrap();
        assert!(before.published.is_empty(), "an internal network publishes nothing");
        let there = devices();
        let theirs = TcpListener::bind("127.0.0.1:8080").unwrap();
        networks.connect("c", join("out")).await.unwrap_err();
        assert_eq!(networks.sandbox("c").unwrap(), before);
        assert_eq!((devices(), default_route(&before)), (there, String::new()));

        drop(theirs);
        let after = networks.connect("c", join("out")).await.unwrap();
        assert_eq!(after.published.len(), 1);
        let server = listen_in(&after);
        converse(connect("127.0.0.1:8080".parse().unwrap()).unwrap(), &server);
    });
}

#[test]
fn ports_that_worked_work_on_after_a_connection_that_failed() {
    in_own_system(async |home| {
        let networks = home.open().await;
        const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
        let options = [(MODE.to_owned(), "routed".to_owned())].into();
        networks.create(CreateRequest { options, ..plain("routed") }).await.unwrap();
        networks.create(plain("out")).await.unwrap();
        let wish = vec![publish(None, HostPorts::exactly(8080))];
        let before = networks.attach(on("routed", "c", wish)).await.unwrap();
        let server = listen_in(&before);
        let published = "[::1]:8080".parse().unwrap();
        converse(connect(published).unwrap(), &server);

        let _theirs = TcpListener::bind("127.0.0.1:8080").unwrap();
        networks.connect("c", first("out")).await.unwrap_err();
        assert_eq!(networks.sandbox("c").unwrap(), before);
        assert_eq!(default_route(&before), "eth0");
        converse(connect(published).unwrap(), &server);
    });
}
