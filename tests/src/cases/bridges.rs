//! What can be asked of a bridge: IPv6, smaller packets, neighbours apart, addresses that stay free, sources that stay as they are.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bounded::{Bounded, LIMIT};
use crate::cases;
use crate::cli::Answer;
use crate::namespaces::{Cgroups, Namespaces};
use crate::subject::{Case, Subject};

cases![
    a_container_has_the_ipv6_address_that_it_asks_for,
    networks_of_ipv6_are_apart,
    packets_are_as_small_as_the_network_says,
    neighbours_are_apart_where_their_network_says_so,
    auxiliary_addresses_are_given_to_nobody,
];

/// With another computer beside the engine's, which takes a network that can be entered.
pub const NATIVE: &[Case] = &[Case {
    name: "what_leaves_keeps_its_source_where_asked",
    run: what_leaves_keeps_its_source_where_asked,
}];

/// How long a page may take that comes, and how long one is waited for that does not.
const COMES: Duration = Duration::from_secs(60);
const STAYS_AWAY: Duration = Duration::from_secs(3);

/// What a container on a network gets from a web server. By nc: wget of some busybox crashes when it has a limit.
fn fetch(on: &dyn Subject, network: &str, server: &str, within: Duration) -> Result<Answer> {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w {} {server} 80", within.as_secs());
    on.docker().run(["run", "--rm", "--network", network, "busybox", "sh", "-c", &ask])
}

fn is_fetched(on: &dyn Subject, network: &str, server: &str) -> Result<()> {
    let page = fetch(on, network, server, COMES)?;
    ensure!(page.status == 0 && page.out.contains("web"), "{server} from {network}: {page:?}");
    Ok(())
}

fn is_out_of_reach(on: &dyn Subject, network: &str, server: &str) -> Result<()> {
    let page = fetch(on, network, server, STAYS_AWAY)?;
    ensure!(page.status == 1 && page.out.is_empty(), "{server} from {network}: {page:?}");
    Ok(())
}

/// A field of what `inspect` says of a container on a network.
fn endpoint(on: &dyn Subject, container: &str, network: &str, field: &str) -> Result<String> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
    on.docker().ok(["inspect", "-f", &format, container])
}

fn a_container_has_the_ipv6_address_that_it_asks_for(on: &dyn Subject) -> Result<()> {
    const ADDRESS: &str = "fd00:ca15:1::42";
    let docker = on.docker();
    docker.ok(["network", "create", "--ipv6", "--subnet", "fd00:ca15:1::/64", "b-six"])?;
    let told = docker.ok(["network", "inspect", "-f", "{{.EnableIPv6}} {{json .IPAM.Config}}", "b-six"])?;
    ensure!(told.starts_with("true ") && told.contains("\"Subnet\":\"fd00:ca15:1::/64\""), "{told}");
    docker.ok(["run", "-d", "--name", "b-asks", "--network", "b-six", "--ip6", ADDRESS, "web"])?;
    for (field, expected) in [
        ("GlobalIPv6Address", ADDRESS),
        ("GlobalIPv6PrefixLen", "64"),
        ("IPv6Gateway", "fd00:ca15:1::1"),
        ("IPAMConfig.IPv6Address", ADDRESS),
    ] {
        let told = endpoint(on, "b-asks", "b-six", field)?;
        ensure!(told == expected, "{field}: {told}");
    }
    let own = docker.ok(["exec", "b-asks", "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"])?;
    ensure!(own.contains(&format!("inet6 {ADDRESS}/64")), "{own}");
    let lookup = |asked: &[&str]| {
        docker.ok([&["run", "--rm", "--network", "b-six", "busybox", "nslookup"], asked].concat())
    };
    let found = lookup(&["-type=aaaa", "b-asks"])?;
    ensure!(found.lines().any(|line| line == format!("Address: {ADDRESS}")), "{found}");
    let named = lookup(&[ADDRESS])?;
    ensure!(named.contains("name = b-asks.b-six"), "{named}");
    is_fetched(on, "b-six", ADDRESS)?;
    let twice = ["run", "--rm", "--network", "b-six", "--ip6", ADDRESS, "busybox", "true"];
    let refused = docker.run(twice)?;
    ensure!(refused.status == 125 && refused.err.contains("Address already in use"), "{refused:?}");
    docker.ok(["rm", "-f", "b-asks"])?;
    docker.ok(["network", "rm", "b-six"])?;
    Ok(())
}

fn networks_of_ipv6_are_apart(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--ipv6", "--subnet", "fd00:ca15:2::/64", "b-near"])?;
    docker.ok(["network", "create", "--ipv6", "--subnet", "fd00:ca15:3::/64", "b-far"])?;
    docker.ok(["run", "-d", "--name", "b-serves", "--network", "b-near", "web"])?;
    let address = endpoint(on, "b-serves", "b-near", "GlobalIPv6Address")?;
    is_fetched(on, "b-near", &address)?;
    is_out_of_reach(on, "b-far", &address)?;
    docker.ok(["rm", "-f", "b-serves"])?;
    docker.ok(["network", "rm", "b-near", "b-far"])?;
    Ok(())
}

fn packets_are_as_small_as_the_network_says(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "-o", "com.docker.network.driver.mtu=1300", "b-small"])?;
    let read = ["run", "--rm", "--network", "b-small", "busybox", "cat", "/sys/class/net/eth0/mtu"];
    let mtu = docker.ok(read)?;
    ensure!(mtu == "1300", "{mtu}");
    docker.ok(["network", "rm", "b-small"])?;
    Ok(())
}

fn neighbours_are_apart_where_their_network_says_so(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for icc in [true, false] {
        let option = format!("com.docker.network.bridge.enable_icc={icc}");
        docker.ok(["network", "create", "-o", &option, "b-icc"])?;
        docker.ok(["run", "-d", "--name", "b-neighbour", "--network", "b-icc", "web"])?;
        let address = endpoint(on, "b-neighbour", "b-icc", "IPAddress")?;
        if icc {
            is_fetched(on, "b-icc", &address)?;
        } else {
            is_out_of_reach(on, "b-icc", &address)?;
        }
        docker.ok(["rm", "-f", "b-neighbour"])?;
        docker.ok(["network", "rm", "b-icc"])?;
    }
    Ok(())
}

fn auxiliary_addresses_are_given_to_nobody(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    // Six addresses: the gateway has the first, and two are kept.
    let range =
        ["--subnet", "10.96.3.0/29", "--aux-address", "one=10.96.3.2", "--aux-address", "two=10.96.3.4"];
    let id = docker.ok([&["network", "create"], &range[..], &["b-kept"]].concat())?;
    let config = docker.ok(["network", "inspect", "-f", "{{json (index .IPAM.Config 0)}}", "b-kept"])?;
    let kept = r#""AuxiliaryAddresses":{"one":"10.96.3.2","two":"10.96.3.4"}"#;
    ensure!(config.contains(kept), "{config}");
    let run = |name: &str, options: &[&str]| {
        let run = ["run", "-d", "--network", "b-kept", "--name", name];
        docker.run([&run, options, &["busybox", "sleep", "1000"]].concat())
    };
    let refused = run("b-wants", &["--ip", "10.96.3.4"])?;
    let told = "failed to set up container networking: Address already in use";
    ensure!(refused.status == 125 && refused.err.contains(told), "{refused:?}");
    for (name, expected) in [("b-3", "10.96.3.3"), ("b-5", "10.96.3.5"), ("b-6", "10.96.3.6")] {
        run(name, &[])?.ok()?;
        let given = endpoint(on, name, "b-kept", "IPAddress")?;
        ensure!(given == expected, "{name}: {given}");
    }
    let full = run("b-late", &[])?;
    let told = format!("no available IPv4 addresses on this network's address pools: b-kept ({id})");
    ensure!(full.status == 125 && full.err.contains(&told), "{full:?}");
    docker.ok(["rm", "-f", "b-wants", "b-3", "b-5", "b-6", "b-late"])?;
    docker.ok(["network", "rm", "b-kept"])?;
    Ok(())
}

/// A computer beside the engine's, with a wire to it.
struct Beside {
    socket: UdpSocket,
    _namespaces: Namespaces,
}

impl Beside {
    /// The engine's end of the wire, and this computer's.
    const ENGINE: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 1);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 2);

    fn new(on: &dyn Subject) -> Result<Self> {
        let engine = on.network().context("this engine's network cannot be entered from here")?;
        let namespaces = Namespaces::new(Cgroups::AsSystem)?;
        let (own, host) = (Self::OWN, Self::ENGINE);
        let wire = format!(
            "ip link add b-wire type veth peer name wire netns \"$1\"; ip link set b-wire up; ip addr add {host}/24 dev b-wire"
        );
        let mut lay = Command::new("nsenter");
        lay.arg(format!("--net={}", engine.display())).args(["sh", "-ec", &wire, "sh"]);
        let output = lay.arg(namespaces.network()).in_time()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        namespaces.shell(&format!("ip link set wire up && ip addr add {own}/24 dev wire"))?;
        let socket = bind(namespaces.network(), own)?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket, _namespaces: namespaces })
    }

    /// As whom a container on a network asks here, by a name server's query that nobody answers: dockerd 28 drops what comes to a
    /// container under its own address, answers as well.
    fn source_of(&self, on: &dyn Subject, network: &str) -> Result<IpAddr> {
        let server = self.socket.local_addr()?.to_string();
        let ask = ["nslookup", "-retry=1", "-timeout=1", "-type=a", "here", &server];
        let unanswered =
            on.docker().run([&["run", "--rm", "--network", network, "busybox"], &ask[..]].concat())?;
        let (_, from) = self.socket.recv_from(&mut [0; 512]).with_context(|| format!("{unanswered:?}"))?;
        Ok(from.ip())
    }
}

/// A socket in another network, made by a thread that moves there.
fn bind(network: PathBuf, at: Ipv4Addr) -> Result<UdpSocket> {
    let made = thread::spawn(move || -> Result<UdpSocket> {
        move_into_link_name_space(File::open(network)?.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(UdpSocket::bind((at, 0))?)
    });
    made.join().expect("it does not panic")
}

fn what_leaves_keeps_its_source_where_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let beside = Beside::new(on)?;
    for (masquerade, subnet, expected) in
        [(false, "10.96.4.0/24", Ipv4Addr::new(10, 96, 4, 2)), (true, "10.96.5.0/24", Beside::ENGINE)]
    {
        let option = format!("com.docker.network.bridge.enable_ip_masquerade={masquerade}");
        docker.ok(["network", "create", "--subnet", subnet, "-o", &option, "b-source"])?;
        let seen = beside.source_of(on, "b-source")?;
        ensure!(seen == expected, "with masquerade={masquerade} it comes from {seen}");
        docker.ok(["network", "rm", "b-source"])?;
    }
    Ok(())
}
