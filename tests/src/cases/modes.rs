//! What a container shares, and with whom; devices, init, kernel parameters, limits of processes.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bounded::Bounded;
use crate::cases;
use crate::subject::{Case, Subject};

cases![
    processes_are_shared_with_another_container,
    memory_is_shared_with_a_shareable_container_only,
    an_ipc_mode_of_none_has_no_shared_memory,
    modes_of_the_host_are_the_host_s,
    names_of_other_containers_become_ids,
    who_is_joined_must_run,
    a_shared_network_comes_with_its_names_and_files,
    devices_are_given_with_their_rights,
    devices_that_are_not_there_are_told,
    kernel_parameters_are_the_container_s,
    kernel_parameters_of_the_host_are_refused,
    ping_and_low_ports_need_no_rights,
    limits_of_processes_are_set,
    names_and_groups_are_as_asked,
    security_options_are_obeyed_or_refused,
    privileged_containers_see_the_devices,
    mistakes_are_told_in_the_same_words,
];

/// Cases that only Caisson is held to: the reference engine's package leaves its init out.
pub const OURS: &[Case] = &[
    Case { name: "an_init_reaps_and_passes_signals_on", run: an_init_reaps_and_passes_signals_on },
    Case { name: "an_init_tells_how_the_program_ended", run: an_init_tells_how_the_program_ended },
];

fn run(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let mut all = vec!["run", "--rm"];
    all.extend(args);
    on.docker().ok(all)
}

fn removed(on: &dyn Subject, name: &str) -> Result<()> {
    on.docker().ok(["rm", "-f", name]).map(drop)
}

fn an_init_reaps_and_passes_signals_on(on: &dyn Subject) -> Result<()> {
    let script = "cat /proc/1/comm; (sleep 0.1 &) ; sleep 0.5; grep -c . /proc/1/status >/dev/null; ps -o stat | grep -c Z || true";
    let told = run(on, &["--init", "busybox", "sh", "-c", script])?;
    ensure!(told == "docker-init\n0", "{told}");
    let docker = on.docker();
    let script = "trap 'echo told; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    docker.ok(["run", "-d", "--init", "--name", "inited", "busybox", "sh", "-c", script])?;
    wait_for(on, "inited", "ready")?;
    docker.ok(["kill", "-s", "USR1", "inited"])?;
    ensure!(docker.ok(["wait", "inited"])? == "9");
    ensure!(docker.ok(["logs", "inited"])? == "ready\ntold");
    removed(on, "inited")
}

/// A container that has said a word. Its log is asked again: the CLI ends with the container only.
fn wait_for(on: &dyn Subject, name: &str, word: &str) -> Result<()> {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !on.docker().ok(["logs", name])?.contains(word) {
        ensure!(std::time::Instant::now() < give_up, "{name} does not say {word}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn an_init_tells_how_the_program_ended(on: &dyn Subject) -> Result<()> {
    let status = |args: &[&str]| -> Result<i32> {
        let all = ["run", "--rm", "--init", "busybox"].iter().chain(args).copied();
        Ok(on.docker().run(all)?.status)
    };
    ensure!(status(&["sh", "-c", "exit 7"])? == 7);
    ensure!(status(&["sh", "-c", "kill -9 $$"])? == 137);
    ensure!(status(&["no-such-program"])? == 127);
    ensure!(status(&["/etc/passwd"])? == 126);
    Ok(())
}

fn processes_are_shared_with_another_container(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "pid-donor", "busybox", "sleep", "1000"])?;
    let told = run(
        on,
        &[
            "--pid",
            "container:pid-donor",
            "busybox",
            "sh",
            "-c",
            "cat /proc/1/cmdline | tr '\\0' ' '; kill 1; echo $$",
        ],
    )?;
    let (command, pid) = told.split_once('\n').unwrap_or_default();
    ensure!(command == "sleep 1000 " || told.starts_with("sleep 1000 "), "{told}");
    ensure!(pid != "1" && !told.ends_with(" 1"), "{told}");
    // What joined it ends by itself, and takes nobody along.
    ensure!(docker.ok(["inspect", "-f", "{{.State.Running}}", "pid-donor"])? == "true");
    removed(on, "pid-donor")
}

fn memory_is_shared_with_a_shareable_container_only(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "ipc-donor",
        "--ipc",
        "shareable",
        "--shm-size",
        "1m",
        "busybox",
        "sh",
        "-c",
        "echo here > /dev/shm/x; sleep 1000",
    ])?;
    let script = "until [ -e /dev/shm/x ]; do sleep 0.05; done; cat /dev/shm/x; df -k /dev/shm | tail -1 | awk '{print $2}'; readlink /proc/self/ns/ipc";
    let told = run(on, &["--ipc", "container:ipc-donor", "busybox", "sh", "-c", script])?;
    let lines: Vec<_> = told.lines().collect();
    ensure!(lines[..2] == ["here", "1024"], "{told}");
    let theirs = docker.ok([
        "run",
        "--rm",
        "--pid",
        "container:ipc-donor",
        "--ipc",
        "container:ipc-donor",
        "busybox",
        "readlink",
        "/proc/self/ns/ipc",
    ])?;
    ensure!(lines[2] == theirs, "{told} {theirs}");
    docker.ok(["run", "-d", "--name", "ipc-private", "busybox", "sleep", "1000"])?;
    let id = docker.ok(["inspect", "-f", "{{.Id}}", "ipc-private"])?;
    let refused = docker.run(["run", "--rm", "--ipc", "container:ipc-private", "busybox", "true"])?;
    let why = format!(
        "failed to join IPC namespace: container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    );
    ensure!(refused.status == 125 && refused.err.contains(&why), "{refused:?}");
    removed(on, "ipc-private")?;
    removed(on, "ipc-donor")
}

fn an_ipc_mode_of_none_has_no_shared_memory(on: &dyn Subject) -> Result<()> {
    let told =
        run(on, &["--ipc", "none", "busybox", "sh", "-c", "grep -c ' /dev/shm ' /proc/mounts || true"])?;
    ensure!(told == "0", "{told}");
    Ok(())
}

fn modes_of_the_host_are_the_host_s(on: &dyn Subject) -> Result<()> {
    let own = |kind: &str| -> Result<String> {
        let output = on.on_host("readlink").arg(format!("/proc/self/ns/{kind}")).in_time()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid; readlink /proc/self/ns/uts";
    let told = run(on, &["--ipc", "host", "--pid", "host", "--uts", "host", "busybox", "sh", "-c", script])?;
    let host = [own("ipc")?, own("pid")?, own("uts")?].join("\n");
    ensure!(told == host, "{told}\n{host}");
    let told = run(on, &["busybox", "sh", "-c", script])?;
    ensure!(told.lines().zip(host.lines()).all(|(own, host)| own != host), "{told}\n{host}");
    Ok(())
}

fn names_of_other_containers_become_ids(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "named-donor", "busybox"])?;
    docker.ok([
        "create",
        "--name",
        "joins",
        "--pid",
        "container:named-donor",
        "--ipc",
        "container:named-donor",
        "busybox",
    ])?;
    let modes = docker.ok(["inspect", "-f", "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}}", "joins"])?;
    ensure!(modes == format!("container:{id} container:{id}"), "{modes}");
    removed(on, "joins")?;
    removed(on, "named-donor")
}

fn who_is_joined_must_run(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "sleeps-not", "busybox"])?;
    for (option, what) in [("--pid", "PID"), ("--ipc", "IPC")] {
        let refused = docker.run(["run", "--rm", option, "container:sleeps-not", "busybox", "true"])?;
        let why = format!("failed to join {what} namespace: container {id} is not running");
        ensure!(refused.status == 125 && refused.err.contains(&why), "{refused:?}");
        let missing = docker.run(["create", option, "container:none-such", "busybox"])?;
        ensure!(missing.err.contains("No such container: none-such"), "{missing:?}");
    }
    removed(on, "sleeps-not")
}

fn a_shared_network_comes_with_its_names_and_files(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let names = ["--hostname", "landlord", "--domainname", "example.org", "--add-host", "extra:10.0.0.9"];
    let donor = [&["run", "-d", "--name", "net-donor"], &names[..], &["busybox", "sleep", "1000"]].concat();
    docker.ok(donor)?;
    let script = "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf";
    let own = docker.ok(["exec", "net-donor", "sh", "-c", script])?;
    ensure!(own.starts_with("landlord") && own.contains("10.0.0.9\textra"), "{own}");
    let mode = ["--network", "container:net-donor"];
    let lodger = [&["run", "-d", "--name", "net-lodger"], &mode[..], &["busybox", "sleep", "1000"]].concat();
    docker.ok(lodger)?;
    let told = docker.ok(["exec", "net-lodger", "sh", "-c", script])?;
    ensure!(told == own, "{told}\n{own}");
    let config = "{{.Config.Hostname}} {{.Config.Domainname}}";
    ensure!(docker.ok(["inspect", "-f", config, "net-lodger"])? == "landlord example.org");
    // They are the same files, not copies.
    docker.ok(["exec", "net-donor", "sh", "-c", "echo 10.0.0.8 later >> /etc/hosts"])?;
    let hosts = docker.ok(["exec", "net-lodger", "cat", "/etc/hosts"])?;
    ensure!(hosts.contains("10.0.0.8 later"), "{hosts}");
    // Who joins the one that joined is where both are.
    let network = ["readlink", "/proc/self/ns/net"];
    let theirs = docker.ok([&["exec", "net-donor"], &network[..]].concat())?;
    let its = run(on, &[&["--network", "container:net-lodger", "busybox"], &network[..]].concat())?;
    ensure!(its == theirs, "{its} {theirs}");
    removed(on, "net-lodger")?;
    removed(on, "net-donor")
}

fn devices_are_given_with_their_rights(on: &dyn Subject) -> Result<()> {
    let script = "stat -c '%F %t %T' /dev/mine; ls /dev/full >/dev/null && echo there";
    let told = run(on, &["--device", "/dev/zero:/dev/mine:r", "busybox", "sh", "-c", script])?;
    ensure!(told == "character special file 1 5\nthere", "{told}");
    let rule = on.docker().run(["run", "--rm", "--device-cgroup-rule", "c 10:* rwm", "busybox", "true"])?;
    ensure!(rule.status == 0, "{rule:?}");
    let folder = run(on, &["--device", "/dev/pts:/dev/terminals", "busybox", "ls", "/dev/terminals"])?;
    ensure!(folder.split_whitespace().any(|name| name == "ptmx"), "{folder}");
    Ok(())
}

fn devices_that_are_not_there_are_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let missing = docker.run(["run", "--rm", "--device", "/dev/nope", "busybox", "true"])?;
    let why = "error gathering device information while adding custom device \"/dev/nope\": no such file or directory";
    ensure!(missing.err.contains(why), "{missing:?}");
    let file = docker.run(["run", "--rm", "--device", "/proc/version", "busybox", "true"])?;
    ensure!(file.status == 125 && file.err.contains("not a device node"), "{file:?}");
    let gpus = docker.run(["run", "--rm", "--gpus", "all", "busybox", "true"])?;
    let why = "could not select device driver \"\" with capabilities: [[gpu]]";
    ensure!(gpus.status == 125 && gpus.err.contains(why), "{gpus:?}");
    Ok(())
}

fn kernel_parameters_are_the_container_s(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &[
            "--sysctl",
            "net.ipv4.ip_forward=0",
            "--sysctl",
            "kernel.msgmax=65536",
            "busybox",
            "sh",
            "-c",
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
        ],
    )?;
    ensure!(told == "0\n65536", "{told}");
    Ok(())
}

/// Straight to the API: the CLI has checks of its own.
fn kernel_parameters_of_the_host_are_refused(on: &dyn Subject) -> Result<()> {
    for (host, why) in [
        (
            json!({"Sysctls": {"vm.swappiness": "1"}}),
            "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        (
            json!({"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}}),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace",
        ),
        (
            json!({"IpcMode": "host", "Sysctls": {"kernel.msgmax": "1"}}),
            "sysctl \"kernel.msgmax\" is not allowed in the hosts ipc namespace",
        ),
    ] {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host});
        let created = on.api().post("/containers/create", &body)?.json()?;
        let id = created["Id"].as_str().unwrap_or_default().to_owned();
        let started = on.api().post(&format!("/containers/{id}/start"), &Value::Null)?;
        let told = started.json()?["message"].as_str().unwrap_or_default().to_owned();
        removed(on, &id)?;
        ensure!(told.contains(why) && started.status == 500, "{} {told}", started.status);
    }
    Ok(())
}

fn ping_and_low_ports_need_no_rights(on: &dyn Subject) -> Result<()> {
    let files = ["/proc/sys/net/ipv4/ping_group_range", "/proc/sys/net/ipv4/ip_unprivileged_port_start"];
    let told = run(on, &["busybox", "cat", files[0], files[1]])?;
    ensure!(told == "0\t2147483647\n0", "{told}");
    Ok(())
}

fn limits_of_processes_are_set(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &[
            "--ulimit",
            "nofile=64:128",
            "--ulimit",
            "core=0",
            "--oom-score-adj",
            "500",
            "--shm-size",
            "2m",
            "busybox",
            "sh",
            "-c",
            "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; df -k /dev/shm | tail -1 | awk '{print $2}'",
        ],
    )?;
    ensure!(told == "64\n128\n0\n500\n2048", "{told}");
    Ok(())
}

fn names_and_groups_are_as_asked(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &[
            "--hostname",
            "box",
            "--domainname",
            "example.org",
            "--user",
            "nobody",
            "--group-add",
            "root",
            "--group-add",
            "1234",
            "--add-host",
            "db:10.9.8.7",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "hostname; cat /proc/sys/kernel/domainname; id -u; id -G; grep -c 10.9.8.7 /etc/hosts",
        ],
    )?;
    ensure!(told == "box\nexample.org\n65534\n65534 0 1234\n1", "{told}");
    Ok(())
}

fn security_options_are_obeyed_or_refused(on: &dyn Subject) -> Result<()> {
    let status = |options: &[&str]| -> Result<String> {
        let mut args = options.to_vec();
        args.extend(["busybox", "sed", "-n", "s/^\\(NoNewPrivs\\|Seccomp\\):\t//p", "/proc/self/status"]);
        Ok(run(on, &args)?.replace('\n', " "))
    };
    ensure!(status(&[])? == "0 2");
    ensure!(status(&["--security-opt", "no-new-privileges"])? == "1 2");
    ensure!(status(&["--security-opt", "seccomp=unconfined"])? == "0 0");
    ensure!(status(&["--security-opt", "seccomp=builtin"])? == "0 2");
    ensure!(status(&["--privileged"])? == "0 0");
    let masks = ["--security-opt", "systempaths=unconfined", "busybox", "sh", "-c"];
    let told = run(on, &[&masks[..], &["grep -c ' /proc/' /proc/mounts || true"]].concat())?;
    ensure!(told == "0", "{told}");
    Ok(())
}

fn privileged_containers_see_the_devices(on: &dyn Subject) -> Result<()> {
    let script = "ls /dev | wc -l";
    let count = |args: &[&str]| -> Result<u32> {
        Ok(run(on, &[args, &["busybox", "sh", "-c", script]].concat())?.parse()?)
    };
    let (usual, privileged) = (count(&[])?, count(&["--privileged"])?);
    ensure!(privileged > usual, "{usual} {privileged}");
    Ok(())
}

/// Straight to the API: the CLI has checks of its own.
fn mistakes_are_told_in_the_same_words(on: &dyn Subject) -> Result<()> {
    let refused = |body: Value| -> Result<(u16, String)> {
        let answer = on.api().post("/containers/create", &body)?;
        Ok((answer.status, answer.json()?["message"].as_str().unwrap_or_default().to_owned()))
    };
    for (host, status, why) in [
        (json!({"IpcMode": "foo"}), 400, "invalid IPC mode: foo"),
        (json!({"PidMode": "container:"}), 400, "invalid PID mode: container:"),
        (json!({"UTSMode": "foo"}), 400, "invalid UTS mode: foo"),
        (json!({"Isolation": "hyperv"}), 400, "invalid isolation (hyperv): linux only supports 'default'"),
        (json!({"Runtime": "foo"}), 400, "unknown or invalid runtime name: foo"),
        (json!({"OomScoreAdj": 1001}), 400, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (json!({"SecurityOpt": ["foo"]}), 500, "invalid --security-opt 1: \"foo\""),
        (json!({"SecurityOpt": ["foo=bar"]}), 500, "invalid --security-opt 2: \"foo=bar\""),
        (json!({"Memory": 5}), 400, "Minimum memory limit allowed is 6MB"),
        (
            json!({"IOMaximumIOps": 5}),
            400,
            "invalid option: QoS maximum IOPs configuration is not supported on linux",
        ),
        (json!({"ExtraHosts": ["a=1.2.3.4"]}), 400, "bad format for add-host: \"a=1.2.3.4\""),
        (
            json!({"Annotations": {"": "x"}}),
            400,
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (
            json!({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}),
            400,
            "conflicting options: dns and the network mode",
        ),
    ] {
        let told = refused(json!({"Image": "busybox", "HostConfig": host}))?;
        ensure!(told == (status, why.to_owned()), "{host}: {told:?}");
    }
    Ok(())
}
