//! Networks that users make, and containers on them.

use anyhow::{Context, Result, ensure};

use crate::cases;
use crate::cli::Answer;
use crate::subject::{Case, Subject};

cases![
    a_network_is_made_listed_inspected_and_removed,
    a_subnet_belongs_to_one_network,
    a_network_in_use_is_not_removed,
    containers_reach_each_other_on_their_network_by_address,
    a_container_asks_for_its_addresses,
    a_running_container_is_connected_and_disconnected,
    a_stopped_container_is_connected_for_its_next_start,
    an_internal_network_has_no_way_out,
    the_way_out_is_the_network_with_priority,
    a_container_lives_in_the_network_of_another,
    unused_networks_are_pruned,
    networks_tell_what_happens_to_them,
];

/// dockerd has these networks in a swarm only.
pub const OURS: &[Case] = &[Case {
    name: "containers_meet_on_an_overlay_of_one_node",
    run: containers_meet_on_an_overlay_of_one_node,
}];

/// What a format says of a container.
fn told(on: &dyn Subject, container: &str, format: &str) -> Result<String> {
    on.docker().ok(["inspect", "-f", format, container])
}

/// What a container on a network gets from a web server.
fn fetch(on: &dyn Subject, network: &str, address: &str) -> Result<Answer> {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80");
    on.docker().run(["run", "--rm", "--network", network, "busybox", "sh", "-c", &ask])
}

fn address(on: &dyn Subject, container: &str, network: &str) -> Result<String> {
    told(on, container, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

fn a_network_is_made_listed_inspected_and_removed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["network", "create", "--label", "kind=made", "n-made"])?;
    ensure!(id.len() == 64, "{id}");
    let listed = docker.ok([
        "network",
        "ls",
        "--filter",
        "label=kind=made",
        "--format",
        "{{.Name}} {{.Driver}} {{.Scope}}",
    ])?;
    ensure!(listed == "n-made bridge local", "{listed}");
    let inspected = docker.ok([
        "network",
        "inspect",
        "-f",
        "{{.ID}} {{.Driver}} {{len .Containers}} {{len .IPAM.Config}}",
        "n-made",
    ])?;
    ensure!(inspected == format!("{id} bridge 0 1"), "{inspected}");
    let again = docker.run(["network", "create", "n-made"])?;
    ensure!(again.err.contains("network with name n-made already exists"), "{again:?}");
    docker.ok(["network", "rm", "n-made"])?;
    let gone = docker.run(["network", "inspect", "n-made"])?;
    ensure!(gone.status == 1 && gone.err.contains("network n-made not found"), "{gone:?}");
    Ok(())
}

/// And a name as well, whatever subnet its second network asks for.
fn a_subnet_belongs_to_one_network(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let create = |name: &str, subnets: &[&str]| {
        let asked = subnets.iter().flat_map(|subnet| ["--subnet", subnet]);
        docker.run(["network", "create", "--ipv6"].into_iter().chain(asked).chain([name]))
    };
    const OWN: [&str; 2] = ["10.95.4.0/24", "fd00:ca15:95::/64"];
    create("n-owner", &OWN)?.ok()?;
    let taken = "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space\n";
    for wanted in ["10.95.4.0/24", "10.95.4.128/25", "10.95.0.0/16", "fd00:ca15:95::/64", "fd00:ca15:95::/48"]
    {
        let refused = create("n-wants", &[wanted])?;
        ensure!(
            refused.status == 1 && refused.out.is_empty() && refused.err == taken,
            "{wanted}: {refused:?}"
        );
    }
    let refused = create("n-owner", &["10.95.5.0/24"])?;
    let taken = "Error response from daemon: network with name n-owner already exists\n";
    ensure!(refused.status == 1 && refused.err == taken, "{refused:?}");
    let left = docker.run(["network", "inspect", "n-wants"])?;
    ensure!(left.status == 1, "what was refused is there: {left:?}");
    // What its network leaves is free, and so is what only those had that were refused.
    docker.ok(["network", "rm", "n-owner"])?;
    create("n-wants", &OWN)?.ok()?;
    create("n-owner", &["10.95.5.0/24"])?.ok()?;
    docker.ok(["network", "rm", "n-wants", "n-owner"])?;
    Ok(())
}

fn a_network_in_use_is_not_removed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-used"])?;
    docker.ok(["run", "-d", "--name", "n-user", "--network", "n-used", "busybox", "sleep", "1000"])?;
    let refused = docker.run(["network", "rm", "n-used"])?;
    ensure!(refused.status == 1, "{refused:?}");
    ensure!(
        refused.err.contains("network n-used has active endpoints (name:\"n-user\" id:\""),
        "{refused:?}"
    );
    let built_in = docker.run(["network", "rm", "bridge"])?;
    ensure!(built_in.err.contains("bridge is a pre-defined network and cannot be removed"), "{built_in:?}");
    docker.ok(["rm", "-f", "n-user"])?;
    docker.ok(["network", "rm", "n-used"])?;
    Ok(())
}

fn containers_reach_each_other_on_their_network_by_address(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-reach"])?;
    docker.ok(["network", "create", "n-apart"])?;
    docker.ok(["run", "-d", "--name", "n-server", "--network", "n-reach", "web"])?;
    let at = address(on, "n-server", "n-reach")?;
    let near = fetch(on, "n-reach", &at)?.ok()?;
    ensure!(near.contains("web"), "{near}");
    let far = fetch(on, "n-apart", &at)?;
    ensure!(!far.out.contains("web"), "networks are apart: {far:?}");
    docker.ok(["rm", "-f", "n-server"])?;
    docker.ok(["network", "rm", "n-reach", "n-apart"])?;
    Ok(())
}

fn a_container_asks_for_its_addresses(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "network",
        "create",
        "--subnet",
        "10.99.0.0/24",
        "--ip-range",
        "10.99.0.128/25",
        "--gateway",
        "10.99.0.254",
        "n-asked",
    ])?;
    let ask = ["run", "-d", "--network", "n-asked", "--ip", "10.99.0.7"];
    let mac = ["--mac-address", "02:11:22:33:44:55", "--name", "n-asks", "busybox", "sleep", "1000"];
    docker.ok(ask.iter().chain(&mac))?;
    let has = told(
        on,
        "n-asks",
        "{{with index .NetworkSettings.Networks \"n-asked\"}}{{.IPAddress}} {{.Gateway}} {{.IPPrefixLen}} {{.MacAddress}}{{end}}",
    )?;
    ensure!(has == "10.99.0.7 10.99.0.254 24 02:11:22:33:44:55", "{has}");
    let taken = docker.run(ask.iter().chain(&["--name", "n-late", "busybox", "true"]))?;
    ensure!(
        taken.status == 125
            && taken.err.contains("failed to set up container networking: Address already in use"),
        "{taken:?}"
    );
    let own = docker.ok([
        "run",
        "--rm",
        "--network",
        "n-asked",
        "busybox",
        "ip",
        "-o",
        "-4",
        "addr",
        "show",
        "eth0",
    ])?;
    ensure!(own.contains("inet 10.99.0.128/24"), "{own}");
    let outside =
        docker.run(["run", "--rm", "--network", "n-asked", "--ip", "10.1.1.1", "busybox", "true"])?;
    ensure!(
        outside.err.contains("no configured subnet or ip-range contain the IP address 10.1.1.1"),
        "{outside:?}"
    );
    docker.ok(["rm", "-f", "n-asks", "n-late"])?;
    docker.ok(["network", "rm", "n-asked"])?;
    Ok(())
}

fn a_running_container_is_connected_and_disconnected(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-one"])?;
    docker.ok(["network", "create", "n-two"])?;
    docker.ok(["run", "-d", "--name", "n-moves", "--network", "n-one", "web"])?;
    docker.ok(["network", "connect", "--alias", "other", "n-two", "n-moves"])?;
    let names = told(on, "n-moves", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}")?;
    ensure!(names == "n-one n-two ", "{names}");
    let aliases = told(on, "n-moves", "{{index .NetworkSettings.Networks \"n-two\" | json}}")?;
    ensure!(
        aliases.contains("\"Aliases\":[\"other\"]")
            && aliases.contains("\"DNSNames\":[\"n-moves\",\"other\","),
        "{aliases}"
    );
    let at = address(on, "n-moves", "n-two")?;
    let page = fetch(on, "n-two", &at)?.ok()?;
    ensure!(page.contains("web"), "{page}");
    let twice = docker.run(["network", "connect", "n-two", "n-moves"])?;
    ensure!(twice.err.contains("endpoint with name n-moves already exists in network n-two"), "{twice:?}");
    docker.ok(["network", "disconnect", "n-two", "n-moves"])?;
    let gone = fetch(on, "n-two", &at)?;
    ensure!(!gone.out.contains("web"), "{gone:?}");
    let twice = docker.run(["network", "disconnect", "n-two", "n-moves"])?;
    ensure!(twice.err.contains("is not connected to network n-two"), "{twice:?}");
    docker.ok(["rm", "-f", "n-moves"])?;
    docker.ok(["network", "rm", "n-one", "n-two"])?;
    Ok(())
}

fn a_stopped_container_is_connected_for_its_next_start(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-later"])?;
    docker.ok(["create", "--name", "n-joins", "busybox", "ip", "-o", "-4", "addr"])?;
    docker.ok(["network", "connect", "n-later", "n-joins"])?;
    let out = docker.ok(["start", "-a", "n-joins"])?;
    ensure!(out.contains("eth0") && out.contains("eth1"), "{out}");
    docker.ok(["network", "disconnect", "n-later", "n-joins"])?;
    let out = docker.ok(["start", "-a", "n-joins"])?;
    ensure!(!out.contains("eth1"), "{out}");
    docker.ok(["rm", "n-joins"])?;
    docker.ok(["network", "rm", "n-later"])?;
    Ok(())
}

fn an_internal_network_has_no_way_out(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--internal", "n-inner"])?;
    let routes = docker.ok(["run", "--rm", "--network", "n-inner", "busybox", "ip", "route"])?;
    ensure!(!routes.contains("default"), "{routes}");
    docker.ok(["network", "rm", "n-inner"])?;
    Ok(())
}

fn the_way_out_is_the_network_with_priority(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--subnet", "10.98.1.0/24", "n-a"])?;
    docker.ok(["network", "create", "--subnet", "10.98.2.0/24", "n-b"])?;
    let run = |first: &str, second: &str| {
        docker.ok(["run", "--rm", "--network", first, "--network", second, "busybox", "ip", "route"])
    };
    let routes = run("n-a", "n-b")?;
    ensure!(routes.contains("default via 10.98.1.1"), "of equals the first by name: {routes}");
    let routes = run("n-a", "name=n-b,gw-priority=1")?;
    ensure!(routes.contains("default via 10.98.2.1"), "{routes}");
    docker.ok(["network", "rm", "n-a", "n-b"])?;
    Ok(())
}

fn a_container_lives_in_the_network_of_another(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-shared"])?;
    let id = docker.ok(["run", "-d", "--name", "n-host", "--network", "n-shared", "web"])?;
    docker.ok([
        "run",
        "-d",
        "--name",
        "n-guest",
        "--network",
        "container:n-host",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let mode = told(on, "n-guest", "{{.HostConfig.NetworkMode}} {{len .NetworkSettings.Networks}}")?;
    ensure!(mode == format!("container:{id} 0"), "{mode}");
    let page = fetch(on, "container:n-host", "127.0.0.1")?.ok()?;
    ensure!(page.contains("web"), "{page}");
    let refused = docker.run(["network", "connect", "bridge", "n-guest"])?;
    ensure!(refused.err.contains("container sharing network namespace with another container or host cannot be connected to any other network"), "{refused:?}");
    docker.ok(["rm", "-f", "n-guest"])?;
    docker.ok(["stop", "-t", "0", "n-host"])?;
    let stopped = docker.run(["run", "--rm", "--network", "container:n-host", "busybox", "true"])?;
    ensure!(
        stopped
            .err
            .contains("cannot join network namespace of a non running container: container n-host is exited"),
        "{stopped:?}"
    );
    docker.ok(["rm", "-f", "n-host"])?;
    docker.ok(["network", "rm", "n-shared"])?;
    Ok(())
}

fn unused_networks_are_pruned(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--label", "prune=yes", "n-prune"])?;
    docker.ok(["network", "create", "--label", "prune=yes", "n-keep"])?;
    docker.ok(["run", "-d", "--name", "n-keeper", "--network", "n-keep", "busybox", "sleep", "1000"])?;
    let pruned = docker.ok(["network", "prune", "-f", "--filter", "label=prune=yes"])?;
    ensure!(pruned.contains("n-prune") && !pruned.contains("n-keep"), "{pruned}");
    docker.ok(["rm", "-f", "n-keeper"])?;
    docker.ok(["network", "rm", "n-keep"])?;
    Ok(())
}

fn networks_tell_what_happens_to_them(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "n-told"])?;
    docker.ok(["run", "--rm", "--name", "n-tells", "--network", "n-told", "busybox", "true"])?;
    docker.ok(["network", "rm", "n-told"])?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64().to_string();
    let events = docker.ok([
        "events",
        "--since",
        "10m",
        "--until",
        &now,
        "--filter",
        "type=network",
        "--filter",
        "network=n-told",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}",
    ])?;
    let expected =
        ["create", "connect", "disconnect", "destroy"].map(|action| format!("{action} n-told bridge"));
    ensure!(events.lines().eq(expected.iter()), "{events}");
    told(on, "n-tells", "{{.Id}}").err().context("it is gone")?;
    Ok(())
}

fn containers_meet_on_an_overlay_of_one_node(on: &dyn Subject) -> Result<()> {
    const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
    let docker = on.docker();
    let create = ["network", "create", "-d", "overlay", "--attachable"];
    for (more, why) in [
        (&["--opt", "encrypted"][..], "option encrypted is not supported"),
        (&["--attachable=false"], "This node is not a swarm manager."),
    ] {
        let refused = docker.run([&create[..], more, &["n-over"]].concat())?;
        ensure!(refused.status == 1 && refused.err.contains(why), "{refused:?}");
    }
    let ranges = ["--subnet", "10.91.7.0/24", "--subnet", "10.91.9.0/24"];
    docker.ok([&create[..], &ranges, &["--opt", &format!("{VNI}=5001"), "n-over"]].concat())?;
    let format = format!("{{{{.Driver}}}} {{{{.Scope}}}} {{{{index .Options \"{VNI}\"}}}}");
    let told = docker.ok(["network", "inspect", "-f", &format, "n-over"])?;
    ensure!(told == "overlay swarm 5001", "{told}");
    let in_the_second = ["--network", "n-over", "--ip", "10.91.9.9", "web"];
    docker.ok([&["run", "-d", "--name", "n-overlaid"], &in_the_second[..]].concat())?;
    let ask = "hostname -i; wget -qO- http://n-overlaid/; cat /sys/class/net/eth0/mtu";
    // The CLI gives the ranges in an order of its own, so none is the first.
    let in_the_other = ["--network", "n-over", "--ip", "10.91.7.7", "busybox"];
    let told = docker.ok([&["run", "--rm"], &in_the_other[..], &["sh", "-c", ask]].concat())?;
    ensure!(told.starts_with("10.91.7.7\n") && told.contains("web") && told.ends_with("1450"), "{told}");
    let devices = ["run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net"];
    ensure!(docker.ok(devices)?.contains("vx-001389-"), "its VXLAN is not there");
    docker.ok(["rm", "-f", "n-overlaid"])?;
    docker.ok(["network", "rm", "n-over"])?;
    ensure!(!docker.ok(devices)?.contains("vx-001389-"), "its VXLAN is left");
    Ok(())
}
