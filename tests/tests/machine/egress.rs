//! What leaves the machine, and what comes to it by UDP. All of the host's ends are on its loopback.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{Bounded, LIMIT, accept};
use caisson_tests::fixtures;
use caisson_tests::machine::{Machine, told};
use caisson_tests::subject::Subject;
use rustix::event::{PollFd, PollFlags, poll};

machine_cases![
    the_hosts_own_services_are_reached_and_its_closed_ports_refuse,
    the_host_gateway_is_the_real_host,
    a_connection_is_closed_by_either_side_on_its_own,
    a_thousand_connections_at_once_go_through,
    datagrams_reach_the_host_and_come_back,
    a_datagram_to_a_closed_port_of_the_host_is_refused,
    where_the_host_has_no_way_containers_are_told_so,
    what_is_the_machines_own_is_out_of_reach,
    packages_are_installed_over_the_internet,
    a_udp_port_is_published,
    what_a_container_publishes_is_reached_by_the_hosts_name,
    a_name_that_only_the_host_knows,
];

/// `host.docker.internal`.
pub(crate) const HOST: &str = "192.0.0.254";

pub(crate) fn listen() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    Ok((listener, port))
}

/// The next who comes; `None` if nobody does in this time.
pub(crate) fn accept_within(listener: &TcpListener, limit: Duration) -> Result<Option<TcpStream>> {
    let mut waits = [PollFd::new(listener, PollFlags::IN)];
    Ok(match poll(&mut waits, Some(&limit.try_into()?))? {
        0 => None,
        _ => Some(listener.accept()?.0),
    })
}

pub(crate) fn sh(machine: &Machine, script: &str) -> Result<caisson_tests::cli::Answer> {
    machine.docker().run(["run", "--rm", "busybox", "sh", "-c", script])
}

/// Somebody on the host's loopback who says `welcome` to the first who comes, and the port to come to.
pub(crate) fn welcome() -> Result<(String, thread::JoinHandle<Result<()>>)> {
    let (listener, port) = listen()?;
    let served = thread::spawn(move || -> Result<()> {
        let (mut client, _) = accept(&listener, "the container that is to be welcomed")?;
        Ok(client.write_all(b"welcome\n")?)
    });
    Ok((port, served))
}

fn the_hosts_own_services_are_reached_and_its_closed_ports_refuse(machine: &Machine) -> Result<()> {
    let (port, served) = welcome()?;
    ensure!(sh(machine, &format!("nc {HOST} {port} </dev/null"))?.ok()? == "welcome");
    served.join().expect("it does not panic")?;
    // The listener is gone with its thread.
    let refused = sh(machine, &format!("nc {HOST} {port} </dev/null"))?;
    ensure!(refused.status == 1 && refused.err.contains("Connection refused"), "{refused:?}");
    let named = sh(machine, "nslookup host.docker.internal")?.ok()?;
    ensure!(named.contains(HOST), "{named}");
    Ok(())
}

/// As compose files ask for it, whatever network the container is on.
fn the_host_gateway_is_the_real_host(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["network", "create", "gateways"])?;
    for network in ["bridge", "gateways", "host"] {
        let (port, served) = welcome()?;
        let asks = format!("nc real {port} </dev/null");
        let run = [
            "run",
            "--rm",
            "--network",
            network,
            "--add-host",
            "real:host-gateway",
            "busybox",
            "sh",
            "-c",
            &asks,
        ];
        ensure!(docker.ok(run)? == "welcome", "on the network {network}");
        served.join().expect("it does not panic")?;
    }
    docker.ok(["network", "rm", "gateways"])?;
    Ok(())
}

fn a_connection_is_closed_by_either_side_on_its_own(machine: &Machine) -> Result<()> {
    let (listener, port) = listen()?;
    let served = thread::spawn(move || -> Result<usize> {
        let (mut client, _) = accept(&listener, "the container that sends a file")?;
        let mut heard = Vec::new();
        client.read_to_end(&mut heard)?;
        client.write_all(&heard)?;
        Ok(heard.len())
    });
    let script = format!("head -c 3000000 /dev/urandom >/f; nc {HOST} {port} </f | cmp - /f && echo same");
    let answer = sh(machine, &script)?.ok()?;
    ensure!(answer == "same" && served.join().expect("it does not panic")? == 3_000_000, "{answer}");
    Ok(())
}

fn a_thousand_connections_at_once_go_through(machine: &Machine) -> Result<()> {
    const COUNT: usize = 1000;
    let (listener, port) = listen()?;
    let served = thread::spawn(move || -> Result<()> {
        // All of them are open before the first is answered.
        let clients = (1..=COUNT).map(|number| accept(&listener, &format!("connection {number} of {COUNT}")));
        for (mut client, _) in clients.collect::<Result<Vec<_>>>()? {
            client.write_all(b"all here\n")?;
        }
        Ok(())
    });
    let script =
        format!("for i in $(seq {COUNT}); do nc {HOST} {port} </dev/null & done | sort | uniq -c; wait");
    let answer = sh(machine, &script)?.ok()?;
    ensure!(answer.trim() == format!("{COUNT} all here"), "{answer}");
    served.join().expect("it does not panic")
}

/// A name server of the test's own, for whom each name has the address 203.0.113.9.
fn name_server() -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port().to_string();
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            let mut answer = message[..length].to_vec();
            answer[2] |= 0x80;
            // A question for an IPv4 address: its type stands before the class, at the end.
            if answer[length - 3] == 1 {
                answer[7] = 1;
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 9]);
            }
            // A client that is gone needs no answer.
            let _ = socket.send_to(&answer, client);
        }
    });
    Ok(port)
}

fn datagrams_reach_the_host_and_come_back(machine: &Machine) -> Result<()> {
    let port = name_server()?;
    let answer = sh(machine, &format!("nslookup some.name {HOST}:{port}"))?.ok()?;
    ensure!(answer.contains("203.0.113.9"), "{answer}");
    Ok(())
}

/// Sends a datagram, and prints the error that it comes back as.
const ASK_NOBODY: &str = "use Socket; my ($host, $port) = @ARGV; alarm 60; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; \
    connect($s, sockaddr_in($port, inet_aton($host))) or die $!; send($s, 'hello', 0) or die $!; \
    defined recv($s, my $d, 100, 0) and die 'answered'; print $!";

fn a_datagram_to_a_closed_port_of_the_host_is_refused(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    // The number is free again at once.
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port().to_string();
    let told = machine.docker().ok(["run", "--rm", "debian:small", "perl", "-e", ASK_NOBODY, HOST, &port])?;
    ensure!(told == "Connection refused", "{told}");
    Ok(())
}

/// A route of the host's that leads nowhere, as long as this lives.
struct Nowhere {
    kind: &'static str,
    to: &'static str,
}

impl Nowhere {
    fn add(kind: &'static str, to: &'static str) -> Result<Self> {
        let added = Self { kind, to };
        let output = added.change("replace")?;
        ensure!(output.status.success(), "{}", told(&output));
        Ok(added)
    }

    fn change(&self, verb: &str) -> Result<Output> {
        Command::new("ip").args(["route", verb, self.kind, self.to]).in_time()
    }
}

impl Drop for Nowhere {
    fn drop(&mut self) {
        // One that was not added cannot be taken away.
        let _ = self.change("del");
    }
}

/// Kinds of routes, addresses of documentation (RFC 5737, RFC 3849), and what comes of a connection: on the host, and in a container.
const NO_WAYS: [(&str, &str, ErrorKind, &str); 4] = [
    ("unreachable", "203.0.113.64", ErrorKind::HostUnreachable, "No route to host"),
    // No answer of IPv4's makes a kernel say that permission is denied (`icmp_err_convert` in net/ipv4/icmp.c).
    ("prohibit", "203.0.113.65", ErrorKind::PermissionDenied, "No route to host"),
    ("unreachable", "2001:db8:ca15::64", ErrorKind::HostUnreachable, "No route to host"),
    ("prohibit", "2001:db8:ca15::65", ErrorKind::PermissionDenied, "Permission denied"),
];

fn where_the_host_has_no_way_containers_are_told_so(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["network", "create", "--ipv6", "no-ways"])?;
    for (kind, to, on_host, in_container) in NO_WAYS {
        let _route = Nowhere::add(kind, to)?;
        let own = TcpStream::connect((to, 9)).expect_err("there is no way");
        ensure!(own.kind() == on_host, "{kind} {to}: the host says {own}");
        let ask = ["run", "--rm", "--network", "no-ways", "busybox", "nc", "-w", "30", to, "9"];
        let answer = docker.run(ask)?;
        let is_told = answer.status == 1 && answer.err.contains(in_container);
        ensure!(is_told, "{kind} {to}: {answer:?}");
    }
    docker.ok(["network", "rm", "no-ways"])?;
    Ok(())
}

/// The machine's own addresses on a network, each with a space behind it: IPv4's before IPv6's.
pub(crate) const GATEWAYS: &str = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";

/// The address of the machine's own that containers of the default network see.
pub(crate) fn bridge(machine: &Machine) -> Result<String> {
    machine.docker().ok(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"])
}

fn what_is_the_machines_own_is_out_of_reach(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["network", "create", "--ipv6", "shuts"])?;
    let gateways = docker.ok(["network", "inspect", "-f", GATEWAYS, "shuts"])?;
    let (four, six) = gateways.trim().split_once(' ').context("one gateway")?;
    let default = bridge(machine)?;
    // The proxy, at the machine's own address and at the bridges'.
    for (network, address) in
        [("bridge", "192.0.0.253"), ("bridge", &default), ("shuts", four), ("shuts", six)]
    {
        let ask = ["run", "--rm", "--network", network, "busybox", "nc", "-w", "5", address, "15001"];
        let answer = docker.run(ask)?;
        let is_shut = answer.status == 1 && answer.err.contains("Connection refused");
        ensure!(is_shut, "{address} from {network}: {answer:?}");
    }
    docker.ok(["network", "rm", "shuts"])?;
    Ok(())
}

pub(crate) fn import_debian(machine: &Machine) -> Result<()> {
    if machine.docker().run(["inspect", "--type", "image", "debian:small"])?.status != 0 {
        let archive = fixtures::debian()?;
        machine.docker().ok(["import", archive.to_str().context("a path in UTF-8")?, "debian:small"])?;
    }
    Ok(())
}

fn packages_are_installed_over_the_internet(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    // The address of a host's server, for curl to prove itself with.
    let (listener, port) = listen()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            serve_page(client);
        }
    });
    let script = format!(
        "apt-get update && apt-get install -y --no-install-recommends curl && curl -s http://{HOST}:{port}/"
    );
    let answer = machine.docker().run(["run", "--rm", "debian:small", "sh", "-ec", &script])?;
    ensure!(answer.status == 0 && answer.out.ends_with("\nfetched"), "{answer:?}");
    Ok(())
}

/// Answers one request; a client that is gone needs no answer.
fn serve_page(mut client: TcpStream) {
    let mut request = [0; 4096];
    let _ = client.read(&mut request);
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nfetched");
}

/// Says back what it hears.
const ECHO: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 7) or die; \
    $| = 1; print qq(ready\\n); while (defined $s->recv(my $d, 65536)) { $s->send($d) }";

fn a_udp_port_is_published(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    let docker = machine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        "127.0.0.1::7/udp",
        "debian:small",
        "perl",
        "-e",
        ECHO,
    ])?;
    let port = docker.ok(["port", "echo", "7/udp"])?;
    let clients = (0..3).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    let mut ports = HashSet::new();
    for (n, client) in clients.iter().enumerate() {
        ensure!(ports.insert(client.local_addr()?.port()));
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        let datagram = vec![n as u8; 1 + 400 * n];
        let mut heard = vec![0; 2000];
        // What is sent before the program listens is lost, as datagrams are.
        let answered = (0..LIMIT.as_secs()).find_map(|_| {
            client.send_to(&datagram, &port).ok()?;
            client.recv_from(&mut heard).ok()
        });
        let (length, from) = answered.context("no answer")?;
        ensure!(heard[..length] == datagram && from.to_string() == port, "{length} bytes from {from}");
    }
    docker.ok(["rm", "-f", "echo"])?;
    UdpSocket::bind(&port).context("the port is not free again")?;
    Ok(())
}

/// Sends a datagram each second until one comes back, and prints it.
const ASK_ECHO: &str = "use IO::Socket::INET; use IO::Select; alarm 120; \
    my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die qq($@); \
    do { $s->send('there and back') } until IO::Select->new($s)->can_read(1); $s->recv(my $d, 100) // die $!; print $d";

/// Out of the machine to the host's port, and back in to another container or to the same.
fn what_a_container_publishes_is_reached_by_the_hosts_name(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    let docker = machine.docker();
    docker.ok(["network", "create", "hairpin"])?;
    for publish in ["127.0.0.1::80", "80"] {
        docker.ok(["run", "-d", "--name", "hair", "--network", "hairpin", "-p", publish, "web"])?;
        let told = docker.ok(["port", "hair", "80/tcp"])?;
        let port = told.lines().next().and_then(|line| line.rsplit(':').next()).context("no port")?;
        machine.fetch(&format!("http://127.0.0.1:{port}/"))?;
        let url = format!("http://host.docker.internal:{port}/");
        let ask = ["wget", "-qO-", &url];
        for network in ["bridge", "hairpin", "host"] {
            let page = docker.ok([&["run", "--rm", "--network", network, "busybox"], &ask[..]].concat())?;
            ensure!(page.contains("web"), "{publish} from {network}: {page}");
        }
        let page = docker.ok([&["exec", "hair"], &ask[..]].concat())?;
        ensure!(page.contains("web"), "{publish} by itself: {page}");
        docker.ok(["rm", "-f", "hair"])?;
    }
    let run = ["run", "-d", "--name", "hair", "-p", "127.0.0.1::7/udp", "debian:small", "perl", "-e", ECHO];
    docker.ok(run)?;
    let told = docker.ok(["port", "hair", "7/udp"])?;
    let port = told.rsplit(':').next().context("no port")?;
    let ask = ["debian:small", "perl", "-e", ASK_ECHO, "host.docker.internal", port];
    for network in ["bridge", "hairpin"] {
        let heard = docker.ok([&["run", "--rm", "--network", network], &ask[..]].concat())?;
        ensure!(heard == "there and back", "from {network}: {heard}");
    }
    docker.ok(["rm", "-f", "hair"])?;
    docker.ok(["network", "rm", "hairpin"])?;
    Ok(())
}

/// Asks the container's name server by TCP for the IPv4 address of a name, and prints the server and it (RFC 1035, section 4.2.2).
const ASK_BY_TCP: &str = "use IO::Socket::INET; open my $f, '/etc/resolv.conf' or die; \
    my ($server) = map { /^nameserver (\\S+)/ ? $1 : () } <$f>; \
    my $q = pack('n6', 7, 0x100, 1, 0, 0, 0) . join('', map { pack 'C/a*', $_ } split /\\./, $ARGV[0]) . pack('Cn2', 0, 1, 1); \
    my $s = IO::Socket::INET->new(PeerAddr => $server, PeerPort => 53) or die qq($server: $!); print $s pack('n/a*', $q); \
    $s->flush; read $s, my $l, 2; read $s, my $a, unpack('n', $l); print qq($server ), join '.', unpack 'C4', substr $a, -4";

/// The daemon's own mount namespace has names in its hosts file that no server knows.
fn a_name_that_only_the_host_knows(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    let hosts = machine.home().join("hosts");
    std::fs::write(
        &hosts,
        "127.0.0.1 localhost\n203.0.113.77 only-here.test\n203.0.113.78 also-here.test\n2001:db8::77 only-here.test\n",
    )?;
    machine.ok(&["stop"])?;
    let caisson = machine.caisson(&[]);
    let mut start = Command::new("unshare");
    let output = machine
        .as_user(&mut start)
        .args(["--mount", "sh", "-ec", "mount --bind \"$1\" /etc/hosts; exec \"$2\" start", "sh"])
        .arg(&hosts)
        .arg(caisson.get_program())
        .in_time()?;
    ensure!(output.status.success(), "{}", told(&output));
    let asked = names_of_the_host(machine);
    machine.ok(&["stop"])?;
    machine.ok(&["start"])?;
    asked
}

/// From both kinds of network, by UDP and by TCP: on one that a user made, the container's own name server hands on what it is asked.
fn names_of_the_host(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["network", "create", "asks"])?;
    for (network, server) in [("bridge", "192.0.0.253"), ("asks", "127.0.0.11")] {
        let ask = |image: &str, program: &[&str]| {
            docker.ok([&["run", "--rm", "--network", network, image], program].concat())
        };
        let by_tcp = |name: &str, address: &str| -> Result<()> {
            let told = ask("debian:small", &["perl", "-e", ASK_BY_TCP, name])?;
            ensure!(told == format!("{server} {address}"), "{name} on {network}: {told}");
            Ok(())
        };
        // Before anybody has asked by UDP, whose answer the name server keeps.
        by_tcp("also-here.test", "203.0.113.78")?;
        for (name, address) in [
            ("only-here.test", "203.0.113.77"),
            ("host.docker.internal", HOST),
            ("gateway.docker.internal", HOST),
        ] {
            let told = ask("busybox", &["nslookup", "-type=a", name])?;
            let lines = [format!("Server:\t\t{server}"), format!("Address: {address}")];
            let is_told = lines.iter().all(|wanted| told.lines().any(|line| line == wanted));
            ensure!(is_told, "{name} on {network}: {told}");
            by_tcp(name, address)?;
        }
        let six = ask("busybox", &["nslookup", "-type=aaaa", "only-here.test"])?;
        ensure!(six.contains("2001:db8::77"), "{network}: {six}");
    }
    docker.ok(["network", "rm", "asks"])?;
    Ok(())
}
