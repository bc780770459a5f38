//! What a container may see and do by default.

use anyhow::{Result, ensure};

use crate::cases;
use crate::subject::Subject;

cases![
    capabilities_are_dockers_default,
    privileged_has_all_capabilities,
    the_system_call_filter_is_on,
    the_container_is_alone_in_its_namespaces,
    kernel_files_are_masked_or_read_only,
    a_read_only_root_refuses_writes,
    a_bind_mount_shows_the_host,
    network_none_has_only_loopback,
];

fn run(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let mut all = vec!["run", "--rm"];
    all.extend(args);
    on.docker().ok(all)
}

fn capabilities_are_dockers_default(on: &dyn Subject) -> Result<()> {
    let told = run(on, &["busybox", "grep", "Cap", "/proc/self/status"])?;
    let told: Vec<_> = told.lines().map(|line| line.replace('\t', " ")).collect();
    let expected = [
        "CapInh: 0000000000000000",
        "CapPrm: 00000000a80425fb",
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "CapAmb: 0000000000000000",
    ];
    ensure!(told == expected, "{told:?}");
    Ok(())
}

fn privileged_has_all_capabilities(on: &dyn Subject) -> Result<()> {
    let told = run(on, &["--privileged", "busybox", "sed", "-n", "s/Cap...:\t//p", "/proc/self/status"])?;
    let sets: Vec<_> = told.lines().collect();
    let [_, permitted, effective, bounding, _] = sets[..] else { anyhow::bail!("five sets: {told}") };
    ensure!(permitted == bounding && effective == bounding, "{told}");
    ensure!(u64::from_str_radix(bounding, 16)?.count_ones() > 35, "{told}");
    Ok(())
}

fn the_system_call_filter_is_on(on: &dyn Subject) -> Result<()> {
    ensure!(run(on, &["busybox", "grep", "Seccomp:", "/proc/self/status"])?.ends_with('2'));
    let answer = on.docker().run(["run", "--rm", "busybox", "unshare", "-U", "true"])?;
    ensure!(answer.status != 0 && answer.err.contains("Operation not permitted"), "{answer:?}");
    Ok(())
}

fn the_container_is_alone_in_its_namespaces(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &["--hostname", "alone", "busybox", "sh", "-c", "echo $$; hostname; ls /proc | grep -c '^[0-9]'"],
    )?;
    let lines: Vec<_> = told.lines().collect();
    ensure!(lines[..2] == ["1", "alone"], "{told}");
    ensure!(lines[2].parse::<u32>()? <= 4, "processes of others are visible: {told}");
    Ok(())
}

fn kernel_files_are_masked_or_read_only(on: &dyn Subject) -> Result<()> {
    let script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/printk || echo refused; echo 1 > /sys/kernel/mm/ksm/run || echo refused";
    let answer = on.docker().run(["run", "--rm", "busybox", "sh", "-c", script])?;
    ensure!(answer.out.starts_with("0\n0\n") && answer.out.matches("refused").count() == 2, "{answer:?}");
    Ok(())
}

fn a_read_only_root_refuses_writes(on: &dyn Subject) -> Result<()> {
    let answer = on.docker().run(["run", "--rm", "--read-only", "busybox", "touch", "/new"])?;
    ensure!(answer.status == 1 && answer.err.contains("Read-only file system"), "{answer:?}");
    Ok(())
}

fn a_bind_mount_shows_the_host(on: &dyn Subject) -> Result<()> {
    // A folder that every engine's host has; in the machine, that is the machine.
    let script =
        "ls -d /host >/dev/null && echo seen; touch /host/new 2>&1 | grep -o 'Read-only file system'";
    let out = run(on, &["-v", "/run:/host:ro", "busybox", "sh", "-c", script])?;
    ensure!(out == "seen\nRead-only file system", "{out}");
    Ok(())
}

fn network_none_has_only_loopback(on: &dyn Subject) -> Result<()> {
    let links = run(on, &["--network", "none", "busybox", "ls", "/sys/class/net"])?;
    ensure!(links == "lo", "{links}");
    Ok(())
}
