//! Networks of several nodes, of which here is one.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::*;
use crate::error::chain;
use crate::{CreateRequest, ErrorKind, IpamRequest, PoolRequest};

const VNIS: &str = "com.docker.network.driver.overlay.vxlanid_list";

fn overlay(name: &str) -> CreateRequest {
    CreateRequest {
        name: name.into(),
        driver: "overlay".into(),
        attachable: true,
        ..CreateRequest::default()
    }
}

fn with_option(name: &str, option: &str, value: &str) -> CreateRequest {
    CreateRequest { options: [(option.to_owned(), value.to_owned())].into(), ..overlay(name) }
}

/// What this system tells of its VXLANs, one a line.
fn vxlans() -> Vec<String> {
    let output = Command::new("ip").args(["-d", "-o", "link", "show", "type", "vxlan"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn an_overlay_that_containers_may_join_is_a_bridge_with_a_vxlan() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let refused =
            networks.create(CreateRequest { attachable: false, ..overlay("over") }).await.unwrap_err();
        assert!(chain(&refused).starts_with("This node is not a swarm manager."));
        let made = networks.create(overlay("over")).await.unwrap();
        assert_eq!(
            (made.driver.as_str(), made.pools[0].subnet.to_string().as_str()),
            ("overlay", "10.0.0.0/24")
        );
        assert_eq!(made.options[VNIS], "4096");
        let a = networks.attach(on("over", "a", vec![])).await.unwrap();
        let b = networks.attach(on("over", "b", vec![])).await.unwrap();
        let server = listen_in(&a);
        converse(inside(&b, || connect(SocketAddr::new(address(&a), 80))), &server);

        let [vxlan] = &vxlans()[..] else { panic!("{:?}", vxlans()) };
        let bridge = format!("master br-{}", &made.id[..12]);
        for property in ["vxlan id 4096", "dstport 4789", "nolearning", "mtu 1450", "state UNKNOWN", &bridge]
        {
            assert!(vxlan.contains(property), "{property}: {vxlan}");
        }
        for container in ["a", "b"] {
            networks.detach(container).await.unwrap();
        }
        networks.remove("over").await.unwrap();
        assert_eq!(vxlans(), Vec::<String>::new());
    });
}

#[test]
fn each_overlay_has_a_number_of_its_own() {
    in_own_system(async |home| {
        // One that is another program's is not taken either.
        let other = netlink::create_bridge("br9", crate::Mac([2, 0, 0, 0, 0, 9]), 1500);
        let mut kernel = Netlink::open().unwrap();
        kernel.batch(vec![other]).unwrap();
        let bridge = netlink::find_link(&mut kernel, "br9").unwrap().unwrap().index;
        let vxlan = netlink::Vxlan { name: "vx9", bridge, vni: 4097, port: 4789, mtu: 1450 };
        kernel.batch(vec![netlink::create_vxlan(&vxlan)]).unwrap();

        let networks = home.open().await;
        for (request, number) in
            [(overlay("one"), "4096"), (overlay("two"), "4098"), (with_option("asked", VNIS, "77,78"), "77")]
        {
            assert_eq!(networks.create(request).await.unwrap().options[VNIS], number);
        }
        let taken = networks.create(with_option("late", VNIS, "4098")).await.unwrap_err();
        assert_eq!(
            chain(&taken),
            "could not assign vxlan id 4098 to pool 10.0.3.0/24: requested bit is already allocated"
        );
        networks.remove("two").await.unwrap();
        assert_eq!(networks.create(overlay("three")).await.unwrap().options[VNIS], "4098");
        networks.close().await;
        assert_eq!(devices(), ["br9", "vx9"]);
    });
}

/// The port of all VXLANs is another program's, which is seen when one is made: behind its rules.
#[test]
fn a_network_that_cannot_be_made_leaves_no_rules() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.attach(on("bridge", "a", vec![])).await.unwrap();
        let before = rules();
        assert!(before.contains("bridge: "));
        let theirs = UdpSocket::bind("0.0.0.0:4789").unwrap();
        networks.create(overlay("late")).await.unwrap_err();
        assert!(networks.inspect("late").is_err());
        assert_eq!(rules(), before);
        drop(theirs);
        networks.create(overlay("late")).await.unwrap();
    });
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    in_own_system(async |home| {
        let networks = home.open().await;
        for (option, value, kind, why) in [
            ("encrypted", "", ErrorKind::Forbidden, "option encrypted is not supported: "),
            ("encrypted", "true", ErrorKind::Forbidden, "option encrypted is not supported: "),
            (VNIS, "x", ErrorKind::Invalid, "invalid vxlan id value \"x\" passed"),
        ] {
            let refused = networks.create(with_option("over", option, value)).await.unwrap_err();
            assert!(chain(&refused).starts_with(why), "{}", chain(&refused));
            assert_eq!(refused.kind(), kind);
        }
        assert!(networks.inspect("over").is_err());
        assert_eq!(vxlans(), Vec::<String>::new());
    });
}

#[test]
fn the_ranges_of_an_overlay_reach_each_other_and_the_rest() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let range = |subnet: &str| PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
        let ranges = ["10.1.0.0/30", "10.2.0.0/24", "fd00:1::/64", "fd00:2::/64"].map(range);
        let ipam = Some(IpamRequest { config: ranges.into(), ..IpamRequest::default() });
        for internal in [false, true] {
            let request =
                CreateRequest { internal, enable_ipv6: Some(true), ipam: ipam.clone(), ..overlay("over") };
            assert_eq!(networks.create(request).await.unwrap().pools.len(), 4);
            let a = networks.attach(on("over", "a", vec![])).await.unwrap();
            // The first range of IPv4 is full.
            let mut request = on("over", "b", vec![publish(None, HostPorts::exactly(8080))]);
            request.networks[0].ipv6 = Some("fd00:2::9".parse().unwrap());
            let b = networks.attach(request).await.unwrap();
            assert_eq!(
                [address(&a), address(&b)].map(|address| address.to_string()),
                ["10.1.0.2", "10.2.0.2"]
            );
            let server = inside(&b, || TcpListener::bind("[::]:80"));
            for to in ["10.2.0.2:80", "[fd00:2::9]:80"] {
                converse(inside(&a, || connect(to.parse().unwrap())), &server);
            }
            if !internal {
                converse(connect("127.0.0.1:8080".parse().unwrap()).unwrap(), &server);
                let ours = TcpListener::bind("10.2.0.1:9000").unwrap();
                converse(inside(&b, || connect(ours.local_addr()?)), &ours);
            }
            for container in ["a", "b"] {
                networks.detach(container).await.unwrap();
            }
            networks.remove("over").await.unwrap();
        }
    });
}

/// A packet to the VXLAN, from a container of another network, with a frame for all in it.
#[test]
fn nobody_speaks_on_an_overlay_who_is_not_on_it() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(overlay("over")).await.unwrap();
        let outsider = networks.attach(on("bridge", "outsider", vec![])).await.unwrap();
        let header = [8, 0, 0, 0, 0, 0x10, 0, 0];
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 46]].concat();
        inside(&outsider, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(&[&header[..], &frame].concat(), "172.17.0.1:4789")
        });
        let listed = Command::new("nft").args(["list", "table", "inet", "caisson"]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let rule = listed.lines().find(|line| line.contains("over: no other node speaks")).unwrap();
        assert!(rule.contains("counter packets 1 "), "{rule}");
        let told = Command::new("ip").args(["-s", "-o", "link", "show", "type", "vxlan"]).output().unwrap();
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let received = told.split("RX:").nth(1).and_then(|text| text.split('\\').nth(1)).unwrap();
        assert!(received.trim_start().starts_with("0 "), "{told}");
    });
}

#[test]
fn an_overlay_is_whole_again_after_a_kill() {
    in_own_system(async |home| {
        let first = home.open().await;
        first.create(overlay("over")).await.unwrap();
        drop(first);
        assert_eq!(vxlans().len(), 1);
        let second = home.open().await;
        assert_eq!(vxlans().len(), 0, "one without the rules that guard it");
        second.attach(on("over", "a", vec![])).await.unwrap();
        assert_eq!(vxlans().len(), 1);
        second.detach("a").await.unwrap();
        second.close().await;
        assert_eq!(devices(), Vec::<String>::new());
    });
}

/// Hears of all devices that come or go.
struct Links(OwnedFd);

impl Links {
    fn listen() -> Self {
        const GROUP: u32 = 1;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrNetlink::new(0, GROUP)).unwrap();
        Self(socket)
    }

    fn heard_of_a_vxlan(&self) -> bool {
        let mut buffer = [0; 32 * 1024];
        let mut heard = false;
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).map_err(io::Error::from) {
                Ok((_, length)) => heard |= buffer[..length].windows(6).any(|bytes| bytes == b"vxlan\0"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn an_overlay_is_not_open_before_its_rules_are_there() {
    in_own_system(async |home| {
        let first = home.open().await;
        first.create(overlay("over")).await.unwrap();
        first.attach(on("over", "a", vec![])).await.unwrap();
        drop(first);
        let others = OthersTable::hold();

        let second = home.open().await;
        let links = Links::listen();
        assert_eq!(second.restore(&["a".to_owned()]).await.len(), 1);
        assert!(!links.heard_of_a_vxlan(), "at the restart");
        second.attach(on("over", "b", vec![])).await.unwrap_err();
        assert!(!links.heard_of_a_vxlan(), "for a container");
        second.create(overlay("late")).await.unwrap_err();
        assert!(!links.heard_of_a_vxlan(), "for a new network");

        drop(others);
        second.attach(on("over", "b", vec![])).await.unwrap();
        second.create(overlay("late")).await.unwrap();
        assert_eq!(vxlans().len(), 2);
        assert!(links.heard_of_a_vxlan());
    });
}
