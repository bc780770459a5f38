//! Namespaces, addresses, inspection.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::error::chain;
use crate::{AttachError, Mac};

#[test]
fn two_sandboxes_and_the_system_reach_each_other() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let a = networks.attach(request("a", vec![])).await.unwrap();
        let b = networks.attach(request("b", vec![])).await.unwrap();
        assert_eq!([address(&a).to_string(), address(&b).to_string()], ["172.17.0.2", "172.17.0.3"]);
        let server = listen_in(&a);
        let at = SocketAddr::new(address(&a), 80);
        converse(inside(&b, || connect(at)), &server);
        converse(connect(at).unwrap(), &server);
        let of_the_system = TcpListener::bind("172.17.0.1:7000").unwrap();
        converse(inside(&b, || connect("172.17.0.1:7000".parse().unwrap())), &of_the_system);
        // Inside there are a loopback device that works and eth0, with the address that was promised.
        let own = inside(&b, || TcpListener::bind("127.0.0.1:80"));
        converse(inside(&b, || connect("127.0.0.1:80".parse().unwrap())), &own);
        let mut devices = inside(&b, || netlink::links(&mut Netlink::open()?));
        devices.retain(|link| !link.name.contains("tunl") && !link.name.contains("sit"));
        assert_eq!(devices.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0"]);
        let mac = inside(&b, || std::fs::read_to_string("/proc/thread-self/net/dev_mcast"));
        assert!(mac.contains("eth0"));
        assert_eq!(b.endpoints[0].link.as_ref().unwrap().mac, Mac([2, 0x42, 172, 17, 0, 3]));
    });
}

#[test]
fn none_has_a_loopback_device_only_and_host_has_no_namespace() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let none = networks.attach(on("none", "n", vec![])).await.unwrap();
        let server = inside(&none, || TcpListener::bind("127.0.0.1:80"));
        converse(inside(&none, || connect("127.0.0.1:80".parse().unwrap())), &server);
        let devices = inside(&none, || netlink::links(&mut Netlink::open()?));
        assert!(devices.iter().all(|link| link.name != "eth0"));

        let ports = vec![publish(None, HostPorts::exactly(8080))];
        let host = networks.attach(on("host", "h", ports)).await.unwrap();
        assert_eq!((host.netns.as_ref(), host.published.len()), (None, 0));
        assert_eq!(networks.inspect("host").unwrap().attachments[0].container, "h");
        networks.detach("n").await.unwrap();
        networks.detach("h").await.unwrap();
        networks.close().await;
        assert_eq!((home.namespaces(), super::devices().len()), (0, 0));
    });
}

#[test]
fn an_address_that_was_given_back_is_granted_again_and_works_at_once() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let client = networks.attach(request("client", vec![])).await.unwrap();
        for round in 0..20 {
            let server = networks.attach(request(&format!("s{round}"), vec![])).await.unwrap();
            assert_eq!(address(&server).to_string(), "172.17.0.3", "round {round}");
            let listener = listen_in(&server);
            let at = SocketAddr::new(address(&server), 80);
            let start = Instant::now();
            converse(inside(&client, || connect(at)), &listener);
            converse(connect(at).unwrap(), &listener);
            // A lost packet is sent again after a second.
            assert!(start.elapsed() < Duration::from_millis(900), "round {round}: {:?}", start.elapsed());
            networks.detach(&server.container).await.unwrap();
        }
        assert!(matches!(networks.attach(request("client", vec![])).await, Err(AttachError::Attached(_))));
        assert!(matches!(
            networks.attach(request("../x", vec![])).await,
            Err(AttachError::InvalidContainer(_))
        ));
        networks.detach("client").await.unwrap();
        networks.detach("client").await.unwrap();
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn a_namespace_that_somebody_holds_is_cut_off_at_once_and_loses_its_device() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let held = networks.attach(request("held", vec![])).await.unwrap();
        let holder = Netns::open(held.netns.as_ref().unwrap()).unwrap();
        let listener = listen_in(&held);
        networks.detach("held").await.unwrap();
        let next = networks.attach(request("next", vec![])).await.unwrap();
        assert_eq!(address(&next), address(&held));
        let theirs = listen_in(&next);
        converse(connect(SocketAddr::new(address(&next), 80)).unwrap(), &theirs);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        networks.detach("next").await.unwrap();
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
        let left = netns::enter(&holder, || netlink::find_link(&mut Netlink::open()?, "eth0")).unwrap();
        assert_eq!(left, None);
    });
}

#[test]
fn many_at_once_get_different_addresses_and_leave_nothing() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let attach = (0..24).map(|n| {
            let networks = networks.clone();
            tokio::spawn(async move { networks.attach(request(&format!("c{n}"), vec![])).await.unwrap() })
        });
        let mut addresses = BTreeSet::new();
        for attached in attach.collect::<Vec<_>>() {
            addresses.insert(address(&attached.await.unwrap()));
        }
        let highest = addresses.last().unwrap().to_string();
        assert_eq!((addresses.len(), highest.as_str()), (24, "172.17.0.25"));
        assert_eq!(networks.inspect("bridge").unwrap().attachments.len(), 24);
        let detach = (0..24).map(|n| {
            let networks = networks.clone();
            tokio::spawn(async move { networks.detach(&format!("c{n}")).await.unwrap() })
        });
        for detached in detach.collect::<Vec<_>>() {
            detached.await.unwrap();
        }
        assert!(networks.inspect("bridge").unwrap().attachments.is_empty());
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn a_full_network_says_so_and_a_full_one_with_room_again_goes_on() {
    in_own_system(async |home| {
        home.open().await.close().await;
        let file = home.root().join("networks.json");
        let state = std::fs::read_to_string(&file).unwrap();
        let state = state.replace("172.17.0.0/16", "10.9.0.0/30").replace("172.17.0.1", "10.9.0.1");
        std::fs::write(&file, state).unwrap();
        let networks = home.open().await;
        networks.attach(request("a", vec![])).await.unwrap();
        let error = networks.attach(request("b", vec![])).await.unwrap_err();
        let id = networks.inspect("bridge").unwrap().id;
        let expected = format!("no available IPv4 addresses on this network's address pools: bridge ({id})");
        assert_eq!(chain(&error), expected);
        assert!(networks.sandbox("b").is_none());
        networks.detach("a").await.unwrap();
        assert_eq!(address(&networks.attach(request("b", vec![])).await.unwrap()).to_string(), "10.9.0.2");
    });
}

#[test]
fn the_bridge_makes_way_for_routes_and_devices_of_others() {
    in_own_system(async |home| {
        let mut netlink = Netlink::open().unwrap();
        let gateway = "172.17.9.1".parse().unwrap();
        netlink.batch(vec![netlink::create_bridge("docker0", Mac::of(gateway), 1500)]).unwrap();
        let theirs = netlink::find_link(&mut netlink, "docker0").unwrap().unwrap();
        let range = "172.17.9.0/24".parse().unwrap();
        netlink
            .batch(vec![netlink::add_address(theirs.index, gateway, range), netlink::set_up(theirs.index)])
            .unwrap();

        let networks = home.open().await;
        let sandbox = networks.attach(request("a", vec![])).await.unwrap();
        assert_eq!(address(&sandbox).to_string(), "172.18.0.2");
        let bridge = networks.inspect("bridge").unwrap();
        assert_eq!(bridge.options["com.docker.network.bridge.name"], "caisson0");
        networks.detach("a").await.unwrap();
        networks.close().await;
        assert_eq!(devices(), ["docker0"]);
    });
}

#[test]
fn inspect_finds_by_name_id_and_prefix() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let bridge = networks.inspect("bridge").unwrap();
        assert_eq!(bridge.id.len(), 64);
        assert_eq!(bridge.pools[0].subnet.to_string(), "172.17.0.0/16");
        assert_eq!(bridge.options["com.docker.network.bridge.name"], "docker0");
        assert_eq!(networks.inspect(&bridge.id).unwrap(), bridge);
        assert_eq!(networks.inspect(&bridge.id[..40]).unwrap(), bridge);
        for unknown in ["", "no-such", "bridg"] {
            let error = networks.inspect(unknown).unwrap_err();
            assert_eq!(error.to_string(), format!("network {unknown} not found"));
        }
        let drivers: Vec<_> = networks.list().into_iter().map(|n| (n.name, n.driver)).collect();
        let drivers: Vec<_> = drivers.iter().map(|(name, driver)| (name.as_str(), driver.as_str())).collect();
        assert_eq!(drivers, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
        assert_eq!(home.open().await.inspect("bridge").unwrap(), bridge, "ids outlive the engine");
    });
}
