//! What a container may see and do by default.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

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
    a_profile_of_one_s_own_is_obeyed,
    a_profile_compares_arguments,
    a_profile_that_is_none_is_refused,
    masked_paths_are_as_asked,
    what_is_written_beside_a_read_only_root_is_a_tmpfs,
    a_cgroup_namespace_is_private_or_the_host_s,
    labels_and_profiles_that_are_off_change_nothing,
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

/// What a script does under a profile for system calls.
fn under_profile(on: &dyn Subject, profile: &Value, script: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), profile.to_string())?;
    let option = format!("seccomp={}", file.path().display());
    run(on, &["--security-opt", &option, "busybox", "sh", "-c", script])
}

fn a_profile_of_one_s_own_is_obeyed(on: &dyn Subject) -> Result<()> {
    let names = ["mkdir", "mkdirat"];
    let denied = json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]});
    let script = "mkdir /new 2>&1; touch /file && echo touched; unshare -U true && echo unshared";
    let told = under_profile(on, &profile, script)?;
    ensure!(told.ends_with("touched\nunshared") && told.contains("Function not implemented"), "{told}");
    // A right that the container has makes the rule count, one that it has not leaves it out.
    let with_right = |right: &str| {
        let rule = json!({"names": names, "action": "SCMP_ACT_ERRNO", "includes": {"caps": [right]}});
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    let script = "mkdir /new 2>/dev/null && echo made; true";
    ensure!(under_profile(on, &with_right("CAP_CHOWN"), script)?.is_empty());
    ensure!(under_profile(on, &with_right("CAP_SYS_ADMIN"), script)? == "made");
    Ok(())
}

/// Signals that do nothing to who does not ask for them: to send one is a call whose second argument is its number.
fn a_profile_compares_arguments(on: &dyn Subject) -> Result<()> {
    let script = "sleep 1000 & for s in 17 18 23 28; do kill -$s $! 2>/dev/null || echo $s; done";
    let table: [(&str, u64, u64, &[u64]); 8] = [
        ("SCMP_CMP_NE", 18, 0, &[17, 23, 28]),
        ("SCMP_CMP_LT", 18, 0, &[17]),
        ("SCMP_CMP_LE", 18, 0, &[17, 18]),
        ("SCMP_CMP_EQ", 18, 0, &[18]),
        ("SCMP_CMP_GE", 18, 0, &[18, 23, 28]),
        ("SCMP_CMP_GT", 18, 0, &[23, 28]),
        ("SCMP_CMP_MASKED_EQ", 1, 1, &[17, 23]),
        ("SCMP_CMP_MASKED_EQ", 0x18, 0x18, &[28]),
    ];
    for (operator, value, two, denied) in table {
        let argument = json!({"index": 1, "value": value, "valueTwo": two, "op": operator});
        let rule = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [argument]});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let told = under_profile(on, &profile, script)?;
        let told: Vec<u64> = told.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(told == denied, "{operator} {value} {two}: {told:?}");
    }
    // Several arguments count together.
    let arguments = json!([{"index": 1, "value": 17, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let rule = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": arguments});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let told = under_profile(on, &profile, &format!("{script}; kill -18 1 2>/dev/null || echo one"))?;
    ensure!(told == "one", "{told}");
    Ok(())
}

fn a_profile_that_is_none_is_refused(on: &dyn Subject) -> Result<()> {
    for profile in [json!({"defaultAction": "SCMP_ACT_NONE"}), json!({"defaultAction": 5})] {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), profile.to_string())?;
        let option = format!("seccomp={}", file.path().display());
        let answer = on.docker().run(["run", "--rm", "--security-opt", &option, "busybox", "true"])?;
        ensure!(answer.status == 125, "{answer:?}");
    }
    Ok(())
}

fn masked_paths_are_as_asked(on: &dyn Subject) -> Result<()> {
    let host = json!({"MaskedPaths": ["/etc/passwd", "/bin"], "ReadonlyPaths": ["/tmp"]});
    let body = json!({"Image": "busybox", "HostConfig": host, "Cmd": ["/usr/bin/env"]});
    // Programs are hidden as well: one that is bound elsewhere can look.
    let mut body = body;
    body["Cmd"] = json!([
        "/look/busybox",
        "sh",
        "-c",
        "b=/look/busybox; $b ls /bin | $b wc -l; $b wc -c </etc/passwd; $b touch /tmp/x 2>&1 | $b grep -o 'Read-only'; $b wc -c </proc/keys | $b grep -cv ^0"
    ]);
    body["HostConfig"]["Binds"] = json!(["masked-tools:/look"]);
    run(on, &["-v", "masked-tools:/look", "busybox", "cp", "/bin/busybox", "/look/busybox"])?;
    let answer = on.api().post("/containers/create?name=masked-paths", &body)?;
    ensure!(answer.status == 201, "{}", answer.json()?);
    let told = on.docker().run(["start", "-a", "masked-paths"])?;
    on.docker().ok(["rm", "masked-paths"])?;
    on.docker().ok(["volume", "rm", "masked-tools"])?;
    ensure!(told.out.starts_with("0\n0\nRead-only\n"), "{told:?}");
    Ok(())
}

fn what_is_written_beside_a_read_only_root_is_a_tmpfs(on: &dyn Subject) -> Result<()> {
    let script = "for d in / /etc /scratch /dev/shm /dev /sys /proc/sys; do touch $d/new 2>/dev/null && echo $d; done; \
        grep ' /scratch ' /proc/mounts | cut -d' ' -f3; echo x 2>/dev/null >>/etc/hosts || echo hosts; true";
    let told = run(on, &["--read-only", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", script])?;
    ensure!(told == "/scratch\n/dev/shm\n/dev\ntmpfs\nhosts", "{told}");
    Ok(())
}

fn a_cgroup_namespace_is_private_or_the_host_s(on: &dyn Subject) -> Result<()> {
    let script = "readlink /proc/self/ns/cgroup; grep ^0:: /proc/self/cgroup";
    let of = |mode: &str| run(on, &["--cgroupns", mode, "busybox", "sh", "-c", script]);
    let (private, host) = (of("private")?, of("host")?);
    ensure!(private.ends_with("0::/") && private.lines().next() != host.lines().next(), "{private} {host}");
    Ok(())
}

fn labels_and_profiles_that_are_off_change_nothing(on: &dyn Subject) -> Result<()> {
    let options = ["--security-opt", "label=disable", "--security-opt", "apparmor=unconfined"];
    let mut all = options.to_vec();
    all.extend(["busybox", "grep", "^\\(Seccomp\\|NoNewPrivs\\|CapEff\\):", "/proc/self/status"]);
    let told = run(on, &all)?;
    ensure!(told == run(on, &all[4..])?, "{told}");
    Ok(())
}
