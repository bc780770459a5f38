//! What containers are held to in the machine, which has every controller of cgroup v2: told by `inspect`, and by the kernel in the
//! container's own cgroup.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

machine_cases![
    limits_are_set_when_a_container_starts,
    limits_change_while_a_container_runs,
    limits_of_processes_and_memory_file_systems_are_set,
    what_this_kernel_has_not_is_told,
    devices_are_used_by_their_rules_only,
    a_container_that_takes_too_much_memory_is_killed,
    a_kill_that_a_container_survives_is_told_at_once,
    the_least_memory_that_may_be_asked_for_is_enough_to_start,
    a_layer_stops_growing_at_its_size,
    a_cgroup_lies_below_its_parent,
];

/// A limit: the options that ask for it, the field that tells of it, the file that holds it, both with what they say.
type Limit = (&'static [&'static str], &'static str, &'static str, &'static str, &'static str);

const AT_START: &[Limit] = &[
    (&["--memory", "64m"], "Memory", "67108864", "memory.max", "67108864"),
    (&["--memory-swap", "96m"], "MemorySwap", "100663296", "memory.swap.max", "33554432"),
    (&["--memory-reservation", "32m"], "MemoryReservation", "33554432", "memory.low", "33554432"),
    (&["--cpu-period", "50000", "--cpu-quota", "25000"], "CpuQuota", "25000", "cpu.max", "25000 50000"),
    (&["--cpu-shares", "512"], "CpuShares", "512", "cpu.weight", "59"),
    (&["--cpuset-cpus", "0"], "CpusetCpus", "0", "cpuset.cpus", "0"),
    (&["--cpuset-mems", "0"], "CpusetMems", "0", "cpuset.mems", "0"),
    (&["--pids-limit", "50"], "PidsLimit", "50", "pids.max", "50"),
    (&["--blkio-weight", "500"], "BlkioWeight", "500", "io.weight", "default 4950"),
];

/// All at once, and what each of the disk's throttles is after.
const THROTTLES: [&str; 8] = [
    "--device-read-bps=/dev/vda:1mb",
    "--device-write-bps=/dev/vda:2mb",
    "--device-read-iops=/dev/vda:300",
    "--device-write-iops=/dev/vda:400",
    "--name=limited",
    "-d",
    "busybox",
    "sleep",
];

/// In this order on one container, each with what was so before.
const UPDATES: &[Limit] = &[
    (&["--memory", "128m", "--memory-swap", "256m"], "Memory", "134217728", "memory.max", "134217728"),
    (&["--memory-swap", "-1"], "MemorySwap", "-1", "memory.swap.max", "max"),
    (&["--memory-reservation", "48m"], "MemoryReservation", "50331648", "memory.low", "50331648"),
    (&["--cpu-period", "100000", "--cpu-quota", "75000"], "CpuPeriod", "100000", "cpu.max", "75000 100000"),
    (&["--cpu-shares", "2048"], "CpuShares", "2048", "cpu.weight", "174"),
    (&["--pids-limit", "70"], "PidsLimit", "70", "pids.max", "70"),
    (&["--pids-limit", "-1"], "PidsLimit", "0", "pids.max", "max"),
    (&["--blkio-weight", "100"], "BlkioWeight", "100", "io.weight", "default 910"),
];

fn inspect(machine: &Machine, name: &str, field: &str) -> Result<String> {
    machine.docker().ok(["inspect", "-f", &format!("{{{{.HostConfig.{field}}}}}"), name])
}

/// What the container's own cgroup says.
fn held(machine: &Machine, name: &str, file: &str) -> Result<String> {
    machine.docker().ok(["exec", name, "cat", &format!("/sys/fs/cgroup/{file}")])
}

fn check(machine: &Machine, name: &str, (options, field, told, file, set): &Limit) -> Result<()> {
    let says = inspect(machine, name, field)?;
    ensure!(says == *told, "{options:?}: inspect says {says}, not {told}");
    let holds = held(machine, name, file)?;
    // A file may have lines for single disks after the one for all.
    ensure!(holds.lines().next() == Some(set), "{options:?}: {file} holds {holds}, not {set}");
    Ok(())
}

fn limits_are_set_when_a_container_starts(machine: &Machine) -> Result<()> {
    let mut all = vec!["run"];
    all.extend(AT_START.iter().flat_map(|(options, ..)| options.iter().copied()));
    all.extend(THROTTLES);
    all.push("1000");
    let answer = machine.docker().run(all)?.ok()?;
    ensure!(!answer.contains("WARNING"), "{answer}");
    for limit in AT_START {
        check(machine, "limited", limit)?;
    }
    let throttled = held(machine, "limited", "io.max")?;
    ensure!(throttled.ends_with("rbps=1048576 wbps=2097152 riops=300 wiops=400"), "{throttled}");
    let throttles = inspect(machine, "limited", "BlkioDeviceReadBps")?;
    ensure!(throttles.contains("/dev/vda"), "{throttles}");
    machine.docker().ok(["rm", "-f", "limited"])?;
    let quick = ["run", "--rm", "--cpus", "0.5", "busybox", "cat", "/sys/fs/cgroup/cpu.max"];
    ensure!(machine.docker().ok(quick)? == "50000 100000");
    // Memory without a word on swap: as much again.
    let swap = ["run", "--rm", "--memory", "64m", "busybox", "cat", "/sys/fs/cgroup/memory.swap.max"];
    ensure!(machine.docker().ok(swap)? == "67108864");
    Ok(())
}

fn limits_change_while_a_container_runs(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "updated",
        "--memory",
        "64m",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "busybox",
        "sleep",
        "1000",
    ])?;
    for limit in UPDATES {
        let mut all = vec!["update"];
        all.extend(limit.0);
        all.push("updated");
        docker.ok(all)?;
        check(machine, "updated", limit)?;
    }
    // As many processors as the machine has.
    let cpus: u32 = docker.ok(["info", "-f", "{{.NCPU}}"])?.parse()?;
    let cpus = if cpus > 1 { format!("0-{}", cpus - 1) } else { "0".to_owned() };
    docker.ok(["update", "--cpuset-cpus", &cpus, "updated"])?;
    ensure!(inspect(machine, "updated", "CpusetCpus")? == cpus);
    ensure!(held(machine, "updated", "cpuset.cpus")? == cpus);
    // What was set lives through a restart.
    docker.ok(["restart", "-t", "0", "updated"])?;
    for limit in [&UPDATES[0], &UPDATES[3], &UPDATES[4]] {
        check(machine, "updated", limit)?;
    }
    docker.ok(["rm", "-f", "updated"])?;
    docker.ok(["run", "-d", "--name", "updated", "--cpus", "0.5", "busybox", "sleep", "1000"])?;
    docker.ok(["update", "--cpus", "1.5", "updated"])?;
    ensure!(held(machine, "updated", "cpu.max")? == "150000 100000");
    ensure!(inspect(machine, "updated", "NanoCpus")? == "1500000000");
    docker.ok(["rm", "-f", "updated"])?;
    Ok(())
}

fn limits_of_processes_and_memory_file_systems_are_set(machine: &Machine) -> Result<()> {
    let told = machine.docker().ok([
        "run", "--rm", "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "8m", "--oom-score-adj", "500", "--sysctl",
        "net.core.somaxconn=77", "--sysctl", "kernel.msgmax=4000", "busybox", "sh", "-c",
        "ulimit -n; ulimit -Hn; ulimit -c; df -k /dev/shm | awk 'END { print $2 }'; cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax",
    ])?;
    ensure!(
        told.split_whitespace().collect::<Vec<_>>() == ["100", "200", "0", "8192", "500", "77", "4000"],
        "{told}"
    );
    Ok(())
}

fn what_this_kernel_has_not_is_told(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let answer =
        docker.run(["create", "--name", "told", "--oom-kill-disable", "--memory", "64m", "busybox"])?;
    ensure!(
        answer.err.contains("Your kernel does not support OomKillDisable. OomKillDisable discarded."),
        "{answer:?}"
    );
    docker.ok(["rm", "told"])?;
    let answer = docker.run([
        "create",
        "--name",
        "told",
        "--memory-swappiness",
        "10",
        "--memory",
        "64m",
        "busybox",
    ])?;
    ensure!(answer.err.contains("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."), "{answer:?}");
    docker.ok(["rm", "told"])?;
    Ok(())
}

/// The rules are a program of the kernel's: nodes may be made, and used as far as the rules go.
fn devices_are_used_by_their_rules_only(machine: &Machine) -> Result<()> {
    // A kernel message must be read whole, and by who may.
    const USE: &str = "dd if=$1 of=/dev/null bs=8192 count=1 2>/dev/null && echo read; (echo x >$1) 2>/dev/null && echo wrote; true";
    let docker = machine.docker();
    let made = format!("mknod /tmp/z c 1 11; set -- /tmp/z; {USE}");
    let with = |options: &[&str], script: &str| {
        let mut run = vec!["run", "--rm", "--cap-add", "SYSLOG"];
        run.extend(options);
        run.extend(["busybox", "sh", "-c", script]);
        docker.ok(run)
    };
    ensure!(with(&[], &made)?.is_empty());
    for (rule, able) in
        [("c 1:11 w", "wrote"), ("c 1:* r", "read"), ("c *:11 rwm", "read\nwrote"), ("b 1:11 rw", "")]
    {
        let told = with(&["--device-cgroup-rule", rule], &made)?;
        ensure!(told == able, "{rule}: {told}");
    }
    let given = format!("set -- /dev/given; {USE}");
    for (access, able) in [("r", "read"), ("w", "wrote"), ("rw", "read\nwrote")] {
        let told = with(&["--device", &format!("/dev/kmsg:/dev/given:{access}")], &given)?;
        ensure!(told == able, "{access}: {told}");
    }
    // A disk of the machine's, by the number that it has here.
    let disk = with(&[], "cat /sys/block/vda/dev")?;
    let read = format!("mknod /tmp/d b {}; head -c1 /tmp/d 2>/dev/null | wc -c", disk.replace(':', " "));
    ensure!(with(&[], &read)? == "0", "{disk} can be read");
    let able = with(&["--device-cgroup-rule", &format!("b {disk} r")], &read)?;
    ensure!(able == "1", "{disk} cannot be read by who may: {able}");
    Ok(())
}

fn a_container_that_takes_too_much_memory_is_killed(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let script = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo survived";
    let answer = docker.run([
        "run",
        "--name",
        "greedy",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    ensure!(answer.status != 0 && !answer.out.contains("survived"), "{answer:?}");
    ensure!(docker.ok(["inspect", "-f", "{{.State.OOMKilled}}", "greedy"])? == "true");
    docker.ok(["rm", "greedy"])?;
    Ok(())
}

/// What a shell does to be killed for want of memory, if it has less than that.
const GREED: &str = "x=$(head -c 60000000 /dev/zero | tr '\\0' x)";

/// Returns when this engine has told of so many kills in a container that goes on.
fn wait_for_kills(machine: &Machine, id: &str, kills: usize) -> Result<()> {
    let container = format!("container={id}");
    let filters = ["--filter", &container, "--filter", "event=oom"];
    let mut follows = machine.docker().spawn([&["events", "--since", "0"], &filters[..]].concat())?;
    let lines = BufReader::new(follows.stdout.take().context("spawned with a pipe")?).lines();
    let told = lines.take(kills).count();
    // It may have ended by itself.
    let _ = follows.kill();
    follows.wait()?;
    ensure!(told == kills, "{told} kills are told of, not {kills}");
    Ok(())
}

fn a_kill_that_a_container_survives_is_told_at_once(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let run = [
        "run",
        "-d",
        "--name",
        "survivor",
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "busybox",
        "sleep",
        "1000",
    ];
    let id = docker.ok(run)?;
    let state = || docker.ok(["inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", "survivor"]);
    ensure!(state()? == "running false", "{}", state()?);
    for kills in 1..=2 {
        let killed = docker.run(["exec", "survivor", "sh", "-c", GREED])?;
        ensure!(killed.status == 137, "{killed:?}");
        wait_for_kills(machine, &id, kills)?;
        ensure!(state()? == "running true", "{}", state()?);
    }
    // The next engine finds it so, and hears of what comes.
    machine.kill_engine()?;
    ensure!(state()? == "running true", "{}", state()?);
    ensure!(docker.run(["exec", "survivor", "sh", "-c", GREED])?.status == 137);
    wait_for_kills(machine, &id, 1)?;
    docker.ok(["restart", "-t", "0", "survivor"])?;
    ensure!(state()? == "running false", "{}", state()?);
    docker.ok(["rm", "-f", "survivor"])?;
    Ok(())
}

/// What the start itself takes is counted, too.
fn the_least_memory_that_may_be_asked_for_is_enough_to_start(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let least = ["run", "--rm", "--memory", "6m", "busybox", "echo", "small"];
    ensure!(docker.ok(least)? == "small");
    let less = docker.run(["run", "--rm", "--memory", "5m", "busybox", "true"])?;
    ensure!(less.status == 125 && less.err.contains("Minimum memory limit allowed is 6MB"), "{less:?}");
    Ok(())
}

/// By project quotas of the data disk, which has room.
fn a_layer_stops_growing_at_its_size(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "sized",
        "--storage-opt",
        "size=20m",
        "-v",
        "sized:/volume",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let fill = "dd if=/dev/zero of=$1 bs=1M count=40 2>&1 | tail -1; sync; du -sm $1 | cut -f1";
    let full = docker.run(["exec", "sized", "sh", "-c", fill, "sh", "/full"])?.ok()?;
    let taken: u32 = full.lines().last().unwrap_or_default().parse()?;
    ensure!((18..=20).contains(&taken), "it took {taken} MiB: {full}");
    let answer = docker.run(["exec", "sized", "sh", "-c", "echo more >/more"])?;
    ensure!(answer.status != 0 || docker.ok(["exec", "sized", "cat", "/more"])?.is_empty(), "{answer:?}");
    let room = docker.ok(["exec", "sized", "sh", "-c", "df -k / | awk 'END { print $2, $4 }'"])?;
    ensure!(room == "20480 0", "df says {room}");
    // Room that is given back can be used again; what lies in a volume does not count.
    docker.ok([
        "exec",
        "sized",
        "sh",
        "-c",
        "rm /full && echo more >/more && dd if=/dev/zero of=/volume/big bs=1M count=30",
    ])?;
    ensure!(docker.ok(["exec", "sized", "cat", "/more"])? == "more");
    let told = docker.ok(["inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "sized"])?;
    ensure!(told == "20m", "{told}");
    // Another container has no part in it, whoever comes first.
    docker.ok(["run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=30"])?;
    docker.ok(["restart", "-t", "0", "sized"])?;
    let again = docker.run(["exec", "sized", "sh", "-c", "dd if=/dev/zero of=/full bs=1M count=40"])?;
    ensure!(again.status != 0, "{again:?}");
    let refused = docker.run(["create", "--storage-opt", "inodes=1", "busybox"])?;
    ensure!(refused.err.contains("unknown option inodes"), "{refused:?}");
    docker.ok(["rm", "-fv", "sized"])?;
    docker.ok(["volume", "rm", "sized"])?;
    Ok(())
}

fn a_cgroup_lies_below_its_parent(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    for (parent, expected) in [("/custom/deep", "/custom/deep"), ("other", "/other"), ("", "/caisson")] {
        let mut run = vec!["run", "-d", "--cgroupns", "host"];
        run.extend((!parent.is_empty()).then_some(["--cgroup-parent", parent]).into_iter().flatten());
        run.extend(["busybox", "sleep", "1000"]);
        let id = docker.ok(run)?;
        let own = docker.ok(["exec", &id, "cat", "/proc/self/cgroup"])?;
        ensure!(own == format!("0::{expected}/{id}"), "{parent}: {own}");
        let told = docker.ok(["inspect", "-f", "{{.HostConfig.CgroupParent}}", &id])?;
        ensure!(told == parent, "{told}");
        docker.ok(["rm", "-f", &id])?;
    }
    Ok(())
}
