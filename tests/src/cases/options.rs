//! What can be asked of a network, of a container's end on it, and of a container by the API alone.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::containers::wait_for_log;
use crate::cases;
use crate::subject::Subject;

cases![
    options_that_nobody_knows_are_kept_and_ignored,
    a_device_is_named_by_its_container_or_its_network,
    a_device_has_settings_of_its_own,
    a_device_has_link_local_addresses,
    an_isolated_network_has_no_gateway,
    a_routed_network_publishes_under_its_containers_addresses,
    an_unprotected_network_is_open_to_its_system_only_where_it_is_shut,
    a_bridge_leaves_its_address_to_others,
    a_container_may_have_no_network_at_all,
    a_limit_of_kernel_memory_is_one_of_old_calls,
    real_time_is_refused_where_there_is_none,
    groups_and_the_shell_are_kept_and_used,
    the_time_and_the_signal_of_a_stop_are_the_container_s,
];

/// What only Caisson is held to: dockerd has no overlay without a swarm.
pub const OURS: &[crate::subject::Case] = &[crate::subject::Case {
    name: "an_attachable_overlay_is_a_network_of_one_node",
    run: an_attachable_overlay_is_a_network_of_one_node,
}];

const BRIDGE: &str = "com.docker.network.bridge";
const ENDPOINT: &str = "com.docker.network.endpoint";

/// What a container prints on a network.
fn run(on: &dyn Subject, network: &str, script: &str) -> Result<String> {
    on.docker().ok(["run", "--rm", "--network", network, "busybox", "sh", "-c", script])
}

/// Why a container does not start on a network.
fn refused(on: &dyn Subject, network: &str) -> Result<String> {
    let answer = on.docker().run(["run", "--rm", "--network", network, "busybox", "true"])?;
    ensure!(answer.status == 125, "{answer:?}");
    Ok(answer.err)
}

/// Asks a web server, with little patience.
fn ask(address: &str) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80")
}

fn options_that_nobody_knows_are_kept_and_ignored(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "-o", "com.example.colour=blue", "o-unknown"])?;
    let kept = docker.ok(["network", "inspect", "-f", "{{json .Options}}", "o-unknown"])?;
    ensure!(kept == r#"{"com.example.colour":"blue"}"#, "{kept}");
    docker.ok(["network", "rm", "o-unknown"])?;
    Ok(())
}

fn a_device_is_named_by_its_container_or_its_network(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "o-names"])?;
    let devices = "cd /sys/class/net; echo *";
    ensure!(run(on, "o-names", devices)? == "lan0 lo");
    let named = |name: &str| format!("name=o-names,driver-opt={ENDPOINT}.ifname={name}");
    ensure!(run(on, &named("wan"), devices)? == "lo wan");
    for (name, why) in [
        ("lo", "file exists"),
        ("a/b", "invalid argument"),
        ("much-too-long-a-name", "numerical result out of range"),
    ] {
        let told = refused(on, &named(name))?;
        let expected = format!("to \"{name}\": {why}");
        ensure!(told.contains("failed to add interface veth") && told.contains(&expected), "{told}");
    }
    docker.ok(["network", "rm", "o-names"])?;
    Ok(())
}

fn a_device_has_settings_of_its_own(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "o-settings"])?;
    let with = |settings: &str| format!("name=o-settings,\"driver-opt={ENDPOINT}.sysctls={settings}\"");
    let settings = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.rp_filter=2";
    let read = "cat /proc/sys/net/ipv4/conf/eth0/log_martians /proc/sys/net/ipv4/conf/eth0/rp_filter";
    ensure!(run(on, &with(settings), read)? == "1\n2");
    for (settings, why) in [
        (
            "foo",
            "unrecognised network interface sysctl 'foo'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
        ),
        ("net.ipv4.ip_forward=1", "unrecognised network interface sysctl 'net.ipv4.ip_forward=1'"),
        ("net.ipv4.conf.IFNAME.nosuch=1", "/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file"),
        (
            "net.ipv4.conf.IFNAME.rp_filter",
            "expected sysctl 'net.ipv4.conf.ifname.rp_filter' to have format name=value",
        ),
    ] {
        let told = refused(on, &with(settings))?;
        ensure!(told.contains(why), "{settings}: {told}");
    }
    docker.ok(["network", "rm", "o-settings"])?;
    Ok(())
}

fn a_device_has_link_local_addresses(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "o-links"])?;
    let run = |address: &str, command: &str| {
        docker.run([
            "run",
            "--rm",
            "--network",
            "o-links",
            "--link-local-ip",
            address,
            "busybox",
            "sh",
            "-c",
            command,
        ])
    };
    docker.ok([
        "run",
        "-d",
        "--name",
        "o-link",
        "--network",
        "o-links",
        "--link-local-ip",
        "169.254.7.1",
        "web",
    ])?;
    let page = run("169.254.7.2", "ip -o -4 addr; wget -qO- http://169.254.7.1/")?.ok()?;
    ensure!(page.contains("inet 169.254.7.2/16") && page.contains("web"), "{page}");
    let far = run("10.1.1.1", "true")?;
    ensure!(far.err.contains("invalid link local IP address: 10.1.1.1"), "{far:?}");
    docker.ok(["rm", "-f", "o-link"])?;
    docker.ok(["network", "rm", "o-links"])?;
    Ok(())
}

fn an_isolated_network_has_no_gateway(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let mode = format!("{BRIDGE}.gateway_mode_ipv4=isolated");
    docker.ok(["network", "create", "--internal", "-o", &mode, "o-isolated"])?;
    let told = docker.ok(["network", "inspect", "-f", "{{json .IPAM.Config}}", "o-isolated"])?;
    ensure!(!told.contains("Gateway"), "{told}");
    let own = run(on, "o-isolated", "ip route; ip -o -4 addr show eth0")?;
    ensure!(!own.contains("default") && own.contains(".0.1/"), "the first address is a container's: {own}");
    docker.ok(["network", "rm", "o-isolated"])?;
    Ok(())
}

fn a_routed_network_publishes_under_its_containers_addresses(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "-o", &format!("{BRIDGE}.gateway_mode_ipv4=routed"), "o-routed"])?;
    docker.ok(["network", "create", "o-client"])?;
    docker.ok(["run", "-d", "--name", "o-open", "--network", "o-routed", "-p", "28161:80", "web"])?;
    docker.ok(["run", "-d", "--name", "o-shut", "--network", "o-routed", "web"])?;
    let ports =
        docker.ok(["inspect", "-f", "{{json (index .NetworkSettings.Ports \"80/tcp\")}}", "o-open"])?;
    ensure!(ports.contains(r#"{"HostIp":"0.0.0.0","HostPort":""}"#), "{ports}");
    let at = |name: &str| {
        docker.ok(["inspect", "-f", "{{(index .NetworkSettings.Networks \"o-routed\").IPAddress}}", name])
    };
    let fetch = |address: &str| {
        let ask = ask(address);
        docker.run(["run", "--rm", "--network", "o-client", "busybox", "sh", "-c", &ask])
    };
    let page = fetch(&at("o-open")?)?.ok()?;
    ensure!(page.contains("web"), "{page}");
    let shut = fetch(&at("o-shut")?)?;
    ensure!(!shut.out.contains("web"), "a port that is not published: {shut:?}");
    docker.ok(["rm", "-f", "o-open", "o-shut"])?;
    docker.ok(["network", "rm", "o-routed", "o-client"])?;
    Ok(())
}

fn an_unprotected_network_is_open_to_its_system_only_where_it_is_shut(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "network",
        "create",
        "-o",
        &format!("{BRIDGE}.gateway_mode_ipv4=nat-unprotected"),
        "o-bare",
    ])?;
    docker.ok(["network", "create", "o-other"])?;
    docker.ok(["run", "-d", "--name", "o-bared", "--network", "o-bare", "web"])?;
    let at = "{{(index .NetworkSettings.Networks \"o-bare\").IPAddress}}";
    let at = docker.ok(["inspect", "-f", at, "o-bared"])?;
    // Other networks are apart from it all the same.
    let ask = ask(&at);
    let other = docker.run(["run", "--rm", "--network", "o-other", "busybox", "sh", "-c", &ask])?;
    ensure!(!other.out.contains("web"), "{other:?}");
    ensure!(run(on, "o-bare", &ask)?.contains("web"));
    docker.ok(["rm", "-f", "o-bared"])?;
    docker.ok(["network", "rm", "o-bare", "o-other"])?;
    Ok(())
}

fn a_bridge_leaves_its_address_to_others(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let options = ["-o", &format!("{BRIDGE}.inhibit_ipv4=true"), "--subnet", "10.97.0.0/24"];
    docker.ok([&["network", "create"], &options[..], &["o-left"]].concat())?;
    let told =
        run(on, "o-left", "ip route; ping -c 1 -W 1 10.97.0.1 >/dev/null && echo answered || echo silent")?;
    ensure!(told.contains("default via 10.97.0.1") && told.contains("silent"), "{told}");
    docker.ok(["network", "rm", "o-left"])?;
    Ok(())
}

/// The difference from dockerd: without a swarm it refuses every overlay with "This node is not a swarm manager…", which
/// [`same`](../../../tests/docker_api/same/networks.rs) compares for those that are not attachable. A compose file that
/// asks for an attachable one is about containers that find each other, and here they do.
fn an_attachable_overlay_is_a_network_of_one_node(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "-d", "overlay", "--attachable", "o-overlay"])?;
    let told = docker.ok([
        "network",
        "inspect",
        "-f",
        "{{.Driver}} {{.Scope}} {{json .IPAM.Config}}",
        "o-overlay",
    ])?;
    ensure!(told.starts_with("overlay swarm ") && told.contains("\"10."), "{told}");
    docker.ok(["run", "-d", "--name", "o-node", "--network", "o-overlay", "web"])?;
    let seen = run(on, "o-overlay", "cat /sys/class/net/eth0/mtu; wget -qO- http://o-node/")?;
    ensure!(seen.starts_with("1450\n") && seen.contains("web"), "{seen}");
    docker.ok(["rm", "-f", "o-node"])?;
    docker.ok(["network", "rm", "o-overlay"])?;
    Ok(())
}

/// What the engine says to the wish for a container: its status and the answer.
fn wish(on: &dyn Subject, version: &str, name: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = on.api().post(&format!("{version}/containers/create?name={name}"), body)?;
    Ok((answer.status, answer.json()?))
}

/// A container of that wish, which is made without a warning.
fn create(on: &dyn Subject, name: &str, body: &Value) -> Result<()> {
    let (status, told) = wish(on, "", name, body)?;
    ensure!(status == 201 && told["Warnings"] == json!([]), "{status} {told}");
    Ok(())
}

fn a_container_may_have_no_network_at_all(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    // Its names are not the engine's business either: what others find mounted there is empty here.
    let look = "ls /sys/class/net; cd /etc; cat hosts hostname resolv.conf; grep ' /etc/' /proc/self/mountinfo; \
                ls -l hosts hostname resolv.conf | cut -c1-10; readlink mtab";
    let ports = json!({"80/tcp": [{"HostPort": "28162"}]});
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", look], "NetworkDisabled": true,
        "ExposedPorts": {"80/tcp": {}}, "HostConfig": {"PortBindings": ports},
    });
    create(on, "o-disabled", &body)?;
    let seen = docker.ok(["start", "-a", "o-disabled"])?;
    ensure!(seen == "lo\n-rwxr-xr-x\n-rwxr-xr-x\n-rwxr-xr-x\n/proc/mounts", "{seen}");
    let told = on.api().get("/containers/o-disabled/json")?.json()?;
    docker.ok(["rm", "o-disabled"])?;
    ensure!(told["Config"]["NetworkDisabled"] == true, "{told}");
    let network = &told["NetworkSettings"];
    ensure!(network["Networks"] == json!({}) && network["Ports"] == json!({}), "{network}");
    ensure!(network["IPAddress"] == "" && network["SandboxKey"] == "", "{network}");
    let files = ["HostsPath", "HostnamePath", "ResolvConfPath"];
    ensure!(files.iter().all(|file| told[file] == ""), "{told}");
    Ok(())
}

/// What control groups the engine's system has: `1` or `2`.
fn control_groups(on: &dyn Subject) -> Result<String> {
    on.docker().ok(["info", "-f", "{{.CgroupVersion}}"])
}

/// API 1.42 took the limit away: it is not looked at any more. The second version of control groups never had it.
fn a_limit_of_kernel_memory_is_one_of_old_calls(on: &dyn Subject) -> Result<()> {
    let body = json!({"Image": "busybox", "HostConfig": {"KernelMemory": 5}});
    let of = |version: &str| -> Result<(u16, Value)> {
        let told = wish(on, version, "o-kernel", &body)?;
        on.docker().run(["rm", "o-kernel"])?;
        Ok(told)
    };
    let (status, old) = of("/v1.41")?;
    match control_groups(on)?.as_str() {
        "1" => {
            let why = "Minimum kernel memory limit allowed is 6MB";
            ensure!(status == 400 && old["message"] == why, "{status} {old}");
        }
        _ => {
            let why = "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
            ensure!(status == 201 && old["Warnings"] == json!([why]), "{status} {old}");
        }
    }
    let (status, new) = of("/v1.42")?;
    ensure!(status == 201 && new["Warnings"] == json!([]), "{status} {new}");
    Ok(())
}

/// The first version of control groups can, where the kernel can.
fn real_time_is_refused_where_there_is_none(on: &dyn Subject) -> Result<()> {
    let groups = control_groups(on)?;
    for (limits, of_the_first) in [
        (json!({"CpuRealtimePeriod": 1_000_000}), ""),
        (json!({"CpuRealtimeRuntime": 950_000}), ""),
        (
            json!({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 950_000}),
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
    ] {
        let body = json!({"Image": "busybox", "HostConfig": limits});
        let (status, told) = wish(on, "", "o-real-time", &body)?;
        on.docker().run(["rm", "o-real-time"])?;
        let message = told["message"].as_str().unwrap_or_default();
        let is_lack = status == 400 && message == "kernel does not support CPU real-time scheduler";
        let is_as_asked = (status == 201) == of_the_first.is_empty() && message == of_the_first;
        ensure!(is_lack || groups == "1" && is_as_asked, "{body}: {status} {told}");
    }
    Ok(())
}

fn groups_and_the_shell_are_kept_and_used(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let groups = json!(["7", "root", "1234"]);
    let shell = json!(["/bin/ash", "-euc"]);
    let body = json!({
        "Image": "busybox", "Cmd": ["id", "-G"], "User": "1000:1001", "Shell": shell,
        "HostConfig": {"GroupAdd": groups},
    });
    create(on, "o-groups", &body)?;
    let found = docker.ok(["start", "-a", "o-groups"])?;
    let told = on.api().get("/containers/o-groups/json")?.json()?;
    docker.ok(["commit", "o-groups", "o-groups:v1"])?;
    let image = on.api().get("/images/o-groups:v1/json")?.json()?;
    docker.ok(["rm", "o-groups"])?;
    docker.ok(["rmi", "o-groups:v1"])?;
    let mut found: Vec<&str> = found.split(' ').collect();
    found.sort_unstable();
    ensure!(found == ["0", "1001", "1234", "7"], "{found:?}");
    ensure!(told["HostConfig"]["GroupAdd"] == groups && told["Config"]["Shell"] == shell, "{told}");
    ensure!(image["Config"]["Shell"] == shell, "a commit keeps it: {image}");
    let unknown = json!({"Image": "busybox", "HostConfig": {"GroupAdd": ["none-such"]}});
    create(on, "o-no-group", &unknown)?;
    let refused = docker.run(["start", "o-no-group"])?;
    docker.ok(["rm", "o-no-group"])?;
    ensure!(refused.err.contains("unable to find group none-such: no matching entries"), "{refused:?}");
    Ok(())
}

/// How long others are waited for before they are killed.
const USUAL_GRACE: Duration = Duration::from_secs(10);

fn the_time_and_the_signal_of_a_stop_are_the_container_s(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "trap 'echo heard' USR1; echo up; while :; do sleep 1000 & wait; done";
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1", "StopTimeout": 1,
    });
    create(on, "o-stop", &body)?;
    docker.ok(["start", "o-stop"])?;
    wait_for_log(on, "o-stop", "up")?;
    let asked = Instant::now();
    docker.ok(["stop", "o-stop"])?;
    let took = asked.elapsed();
    ensure!(took < USUAL_GRACE, "it took {took:?}");
    ensure!(docker.ok(["logs", "o-stop"])? == "up\nheard");
    let told = on.api().get("/containers/o-stop/json")?.json()?;
    docker.ok(["rm", "o-stop"])?;
    ensure!(told["State"]["ExitCode"] == 137 && told["Config"]["StopTimeout"] == 1, "{told}");
    Ok(())
}
