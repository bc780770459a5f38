//! Published ports.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::bounded::{self, Bounded};
use crate::cases;
use crate::subject::Subject;

cases![
    a_published_port_answers_on_the_host,
    a_port_closes_with_its_container_and_comes_back,
    a_port_in_use_fails_the_start_by_its_number,
    an_ephemeral_port_is_told,
    a_port_has_several_bindings_and_each_is_told,
    a_range_gives_the_first_number_that_is_free,
    all_exposed_ports_are_published,
    a_range_of_ports_is_published,
    a_published_port_answers_containers_at_their_gateway,
    a_port_of_one_loopback_address_is_closed_to_containers,
    a_port_with_nobody_behind_it_is_closed_at_once,
    a_port_that_is_taken_leaves_nothing_behind,
    a_port_of_a_process_of_the_hosts_is_refused_until_it_ends,
    a_udp_port_answers_from_the_address_that_was_asked,
    a_port_is_reached_by_ipv6_from_here_and_from_its_network,
];

/// What only Caisson is held to: dockerd starts a process for each address of each port.
pub const OURS: &[crate::subject::Case] = &[crate::subject::Case {
    name: "five_hundred_ports_are_published_at_once",
    run: five_hundred_ports_are_published_at_once,
}];

fn published(on: &dyn Subject, container: &str) -> Result<u16> {
    let told = on.docker().ok(["port", container, "80/tcp"])?;
    let port = told.lines().next().and_then(|line| line.rsplit(':').next()).context("no port told")?;
    Ok(port.parse()?)
}

fn a_published_port_answers_on_the_host(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "web", "-p", "28080:80", "web"])?;
    let page = on.fetch("http://127.0.0.1:28080/")?;
    ensure!(page.contains("web"), "{page}");
    docker.ok(["rm", "-f", "web"])?;
    Ok(())
}

fn a_port_closes_with_its_container_and_comes_back(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "web-again", "-p", "127.0.0.1:28081:80", "web"])?;
    on.fetch("http://127.0.0.1:28081/")?;
    docker.ok(["stop", "-t", "0", "web-again"])?;
    ensure!(on.is_closed("http://127.0.0.1:28081/")?, "a stopped container's port still answers");
    docker.ok(["start", "web-again"])?;
    on.fetch("http://127.0.0.1:28081/")?;
    docker.ok(["rm", "-f", "web-again"])?;
    ensure!(on.is_closed("http://127.0.0.1:28081/")?, "a removed container's port still answers");
    Ok(())
}

fn a_port_in_use_fails_the_start_by_its_number(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "first", "-p", "127.0.0.1:28082:80", "web"])?;
    let answer = docker.run(["run", "-d", "--name", "second", "-p", "127.0.0.1:28082:80", "web"])?;
    ensure!(answer.status == 125, "{answer:?}");
    ensure!(
        answer.err.contains("driver failed programming external connectivity on endpoint second"),
        "{}",
        answer.err
    );
    ensure!(answer.err.contains("28082"), "{}", answer.err);
    on.fetch("http://127.0.0.1:28082/")?;
    docker.ok(["rm", "-f", "first", "second"])?;
    Ok(())
}

fn an_ephemeral_port_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "ephemeral", "-p", "80", "web"])?;
    let port = published(on, "ephemeral")?;
    on.fetch(&format!("http://127.0.0.1:{port}/"))?;
    docker.ok(["rm", "-f", "ephemeral"])?;
    Ok(())
}

fn a_port_has_several_bindings_and_each_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let ports = ["-p", "127.0.0.1:28083:80", "-p", "[::1]:28084:80", "-p", "28085:80", "-p", "28086:90/udp"];
    docker.ok([&["run", "-d", "--name", "many-doors"], &ports[..], &["web"]].concat())?;
    let told = docker.ok(["port", "many-doors"])?;
    let mut told: Vec<&str> = told.lines().collect();
    told.sort_unstable();
    let expected = [
        "80/tcp -> 0.0.0.0:28085",
        "80/tcp -> 127.0.0.1:28083",
        "80/tcp -> [::1]:28084",
        "80/tcp -> [::]:28085",
        "90/udp -> 0.0.0.0:28086",
        "90/udp -> [::]:28086",
    ];
    ensure!(told == expected, "{told:?}");
    for url in
        ["http://127.0.0.1:28083/", "http://[::1]:28084/", "http://127.0.0.1:28085/", "http://[::1]:28085/"]
    {
        ensure!(on.fetch(url)?.contains("web"), "{url}");
    }
    ensure!(on.is_closed("http://[::1]:28083/")?, "an address that was not asked for");
    docker.ok(["rm", "-f", "many-doors"])?;
    Ok(())
}

fn a_range_gives_the_first_number_that_is_free(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (name, number) in [("first-of-range", 28087), ("second-of-range", 28088)] {
        docker.ok(["run", "-d", "--name", name, "-p", "127.0.0.1:28087-28088:80", "web"])?;
        ensure!(published(on, name)? == number, "{name}");
    }
    let full =
        docker.run(["run", "-d", "--name", "third-of-range", "-p", "127.0.0.1:28087-28088:80", "web"])?;
    ensure!(full.status == 125 && full.err.contains(": all ports are allocated"), "{full:?}");
    docker.ok(["rm", "-f", "first-of-range", "second-of-range", "third-of-range"])?;
    Ok(())
}

fn all_exposed_ports_are_published(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "all-exposed",
        "-P",
        "--expose",
        "81-82",
        "--expose",
        "53/udp",
        "web",
    ])?;
    let told = docker.ok(["port", "all-exposed"])?;
    for port in ["80/tcp", "81/tcp", "82/tcp", "53/udp"] {
        ensure!(told.contains(&format!("{port} -> 0.0.0.0:")), "{port}: {told}");
    }
    let port = published(on, "all-exposed")?;
    on.fetch(&format!("http://127.0.0.1:{port}/"))?;
    docker.ok(["rm", "-f", "all-exposed"])?;
    Ok(())
}

fn a_range_of_ports_is_published(on: &dyn Subject) -> Result<()> {
    range_is_published(on, "range", 28200, 20)
}

fn five_hundred_ports_are_published_at_once(on: &dyn Subject) -> Result<()> {
    range_is_published(on, "five-hundred", 28300, 500)
}

fn range_is_published(on: &dyn Subject, name: &str, first: u16, count: u16) -> Result<()> {
    let docker = on.docker();
    let last = first + count - 1;
    let range = format!("127.0.0.1:{first}-{last}:{first}-{last}");
    // Each port has a page of its own, which says its number.
    let serve = format!(
        "for port in $(seq {first} {last}); do mkdir /$port; echo $port >/$port/index.html; httpd -p $port -h /$port; done; \
         exec sleep 1000"
    );
    docker.ok(["run", "-d", "--name", name, "-p", &range, "web", "sh", "-c", &serve])?;
    // The last one to listen is waited for, so that all others answer at once.
    on.fetch(&format!("http://127.0.0.1:{last}/"))?;
    let pages = on.fetch(&format!("http://127.0.0.1:[{first}-{last}]/"))?;
    let numbers = (first..=last).map(|port| port.to_string());
    ensure!(pages.lines().eq(numbers), "each port has its own page: {pages}");
    let told = docker.ok(["port", name])?;
    ensure!(told.lines().count() == usize::from(count), "{told}");
    docker.ok(["rm", "-f", name])?;
    for port in [first, first + count / 2, last] {
        ensure!(on.is_closed(&format!("http://127.0.0.1:{port}/"))?, "{port} outlived its container");
    }
    Ok(())
}

/// From its own network, from another one, and by itself.
fn a_published_port_answers_containers_at_their_gateway(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "p-own"])?;
    docker.ok(["network", "create", "p-other"])?;
    docker.ok(["run", "-d", "--name", "p-server", "--network", "p-own", "-p", "28089:80", "web"])?;
    on.fetch("http://127.0.0.1:28089/")?;
    let gateway = |network: &str| {
        docker.ok(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network])
    };
    let ask = |gateway: &str| format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {gateway} 28089");
    for network in ["p-own", "p-other"] {
        let ask = ask(&gateway(network)?);
        let page = docker.ok(["run", "--rm", "--network", network, "busybox", "sh", "-c", &ask])?;
        ensure!(page.contains("web"), "from {network}: {page}");
    }
    let page = docker.ok(["exec", "p-server", "sh", "-c", &ask(&gateway("p-own")?)])?;
    ensure!(page.contains("web"), "by itself: {page}");
    docker.ok(["rm", "-f", "p-server"])?;
    docker.ok(["network", "rm", "p-own", "p-other"])?;
    Ok(())
}

/// How a container asks the other end of its network for its loopback address.
struct Detour {
    loopback: &'static str,
    /// What `-p` and a URL call it.
    host: &'static str,
    ip: &'static str,
    /// Where `inspect` tells a container's address of this family.
    field: &'static str,
    make: &'static str,
}

const DETOURS: [Detour; 2] = [
    Detour {
        loopback: "127.0.0.1",
        host: "127.0.0.1",
        ip: "ip",
        field: "IPAddress",
        make: "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via $g",
    },
    Detour {
        loopback: "::1",
        host: "[::1]",
        ip: "ip -6",
        field: "GlobalIPv6Address",
        make: "ip -6 addr del ::1/128 dev lo; ip -6 route add ::1 via $g dev eth0",
    },
];

/// Not by a route that a container makes itself, either: which is one, and leaves the container on its network.
fn a_port_of_one_loopback_address_is_closed_to_containers(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--ipv6", "p-detour"])?;
    for Detour { loopback, host, ip, field, make } in DETOURS {
        let private = format!("{host}:28090:80");
        let run = ["run", "-d", "--name", "p-private", "--network", "p-detour", "-p", &private, "web"];
        docker.ok(run)?;
        on.fetch(&format!("http://{host}:28090/"))?;
        let format = format!("{{{{(index .NetworkSettings.Networks \"p-detour\").{field}}}}}");
        let neighbour = docker.ok(["inspect", "-f", &format, "p-private"])?;
        let script = format!(
            "set -e; g=$({ip} route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); \
             ask() {{ nc -w $1 $2 $3 </dev/null && echo $3 at $2 is open || echo $3 at $2 is closed; }}; \
             ask 3 $g 28090; {make}; {ip} route get {loopback} | grep -o \"via $g dev eth0\"; ask 3 {loopback} 28090; \
             ask 30 {neighbour} 80; echo $g"
        );
        let run = ["run", "--rm", "--network", "p-detour", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c"];
        let told = docker.ok(run.into_iter().chain([script.as_str()]))?;
        let gateway = told.lines().last().context("no gateway")?;
        let expected = [
            format!("28090 at {gateway} is closed"),
            format!("via {gateway} dev eth0"),
            format!("28090 at {loopback} is closed"),
            format!("80 at {neighbour} is open"),
            gateway.to_owned(),
        ];
        ensure!(told.lines().eq(expected), "{host}: {told}");
        docker.ok(["rm", "-f", "p-private"])?;
    }
    docker.ok(["network", "rm", "p-detour"])?;
    Ok(())
}

fn a_port_with_nobody_behind_it_is_closed_at_once(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "p-nobody", "-p", "127.0.0.1:28091:81", "web"])?;
    let ask = ["--silent", "--max-time", "60", "http://127.0.0.1:28091/"];
    let output = on.on_host("curl").args(ask).in_time()?;
    const TIMED_OUT: i32 = 28;
    ensure!(!output.status.success() && output.status.code() != Some(TIMED_OUT), "{output:?}");
    docker.ok(["rm", "-f", "p-nobody"])?;
    Ok(())
}

fn a_port_that_is_taken_leaves_nothing_behind(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "p-holds", "-p", "127.0.0.1:28093:80", "web"])?;
    let both = ["-p", "127.0.0.1:28092:80", "-p", "127.0.0.1:28093:81"];
    let refused = docker.run([&["run", "-d", "--name", "p-wants"], &both[..], &["web"]].concat())?;
    let told = "Bind for 127.0.0.1:28093 failed: port is already allocated";
    ensure!(refused.status == 125 && refused.err.contains(told), "{refused:?}");
    ensure!(on.is_closed("http://127.0.0.1:28092/")?, "the other port was left open");
    docker.ok(["rm", "-f", "p-holds"])?;
    docker.ok(["start", "p-wants"])?;
    ensure!(on.fetch("http://127.0.0.1:28092/")?.contains("web"));
    docker.ok(["rm", "-f", "p-wants"])?;
    Ok(())
}

/// Listens on a port of `127.0.0.1`, says as which process, and ends with its input.
const HOLD: &str = "use IO::Socket::INET; $| = 1; my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], \
    ReuseAddr => 1, Listen => 1) or die qq($@\\n); print qq($$\\n); <STDIN>";

/// With dockerd's words, to which Caisson adds who it is.
fn a_port_of_a_process_of_the_hosts_is_refused_until_it_ends(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let mut hold = on.on_host("perl");
    hold.args(["-e", HOLD, "28094"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = hold.spawn()?;
    bounded::watch(&holder, "the process that holds a port".to_owned())?;
    let mut pid = String::new();
    BufReader::new(holder.stdout.take().context("spawned with a pipe")?).read_line(&mut pid)?;
    let pid: u32 = pid.trim_end().parse().context("the process does not listen")?;
    let refused = docker.run(["run", "-d", "--name", "p-late", "-p", "127.0.0.1:28094:80", "web"])?;
    drop(holder.stdin.take());
    holder.wait()?;

    let held = if on.name() == "dockerd" { String::new() } else { format!(" (held by perl (pid {pid}))") };
    let parts: Vec<&str> = refused.err.splitn(3, ['(', ')']).collect();
    let [what, endpoint, why] = parts[..] else { anyhow::bail!("{refused:?}") };
    let is_told = what
        == "docker: Error response from daemon: failed to set up container networking: \
            driver failed programming external connectivity on endpoint p-late "
        && endpoint.len() == 64
        && why.starts_with(": failed to bind host port for 127.0.0.1:28094:172.17.")
        && why.ends_with(&format!(
            ":80/tcp: address already in use{held}\n\nRun 'docker run --help' for more information\n"
        ));
    ensure!(refused.status == 125 && is_told, "with the holder {pid}: {refused:?}");

    docker.ok(["start", "p-late"])?;
    ensure!(on.fetch("http://127.0.0.1:28094/")?.contains("web"));
    docker.ok(["rm", "-f", "p-late"])?;
    Ok(())
}

/// The client's socket is connected, so it hears from no other.
fn a_udp_port_answers_from_the_address_that_was_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "p-echo", "-p", "28094:7/udp", "web", "udp-echo", "7"])?;
    // The server may still be starting, and datagrams get lost.
    let ask = "exec 3<>\"/dev/udp/$0/28094\" || exit; for n in {1..30}; do echo hello >&3; \
        [ \"$(timeout 2 dd bs=64 count=1 status=none <&3)\" != hello ] || exit 0; done; exit 1";
    for at in ["127.0.0.1", "127.0.0.2", "::1"] {
        let asked = on.on_host("bash").args(["-c", ask, at]).in_time()?;
        ensure!(asked.status.success(), "{at}: {asked:?}");
    }
    docker.ok(["rm", "-f", "p-echo"])?;
    Ok(())
}

fn a_port_is_reached_by_ipv6_from_here_and_from_its_network(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--ipv6", "--subnet", "fd00:ca15:4::/64", "p-six"])?;
    docker.ok(["run", "-d", "--name", "p-dual", "--network", "p-six", "-p", "28071:80", "web"])?;
    for at in ["127.0.0.1", "[::1]"] {
        let fetched = on.fetch(&format!("http://{at}:28071/"))?;
        ensure!(fetched.contains("web"), "{at}: {fetched}");
    }
    let gateway =
        ["run", "--rm", "--network", "p-six", "busybox", "wget", "-qO-", "http://[fd00:ca15:4::1]:28071/"];
    let fetched = docker.ok(gateway)?;
    ensure!(fetched.contains("web"), "{fetched}");
    docker.ok(["rm", "-f", "p-dual"])?;
    docker.ok(["network", "rm", "p-six"])?;
    Ok(())
}
