//! Many flows, slow ones, those that nobody answers, and those of IPv6. All of the host's ends are on its loopback.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{Bounded, LIMIT, accept, until};
use caisson_tests::machine::{Machine, told};
use caisson_tests::subject::Subject;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::egress::{HOST, bridge, import_debian, listen, sh};

machine_cases![
    a_port_that_nobody_answers_stays_pending_and_holds_up_nobody,
    a_host_that_reads_slowly_is_waited_for_and_holds_up_nobody,
    a_container_that_reads_nothing_is_waited_for_and_holds_up_nobody,
    ten_thousand_flows_take_a_file_each_and_end_with_their_containers,
    ipv6_and_pings_leave_the_machine,
    a_published_port_shows_the_container_its_client,
];

/// A port of the host's that answers nobody: its line is full, so the kernel drops who comes.
struct Filtered {
    address: SocketAddr,
    _listener: TcpListener,
    _line: TcpStream,
}

impl Filtered {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        rustix::net::listen(&listener, 0)?;
        let address = listener.local_addr()?;
        let line = TcpStream::connect(address)?;
        let late = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        ensure!(
            late.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut),
            "the line is not full"
        );
        Ok(Self { address, _listener: listener, _line: line })
    }
}

/// Says welcome to each who comes.
fn welcoming() -> Result<String> {
    let (listener, port) = listen()?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // One that is gone needs no welcome.
            let _ = client.write_all(b"welcome\n");
        }
    });
    Ok(port)
}

fn is_served(machine: &Machine, port: &str) -> Result<()> {
    let answer =
        sh(machine, &format!("nc {HOST} {port} </dev/null && nslookup host.docker.internal"))?.ok()?;
    ensure!(answer.starts_with("welcome") && answer.contains(HOST), "{answer}");
    Ok(())
}

/// Begins as many connections as it is told to, waits for none of them, and says when all are begun.
const CROWD: &str = "use Socket qw(:DEFAULT SOCK_NONBLOCK); my ($host, $port, $count) = @ARGV; my @all; $| = 1; \
    for (1 .. $count) { socket(my $s, PF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) or die $!; \
    connect($s, sockaddr_in($port, inet_aton($host))); push @all, $s } print qq(begun\\n); sleep";

/// How much memory the daemon holds of its own, in KiB. It has the machine's mapped, too.
fn daemon_kib(machine: &Machine) -> Result<u64> {
    let daemon = *machine.processes("caisson-host")?.first().context("no daemon")?;
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Waits for a container's first line.
pub(crate) fn first_line(machine: &Machine, container: &str) -> Result<String> {
    let mut logs = machine.docker().spawn(["logs", "-f", container])?;
    let mut line = String::new();
    let read = BufReader::new(logs.stdout.take().context("it has an output")?).read_line(&mut line);
    logs.kill()?;
    logs.wait()?;
    ensure!(read? > 0, "the log of {container} ended without a line");
    Ok(line)
}

fn a_port_that_nobody_answers_stays_pending_and_holds_up_nobody(machine: &Machine) -> Result<()> {
    /// More than one container may have pending.
    const COUNT: usize = 5200;
    import_debian(machine)?;
    let (filtered, open) = (Filtered::new()?, welcoming()?);
    let port = filtered.address.port().to_string();
    let late = sh(machine, &format!("nc -w 3 {HOST} {port} </dev/null"))?;
    ensure!(late.status == 1 && late.err.contains("timed out"), "{late:?}");
    let before = daemon_kib(machine)?;
    let count = COUNT.to_string();
    machine.docker().ok([
        "run",
        "-d",
        "--name",
        "crowd",
        "debian:small",
        "perl",
        "-e",
        CROWD,
        HOST,
        &port,
        &count,
    ])?;
    ensure!(first_line(machine, "crowd")? == "begun\n");
    is_served(machine, &open)?;
    let grown = daemon_kib(machine)?.saturating_sub(before);
    println!("{COUNT} pending connections: the daemon holds {grown} KiB more");
    ensure!(grown < 160 << 10, "{grown} KiB");
    machine.docker().ok(["rm", "-f", "crowd"])?;
    Ok(())
}

/// Opens connections and writes to all of them until none takes any more for a second; then says how many bytes they took.
const FLOOD: &str = "use IO::Socket::INET; use IO::Select; my ($host, $port, $count) = @ARGV; $| = 1; my $sent = 0; \
    my $all = IO::Select->new; for (1 .. $count) { my $s = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) \
    or die $!; $s->blocking(0); $all->add($s) } my $d = 'x' x 65536; \
    while (my @w = $all->can_write(1)) { for (@w) { $sent += syswrite($_, $d) || 0 } } print qq(took $sent\\n); sleep";

fn a_host_that_reads_slowly_is_waited_for_and_holds_up_nobody(machine: &Machine) -> Result<()> {
    const FLOWS: usize = 50;
    import_debian(machine)?;
    let (listener, port) = listen()?;
    let open = welcoming()?;
    let (accepted, hold) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // They are held until the test is over, and never read from.
            if accepted.send(client).is_err() {
                return;
            }
        }
    });
    let (before, count) = (daemon_kib(machine)?, FLOWS.to_string());
    machine.docker().ok([
        "run",
        "-d",
        "--name",
        "flood",
        "debian:small",
        "perl",
        "-e",
        FLOOD,
        HOST,
        &port,
        &count,
    ])?;
    let log = first_line(machine, "flood")?;
    let grown = daemon_kib(machine)?.saturating_sub(before);
    ensure!(log.starts_with("took "), "{log}");
    println!("{FLOWS} connections that nobody reads from: {log}; the daemon holds {grown} KiB more");
    // What lies between is the machine's, the daemon's and the kernel's buffers of each; the daemon's are what it holds of the machine's and a
    // chunk, 256 KiB each.
    ensure!(grown < FLOWS as u64 * 1024, "{grown} KiB");
    is_served(machine, &open)?;
    machine.docker().ok(["rm", "-f", "flood"])?;
    ensure!(hold.try_iter().count() == FLOWS);
    Ok(())
}

/// Opens so many connections, one after the other, says that they are open, and keeps them.
const KEEP: &str = "use Socket; open STDERR, '>&', STDOUT; my ($host, $port, $count) = @ARGV; my @all; $| = 1; \
    for (1 .. $count) { socket(my $s, PF_INET, SOCK_STREAM, 0) or die qq($_: $!); \
    connect($s, sockaddr_in($port, inet_aton($host))) or die qq($_: $!); push @all, $s } print qq(open\\n); sleep";

/// How much memory the machine has left for programs, in KiB.
fn machine_kib(machine: &Machine) -> Result<u64> {
    let line = sh(machine, "grep MemAvailable /proc/meminfo")?.ok()?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

/// Writes until nothing is taken for a second; how many bytes were.
fn fill(mut connection: &TcpStream) -> Result<usize> {
    connection.set_write_timeout(Some(Duration::from_secs(1)))?;
    let (data, mut taken) = ([7; 1 << 16], 0);
    loop {
        match connection.write(&data) {
            Ok(written) => taken += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
            Err(error) => return Err(error.into()),
        }
    }
}

fn a_container_that_reads_nothing_is_waited_for_and_holds_up_nobody(machine: &Machine) -> Result<()> {
    const FLOWS: usize = 200;
    import_debian(machine)?;
    let ((listener, port), open) = (listen()?, welcoming()?);
    let filled = thread::spawn(move || -> Result<(Vec<TcpStream>, usize)> {
        let accepted = |number| Ok(accept(&listener, &format!("connection {number} of {FLOWS}"))?.0);
        let all = (1..=FLOWS).map(accepted).collect::<Result<Vec<_>>>()?;
        let taken = thread::scope(|scope| -> Result<usize> {
            let writers: Vec<_> = all.iter().map(|connection| scope.spawn(|| fill(connection))).collect();
            writers.into_iter().map(|writer| writer.join().expect("it does not panic")).sum()
        })?;
        Ok((all, taken))
    });
    let (daemon, left) = (daemon_kib(machine)?, machine_kib(machine)?);
    let program = ["perl", "-e", KEEP, HOST, &port, &FLOWS.to_string()];
    machine.docker().ok([&["run", "-d", "--name", "deaf", "debian:small"][..], &program].concat())?;
    let (connections, taken) = filled.join().expect("it does not panic")?;
    let grown = daemon_kib(machine)?.saturating_sub(daemon);
    let used = left.saturating_sub(machine_kib(machine)?);
    println!(
        "{FLOWS} connections that nobody reads from took {taken} bytes; the daemon holds {grown} KiB more, the machine {used} KiB"
    );
    // A chunk and what is held for the machine, 256 KiB each; there the same, and what the kernel holds of a connection.
    ensure!(grown < FLOWS as u64 * 1024, "the daemon: {grown} KiB");
    ensure!(used < FLOWS as u64 * 2048, "the machine: {used} KiB");
    is_served(machine, &open)?;
    machine.docker().ok(["rm", "-f", "deaf"])?;
    let give_up = Instant::now() + NOTICED;
    connections.into_iter().try_for_each(|connection| is_reset(connection, give_up).map(drop))
}

/// How long it may take until the end of a container has ended its connections. Of one whose end was lost on the way the machine would notice
/// within two minutes (`keepalive` of caisson-egress); an emulated one has much to do then.
const NOTICED: Duration = Duration::from_secs(300);

fn ten_thousand_flows_take_a_file_each_and_end_with_their_containers(machine: &Machine) -> Result<()> {
    /// One container may not have all of them.
    const CONTAINERS: [&str; 2] = ["keep1", "keep2"];
    const EACH: usize = 5000;
    const ALL: usize = CONTAINERS.len() * EACH;
    raise_file_limit(ALL as u64 + 500)?;
    import_debian(machine)?;
    let ((listener, port), welcome) = (listen()?, welcoming()?);
    let accepted = thread::spawn(move || -> Result<Vec<TcpStream>> {
        (1..=ALL).map(|number| Ok(accept(&listener, &format!("connection {number} of {ALL}"))?.0)).collect()
    });
    let (before, each) = (daemon_files(machine)?, EACH.to_string());
    for name in CONTAINERS {
        let program = ["perl", "-e", KEEP, HOST, &port, &each];
        machine.docker().ok([&["run", "-d", "--name", name, "debian:small"][..], &program].concat())?;
    }
    for name in CONTAINERS {
        let log = first_line(machine, name)?;
        ensure!(log == "open\n", "{name}: {log}");
    }
    let connections = accepted.join().expect("it does not panic")?;
    let open = daemon_files(machine)?;
    let grown = open.saturating_sub(before);
    println!("{ALL} connections at once: the daemon has {grown} files more");
    // The docker commands' own come and go.
    ensure!((ALL - 100..ALL + 100).contains(&grown), "{grown}");
    is_served(machine, &welcome)?;

    CONTAINERS.iter().try_for_each(|name| machine.docker().ok(["rm", "-f", name]).map(drop))?;
    let (killed, give_up) = (Instant::now(), Instant::now() + NOTICED);
    let mut noticed = 0;
    for (number, connection) in connections.into_iter().enumerate() {
        let reset = is_reset(connection, give_up);
        noticed += usize::from(reset.with_context(|| format!("connection {number} did not end"))?);
    }
    println!("their containers gone, {noticed} were reset; all had ended after {:?}", killed.elapsed());
    until("the connections' files are closed", || {
        let left = daemon_files(machine)?;
        Ok((left + ALL < open + 100).then_some(()))
    })?;
    is_served(machine, &welcome)
}

/// Waits for a connection's end: whether the machine has noticed by itself that its container is gone, and was not told by that one's kernel.
fn is_reset(mut connection: TcpStream, give_up: Instant) -> Result<bool> {
    let left = give_up.saturating_duration_since(Instant::now());
    // None at all would be no limit.
    connection.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    match connection.read(&mut [0]) {
        Ok(length) => {
            ensure!(length == 0, "it was written to");
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// How many files the daemon has open.
fn daemon_files(machine: &Machine) -> Result<usize> {
    let daemon = *machine.processes("caisson-host")?.first().context("no daemon")?;
    Ok(std::fs::read_dir(format!("/proc/{daemon}/fd"))?.count())
}

/// Lets this process have so many files.
fn raise_file_limit(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// Addresses of documentation (RFC 5737, RFC 3849) that the host has on its loopback as long as this lives.
pub(crate) struct Addresses;

const V4: &str = "203.0.113.5";
pub(crate) const V6: &str = "2001:db8:ca15::5";

impl Addresses {
    pub(crate) fn add() -> Result<Self> {
        let added = Self;
        Self::change("replace")?;
        Ok(added)
    }

    fn change(verb: &str) -> Result<()> {
        for address in [format!("{V4}/32"), format!("{V6}/128")] {
            let output = Command::new("ip").args(["address", verb, &address, "dev", "lo"]).in_time()?;
            ensure!(output.status.success(), "{}", told(&output));
        }
        Ok(())
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // One that was not added cannot be taken away.
        let _ = Self::change("del");
    }
}

/// Sends a datagram and prints what comes back.
const ASK_V6: &str = "use Socket qw(:all); socket(my $s, PF_INET6, SOCK_DGRAM, 0) or die $!; alarm 60; \
    connect($s, pack_sockaddr_in6($ARGV[1], inet_pton(AF_INET6, $ARGV[0]))) or die $!; send($s, 'hello', 0) or die $!; \
    defined recv($s, my $d, 100, 0) or die $!; print $d";

fn ipv6_and_pings_leave_the_machine(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    let _addresses = Addresses::add()?;
    let docker = machine.docker();
    docker.ok(["network", "create", "--ipv6", "six"])?;
    let run = |image: &str, program: &[&str]| {
        let args = ["run", "--rm", "--network", "six", image].into_iter().chain(program.iter().copied());
        docker.run(args)
    };
    let listener = TcpListener::bind((V6, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let served = thread::spawn(move || -> Result<SocketAddr> {
        let (mut client, from) = accept(&listener, "the container's ping")?;
        let mut heard = String::new();
        client.read_to_string(&mut heard)?;
        ensure!(heard == "ping\n", "{heard}");
        client.write_all(b"pong\n")?;
        Ok(from)
    });
    let answer = run("busybox", &["sh", "-c", &format!("echo ping | nc {V6} {port}")])?.ok()?;
    ensure!(answer == "pong" && served.join().expect("it does not panic")?.is_ipv6(), "{answer}");
    // The listener is gone with its thread.
    let refused = run("busybox", &["nc", V6, &port])?;
    ensure!(refused.status == 1 && refused.err.contains("Connection refused"), "{refused:?}");

    let socket = UdpSocket::bind((V6, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    let port = socket.local_addr()?.port().to_string();
    let echoed = thread::spawn(move || -> Result<()> {
        let mut datagram = [0; 100];
        let (length, from) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..length], from)?;
        Ok(())
    });
    ensure!(run("debian:small", &["perl", "-e", ASK_V6, V6, &port])?.ok()? == "hello");
    echoed.join().expect("it does not panic")?;

    for address in [V4, V6] {
        let pinged = run("busybox", &["ping", "-c", "1", "-W", "30", address])?;
        ensure!(pinged.status == 0 && pinged.out.contains("1 packets received"), "{pinged:?}");
    }
    docker.ok(["network", "rm", "six"])?;
    Ok(())
}

/// Says to each client, by TCP and by UDP, who it is.
const WHO: &str = "use IO::Socket::INET; my $u = IO::Socket::INET->new(Proto => 'udp', LocalPort => 9) or die; \
    if (!fork) { while (defined $u->recv(my $d, 10)) { $u->send($u->peerhost) } } \
    my $l = IO::Socket::INET->new(LocalPort => 9, Listen => 9) or die; while (my $c = $l->accept) { print $c $c->peerhost }";

/// Asks until there is an answer: what comes before the program listens is dropped.
fn until_answered(ask: impl Fn() -> Result<String>) -> Result<String> {
    let until = Instant::now() + LIMIT;
    loop {
        match ask() {
            Ok(answer) if !answer.is_empty() => return Ok(answer),
            last if Instant::now() > until => return last.context("no answer"),
            // There is no event for that: the next attempt is the only way to know.
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn a_published_port_shows_the_container_its_client(machine: &Machine) -> Result<()> {
    const PORT: u16 = 28095;
    import_debian(machine)?;
    let _addresses = Addresses::add()?;
    let docker = machine.docker();
    let (tcp, udp) = (format!("{PORT}:9"), format!("{PORT}:9/udp"));
    docker.ok(["run", "-d", "--name", "who", "-p", &tcp, "-p", &udp, "debian:small", "perl", "-e", WHO])?;
    let by_tcp = |host: &str| {
        let mut client = TcpStream::connect((host, PORT))?;
        client.set_read_timeout(Some(LIMIT))?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let by_udp = |host: &str| {
        let client = UdpSocket::bind((host, 0))?;
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        client.send_to(b"?", (host, PORT))?;
        let mut answer = [0; 100];
        let length = client.recv(&mut answer)?;
        Ok(String::from_utf8(answer[..length].to_vec())?)
    };
    let bridge = bridge(machine)?;
    for (host, expected) in [(V4, V4), ("127.0.0.1", bridge.as_str())] {
        let told = (until_answered(|| by_tcp(host))?, until_answered(|| by_udp(host))?);
        ensure!(told == (expected.to_owned(), expected.to_owned()), "a client at {host} is seen as {told:?}");
    }
    docker.ok(["rm", "-f", "who"])?;
    Ok(())
}
