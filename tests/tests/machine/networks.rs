//! The machine's networks, seen from its host and from containers that do what they should not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{accept, until};
use caisson_tests::cli::Answer;
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

use crate::egress::{GATEWAYS, accept_within, import_debian, welcome};
use crate::flows::{Addresses, V6};
use crate::host::{Route, wait_for_route};

machine_cases![
    a_listener_on_the_network_host_is_reached_on_the_hosts_loopback,
    listeners_on_the_network_host_outlive_the_engine,
    connections_outlive_their_listener_on_the_network_host,
    the_host_is_reached_from_the_network_host,
    an_internal_network_is_shut_whatever_its_containers_do,
    nobody_sends_under_anothers_address,
    the_host_is_out_of_reach_by_vsock,
    neighbours_meet_in_every_mode_of_ipvlan,
    a_vlan_is_made_for_its_networks_and_goes_with_the_last,
    a_network_on_a_card_of_the_host_is_refused_with_what_there_is_instead,
    a_network_makes_way_for_a_route_of_the_hosts,
];

/// `host.docker.internal`.
const HOST: &str = "192.0.0.254";

fn serve_on_host_network(machine: &Machine, name: &str, address: &str) -> Result<()> {
    let serve = ["httpd", "-f", "-h", "/www", "-p", address];
    machine.docker().ok([&["run", "-d", "--name", name, "--network", "host", "web"], &serve[..]].concat())?;
    Ok(())
}

fn a_listener_on_the_network_host_is_reached_on_the_hosts_loopback(machine: &Machine) -> Result<()> {
    serve_on_host_network(machine, "h-any", "28170")?;
    serve_on_host_network(machine, "h-one", "127.0.0.1:28171")?;
    for url in ["http://127.0.0.1:28170/", "http://[::1]:28170/", "http://127.0.0.1:28171/"] {
        ensure!(machine.fetch(url)?.contains("web"), "{url}");
    }
    // Nowhere else on this computer: the number is free on its other addresses.
    drop(TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 28170)).context("open to others")?);
    ensure!(machine.is_closed("http://127.0.0.1:15001/")?, "a listener of the machine's own");
    let told = machine.docker().ok(["ps", "--filter", "name=h-any", "--format", "{{.Ports}}"])?;
    ensure!(told.is_empty(), "nobody asked for a port: {told}");
    machine.docker().ok(["rm", "-f", "h-any", "h-one"])?;
    for url in ["http://127.0.0.1:28170/", "http://127.0.0.1:28171/"] {
        ensure!(machine.is_closed(url)?, "{url} outlived its container");
    }
    Ok(())
}

fn listeners_on_the_network_host_outlive_the_engine(machine: &Machine) -> Result<()> {
    serve_on_host_network(machine, "h-tough", "28172")?;
    machine.fetch("http://127.0.0.1:28172/")?;
    machine.kill_engine()?;
    ensure!(machine.fetch("http://127.0.0.1:28172/")?.contains("web"));
    machine.docker().ok(["rm", "-f", "h-tough"])?;
    ensure!(machine.is_closed("http://127.0.0.1:28172/")?, "the port outlived its container");
    Ok(())
}

/// busybox's server listens no more when its one client has come.
fn connections_outlive_their_listener_on_the_network_host(machine: &Machine) -> Result<()> {
    const PORT: u16 = 28173;
    let docker = machine.docker();
    let serve = format!("nc -l -p {PORT} -e cat");
    docker.ok(["run", "-d", "--name", "h-once", "--network", "host", "busybox", "sh", "-c", &serve])?;
    let connect = || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).ok());
    let mut client = until("the listener is on the host's loopback", connect)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut ask = || -> Result<()> {
        client.write_all(b"still there?")?;
        let mut heard = [0; 12];
        client.read_exact(&mut heard)?;
        ensure!(&heard == b"still there?", "{heard:?}");
        Ok(())
    };
    ask()?;
    let bind = || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).ok());
    until("the number of a listener that is gone is free", bind)?;
    ask()?;
    docker.ok(["rm", "-f", "h-once"])?;
    Ok(())
}

fn the_host_is_reached_from_the_network_host(machine: &Machine) -> Result<()> {
    let (listener, port) = crate::egress::listen()?;
    let served = std::thread::spawn(move || -> Result<()> {
        let (mut client, _) = accept(&listener, "the container on the network host")?;
        Ok(client.write_all(b"welcome\n")?)
    });
    let ask = format!("nc host.docker.internal {port} </dev/null");
    let heard = machine.docker().ok(["run", "--rm", "--network", "host", "busybox", "sh", "-c", &ask])?;
    ensure!(heard == "welcome", "{heard}");
    served.join().expect("it does not panic")
}

/// What a container with every right over its own network is told.
fn as_admin(machine: &Machine, network: &str, script: &str) -> Result<Answer> {
    let run = ["run", "--rm", "--cap-add", "NET_ADMIN", "--network", network, "busybox", "sh", "-c", script];
    machine.docker().run(run)
}

/// The machine's own addresses on a network: of IPv4 and of IPv6.
fn gateways(machine: &Machine, network: &str) -> Result<(String, String)> {
    let told = machine.docker().ok(["network", "inspect", "-f", GATEWAYS, network])?;
    let (four, six) = told.trim().split_once(' ').with_context(|| format!("one gateway: {told}"))?;
    Ok((four.to_owned(), six.to_owned()))
}

/// What became of a container's ask for the host's port.
#[derive(Debug)]
struct Outcome {
    answer: Answer,
    /// Whether the host saw a connection.
    reached: bool,
}

impl Outcome {
    fn is_through(&self) -> bool {
        self.reached && self.answer.status == 0 && self.answer.out.contains("welcome")
    }

    fn is_shut(&self) -> bool {
        !self.reached && self.answer.status != 0 && !self.answer.out.contains("welcome")
    }
}

/// Runs a script that asks for a port of one of the host's addresses, which is `$port`, and then has its end.
fn ask_the_host(machine: &Machine, at: &str, network: &str, script: &str) -> Result<Outcome> {
    let listener = TcpListener::bind((at, 0))?;
    let port = listener.local_addr()?.port();
    let (asked, ended) = std::sync::mpsc::channel::<()>();
    let served = std::thread::spawn(move || -> Result<bool> {
        loop {
            if let Some(mut client) = accept_within(&listener, Duration::from_millis(100))? {
                client.write_all(b"welcome\n")?;
                return Ok(true);
            }
            // Whoever has not come by now is still in the line or does not come.
            if ended.try_recv().is_err_and(|error| error == TryRecvError::Disconnected) {
                return Ok(accept_within(&listener, Duration::ZERO)?.is_some());
            }
        }
    });
    let answer = as_admin(machine, network, &format!("port={port}; {script}"));
    drop(asked);
    let reached = served.join().expect("it does not panic")?;
    Ok(Outcome { answer: answer?, reached })
}

/// The host's loopback and another address of the host's: what containers call them, and how they set their ways.
const TO_HOST: [(&str, &str, &str); 2] = [("127.0.0.1", HOST, "ip -4"), (V6, V6, "ip -6")];

/// What gets out of one network does not get out of the other, which differs in nothing but that it is internal.
fn an_internal_network_is_shut_whatever_its_containers_do(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let _addresses = Addresses::add()?;
    for (network, internal) in [("m-outer", false), ("m-inner", true)] {
        docker.ok(["network", "create", "--ipv6", &format!("--internal={internal}"), network])?;
        let (four, six) = gateways(machine, network)?;
        let way_out = |ip: &str| {
            let gateway = if ip == "ip -6" { &six } else { &four };
            format!("{ip} route replace default via {gateway} dev eth0 && echo there is a way &&")
        };
        for (at, to, ip) in TO_HOST {
            let ask = format!("{} nc -w 5 {to} $port </dev/null", way_out(ip));
            let outcome = ask_the_host(machine, at, network, &ask)?;
            let as_wanted = if internal { outcome.is_shut() } else { outcome.is_through() };
            let is_tried = outcome.answer.out.contains("there is a way");
            ensure!(as_wanted && is_tried, "{to} from {network}: {outcome:?}");
        }
        let ask = format!("{} nslookup -timeout=5 host.docker.internal 192.0.0.253", way_out("ip -4"));
        let answer = as_admin(machine, network, &ask)?;
        ensure!((answer.status == 0) != internal, "{network}: {answer:?}");
        docker.ok(["network", "rm", network])?;
    }
    Ok(())
}

/// What gets out under the container's own address does not get out under another one, which the container has given itself.
fn nobody_sends_under_anothers_address(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let _addresses = Addresses::add()?;
    docker.ok(["network", "create", "--ipv6", "m-honest"])?;
    let (four, six) = gateways(machine, "m-honest")?;
    for ((at, to, ip), gateway, other) in
        [(TO_HOST[0], &four, "10.250.0.9/32"), (TO_HOST[1], &six, "fd00:250::9/128")]
    {
        let own = format!(
            "$({ip} addr show dev eth0 scope global | sed -n 's,.*inet6* \\([^/]*\\)/.*,\\1/{},p')",
            if ip == "ip -6" { 128 } else { 32 }
        );
        for (address, honest) in [(own.as_str(), true), (other, false)] {
            // On the loopback, where no address has to wait until nobody else is found to have it.
            let pose = format!(
                "a={address}; s=${{a%/*}}; {ip} addr add $a dev lo && {ip} route replace default via {gateway} dev eth0 src $s \
                 && {ip} route get {to} | grep -q \" src $s \" && echo asks as $s"
            );
            let ask = format!("{pose} && nc -w 5 {to} $port </dev/null");
            let outcome = ask_the_host(machine, at, "m-honest", &ask)?;
            let as_wanted = if honest { outcome.is_through() } else { outcome.is_shut() };
            let is_tried = outcome.answer.out.contains("asks as ");
            ensure!(as_wanted && is_tried, "{to} from {address}: {outcome:?}");
        }
    }
    docker.ok(["network", "rm", "m-honest"])?;
    Ok(())
}

/// Whatever rights and system calls a container has.
fn the_host_is_out_of_reach_by_vsock(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    // AF_VSOCK, SOCK_STREAM.
    let ask = "socket(my $s, 40, 1, 0) or die qq($!\\n); print qq(open\\n)";
    for options in [&[][..], &["--security-opt", "seccomp=unconfined"], &["--privileged", "--pid", "host"]] {
        let run = [&["run", "--rm"], options, &["debian:small", "perl", "-e", ask]].concat();
        let answer = machine.docker().run(run)?;
        ensure!(
            answer.status != 0 && answer.err.contains("Operation not permitted"),
            "{options:?}: {answer:?}"
        );
    }
    Ok(())
}

fn neighbours_meet_in_every_mode_of_ipvlan(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    for mode in ["l2", "l3", "l3s"] {
        let option = format!("ipvlan_mode={mode}");
        docker.ok(["network", "create", "-d", "ipvlan", "-o", &option, "m-ipvlan"])?;
        docker.ok(["run", "-d", "--name", "m-neighbour", "--network", "m-ipvlan", "web"])?;
        let ask = "wget -qO- http://m-neighbour/; ip route";
        let told = docker.ok(["run", "--rm", "--network", "m-ipvlan", "busybox", "sh", "-c", ask])?;
        let way_out = if mode == "l2" { "default via" } else { "default dev eth0" };
        ensure!(told.contains("web") && told.contains(way_out), "{mode}: {told}");
        docker.ok(["rm", "-f", "m-neighbour"])?;
        docker.ok(["network", "rm", "m-ipvlan"])?;
    }
    Ok(())
}

fn a_vlan_is_made_for_its_networks_and_goes_with_the_last(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let on_machine = |script: &str| {
        docker.ok(["run", "--rm", "--privileged", "--network", "host", "busybox", "sh", "-c", script])
    };
    on_machine("ip link add wire0 type dummy && ip link set wire0 up")?;
    docker.ok(["network", "create", "-d", "macvlan", "-o", "parent=wire0.10", "m-one"])?;
    docker.ok(["network", "create", "-d", "macvlan", "-o", "parent=wire0.10", "m-two"])?;
    let devices = "cd /sys/class/net; echo wire0*";
    ensure!(on_machine(devices)? == "wire0 wire0.10");
    docker.ok(["run", "-d", "--name", "m-tagged", "--network", "m-two", "web"])?;
    docker.ok(["network", "rm", "m-one"])?;
    let page =
        docker.ok(["run", "--rm", "--network", "m-two", "busybox", "wget", "-qO-", "http://m-tagged/"])?;
    ensure!(page.contains("web"), "{page}");
    docker.ok(["rm", "-f", "m-tagged"])?;
    docker.ok(["network", "rm", "m-two"])?;
    ensure!(on_machine(devices)? == "wire0", "the VLAN is left");
    on_machine("ip link del wire0")?;
    Ok(())
}

fn a_network_on_a_card_of_the_host_is_refused_with_what_there_is_instead(machine: &Machine) -> Result<()> {
    for (parent, why) in [
        ("enp3s0", "invalid subinterface vlan name enp3s0"),
        ("enp3s0.10", "-o parent interface was not found on the host: enp3s0"),
    ] {
        let option = format!("parent={parent}");
        let refused =
            machine.docker().run(["network", "create", "-d", "macvlan", "-o", &option, "on-card"])?;
        let told = refused.err.contains(why) && refused.err.contains("none of this computer's network cards");
        ensure!(refused.status == 1 && told, "{refused:?}");
    }
    Ok(())
}

fn a_network_makes_way_for_a_route_of_the_hosts(machine: &Machine) -> Result<()> {
    const USUAL: &str = "172.18.0.0/16";
    let docker = machine.docker();
    let made = |name: &str| -> Result<String> {
        docker.ok(["network", "create", name])?;
        docker.ok(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name])
    };
    let usual = made("m-usual")?;
    docker.ok(["network", "rm", "m-usual"])?;
    ensure!(usual == USUAL, "{usual}, while the host has no other way there");
    let _route = Route::add(USUAL)?;
    wait_for_route(machine, USUAL)?;
    let elsewhere = made("m-elsewhere")?;
    ensure!(elsewhere != USUAL, "it lies where the host has somebody else");
    let (port, served) = welcome()?;
    let ask = format!("nc {HOST} {port} </dev/null");
    let heard = docker.ok(["run", "--rm", "--network", "m-elsewhere", "busybox", "sh", "-c", &ask])?;
    ensure!(heard == "welcome", "from {elsewhere}: {heard}");
    served.join().expect("it does not panic")?;
    docker.ok(["network", "rm", "m-elsewhere"])?;
    Ok(())
}
