//! Ways out of a container that were open once, somewhere: each has to stay shut.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use hyper::Method;

use crate::bounded::{Bounded, until};
use crate::cases;
use crate::subject::{Case, Subject};

cases![
    the_runtime_s_program_cannot_be_overwritten,
    no_descriptor_of_the_host_s_comes_along,
    a_working_directory_cannot_be_a_descriptor_of_the_host_s,
    a_mount_cannot_be_led_astray_by_links,
    proc_cannot_be_covered,
    a_release_agent_cannot_be_set,
    kernel_files_cannot_be_written,
    the_host_s_devices_cannot_be_used,
    mounts_and_namespaces_take_rights,
    groups_of_root_are_not_kept,
    keys_of_the_host_are_not_seen,
    processes_of_the_host_are_not_seen,
    what_is_added_to_a_container_is_no_better,
    raw_sockets_go_with_their_right,
    a_container_has_a_keyring_of_its_own,
    links_that_change_lead_no_copy_out,
];

/// What dockerd leaves open, or to luck.
pub const OURS: &[Case] = &[
    Case { name: "links_that_change_lead_no_mount_out", run: links_that_change_lead_no_mount_out },
    Case { name: "raw_sockets_are_off_unless_asked_for", run: raw_sockets_are_off_unless_asked_for },
];

fn run(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let mut all = vec!["run", "--rm"];
    all.extend(args);
    on.docker().ok(all)
}

fn shell(on: &dyn Subject, script: &str) -> Result<String> {
    run(on, &["busybox", "sh", "-c", script])
}

/// CVE-2019-5736: an image whose program is a link to `/proc/self/exe`, or a script that it interprets, makes the runtime execute itself in
/// the container, from where it could be opened and written.
fn the_runtime_s_program_cannot_be_overwritten(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "overwrites",
        "busybox",
        "sh",
        "-c",
        "ln -sf /proc/self/exe /bin/link; echo '#!/proc/self/exe' >/bin/script; chmod +x /bin/script; \
            touch /ready; sleep 1000",
    ])?;
    docker.ok(["exec", "overwrites", "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done"])?;
    for program in ["/bin/link", "/bin/script"] {
        // We refuse it. runc runs: a copy of itself that nobody can write, which says that it knows no such command.
        let answer = docker.run(["exec", "overwrites", program, "readlink", "/proc/self/exe"])?;
        ensure!(answer.status != 0 && !answer.out.contains("runc"), "{program}: {answer:?}");
        let said = format!("{}{}", answer.out, answer.err);
        ensure!(!said.contains("shim"), "{program}: {answer:?}");
    }
    let answer = docker.run(["exec", "overwrites", "sh", "-c", "for p in /proc/[0-9]*; do l=$(readlink $p/exe) || continue; case $l in /bin/*) ;; *) echo $l;; esac; done"])?;
    ensure!(answer.out.trim().is_empty(), "{answer:?}");
    docker.ok(["rm", "-f", "overwrites"]).map(drop)
}

fn no_descriptor_of_the_host_s_comes_along(on: &dyn Subject) -> Result<()> {
    // 3 is the folder that `ls` reads.
    let told = shell(on, "ls /proc/self/fd | tr '\\n' ' '")?;
    ensure!(told.trim() == "0 1 2 3", "{told}");
    let told = on.docker().ok(["run", "-d", "--name", "no-leaks", "busybox", "sleep", "1000"])?;
    let added = on.docker().ok([
        "exec",
        "no-leaks",
        "sh",
        "-c",
        "ls /proc/self/fd | tr '\\n' ' '; ls /proc/1/fd | tr '\\n' ' '",
    ])?;
    on.docker().ok(["rm", "-f", "no-leaks"])?;
    ensure!(added.trim() == "0 1 2 3 0 1 2", "{told} {added}");
    Ok(())
}

/// CVE-2024-21626.
fn a_working_directory_cannot_be_a_descriptor_of_the_host_s(on: &dyn Subject) -> Result<()> {
    for descriptor in 3..12 {
        let directory = format!("/proc/self/fd/{descriptor}");
        let answer = on.docker().run([
            "run",
            "--rm",
            "-w",
            &directory,
            "busybox",
            "sh",
            "-c",
            "pwd -P; ls -a ../../..",
        ])?;
        ensure!(answer.status != 0, "{directory}: {answer:?}");
    }
    Ok(())
}

/// A link in the image where something is to be mounted leads within the container (CVE-2021-30465 and its like).
fn a_mount_cannot_be_led_astray_by_links(on: &dyn Subject) -> Result<()> {
    let script = "grep ' /etc/astray ' /proc/mounts | cut -d' ' -f2; ls -d /etc/astray";
    let told = run(on, &["--tmpfs", "/tmp/../etc/astray", "busybox", "sh", "-c", script])?;
    ensure!(told == "/etc/astray\n/etc/astray", "{told}");
    let seen = on.on_host("sh").args(["-c", "test -e /etc/astray && echo seen || true"]).in_time()?;
    ensure!(seen.stdout.is_empty(), "it was mounted, or made, on the host");
    Ok(())
}

/// A mount over what the kernel says of a process could hide what confines it.
fn proc_cannot_be_covered(on: &dyn Subject) -> Result<()> {
    for place in ["/proc/self/attr", "/proc/sys/kernel", "/proc/1"] {
        let answer = on.docker().run(["run", "--rm", "-v", &format!("/run:{place}"), "busybox", "true"])?;
        ensure!(answer.status != 0, "{place}: {answer:?}");
    }
    Ok(())
}

/// The way out by cgroup v1 (CVE-2022-0492): no hierarchy of one's own, no writing to the given one.
fn a_release_agent_cannot_be_set(on: &dyn Subject) -> Result<()> {
    let script = "mkdir /tmp/c; mount -t cgroup -o memory none /tmp/c 2>/dev/null && echo mounted; \
        mount -t cgroup2 none /tmp/c 2>/dev/null && echo mounted; \
        for f in $(find /sys/fs/cgroup -maxdepth 3 -name release_agent -o -maxdepth 3 -name cgroup.procs); do \
            (echo 1 > $f) 2>/dev/null && echo wrote $f; done; true";
    let told = shell(on, script)?;
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

fn kernel_files_cannot_be_written(on: &dyn Subject) -> Result<()> {
    let files = [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/ksm/run",
        "/sys/power/state",
        "/proc/kcore",
        "/proc/timer_list",
    ];
    let script = format!(
        "for f in {}; do [ -e $f ] || continue; (echo x >> $f) 2>/dev/null && echo wrote $f; done; true",
        files.join(" ")
    );
    // What is hidden behind the null device takes every byte, and none arrives.
    let told = shell(on, &script)?;
    let wrote: Vec<_> =
        told.lines().filter(|line| !line.ends_with("kcore") && !line.ends_with("timer_list")).collect();
    ensure!(wrote.is_empty(), "{told}");
    let told = shell(
        on,
        "wc -c < /proc/kcore; wc -c < /proc/keys; wc -c < /proc/timer_list; ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -vc ':$\\|^$' || true",
    )?;
    ensure!(told.lines().all(|line| line == "0"), "{told}");
    Ok(())
}

/// Making a node of the host's disk, or of its memory, is one thing; using it another.
fn the_host_s_devices_cannot_be_used(on: &dyn Subject) -> Result<()> {
    let script = "for d in 'c 1 1' 'c 10 229' $(cat /sys/block/*/dev); do rm -f /tmp/d; mknod /tmp/d $(case $d in c*) echo $d;; *) echo b ${d%:*} ${d#*:};; esac) 2>/dev/null || continue; \
        (head -c 1 /tmp/d >/dev/null) 2>/dev/null && echo read $d; done; true";
    let told = shell(on, script)?;
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

fn mounts_and_namespaces_take_rights(on: &dyn Subject) -> Result<()> {
    let script = "mount -t tmpfs none /mnt 2>/dev/null && echo mount; mount -o remount,rw /proc/sys 2>/dev/null && echo remount; \
        umount /proc/kcore 2>/dev/null && echo umount; unshare -m true 2>/dev/null && echo unshare; unshare -U true 2>/dev/null && echo user; \
        hostname other 2>/dev/null && echo named; nsenter -t 1 -n true 2>/dev/null && echo entered; true";
    let told = shell(on, script)?;
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

/// CVE-2023-25173: groups that were root's do not stay another user's.
fn groups_of_root_are_not_kept(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &["--user", "1000:1001", "busybox", "sh", "-c", "id -G; grep Cap[PE] /proc/self/status | cut -f2"],
    )?;
    ensure!(told == "1001\n0000000000000000\n0000000000000000", "{told}");
    Ok(())
}

fn keys_of_the_host_are_not_seen(on: &dyn Subject) -> Result<()> {
    let told = shell(on, "wc -l < /proc/keys")?;
    ensure!(told == "0", "{told}");
    Ok(())
}

fn processes_of_the_host_are_not_seen(on: &dyn Subject) -> Result<()> {
    let told =
        shell(on, "ls -d /proc/[0-9]* | wc -l; readlink /proc/1/root; ls /proc/1/root | head -3 | wc -l")?;
    let lines: Vec<_> = told.lines().collect();
    ensure!(lines[0].parse::<u32>()? <= 5 && lines[1] == "/", "{told}");
    Ok(())
}

/// What `exec` adds has the container's rights, filter and namespaces, not its helper's.
fn what_is_added_to_a_container_is_no_better(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "no-better", "busybox", "sleep", "1000"])?;
    let script = "grep -h '^\\(Cap\\|Seccomp:\\|NoNewPrivs\\)' /proc/$1/status; for n in ipc mnt net pid uts cgroup; do readlink /proc/$1/ns/$n; done";
    let of = |pid: &str| docker.ok(["exec", "no-better", "sh", "-c", script, "sh", pid]);
    let (first, added) = (of("1")?, of("self")?);
    docker.ok(["rm", "-f", "no-better"])?;
    ensure!(first == added, "{first}\n{added}");
    Ok(())
}

/// Prints whether there is none, 0 or 1. That nobody answers is another matter.
const PACKET_SOCKET: &str = "arping -c1 -w1 -I lo 127.0.0.1 2>&1 | grep -c 'not permitted'";

/// Whether a container can make a packet socket.
fn opens_packets(on: &dyn Subject, options: &[&str]) -> Result<bool> {
    let script = format!("{PACKET_SOCKET} || true");
    Ok(run(on, &[options, &["busybox", "sh", "-c", &script]].concat())? == "0")
}

fn raw_sockets_go_with_their_right(on: &dyn Subject) -> Result<()> {
    ensure!(opens_packets(on, &["--cap-add", "NET_RAW"])?);
    ensure!(opens_packets(on, &["--privileged"])?);
    for without in [["--cap-drop", "NET_RAW"], ["--cap-drop", "ALL"], ["--user", "1000"]] {
        ensure!(!opens_packets(on, &without)?, "{without:?}");
    }
    Ok(())
}

/// The right is there, so that programs with it on their files start, and only ICMP comes of it. To look for what is wrong is a reason.
fn raw_sockets_are_off_unless_asked_for(on: &dyn Subject) -> Result<()> {
    const RIGHT: u64 = 1 << 13;
    ensure!(!opens_packets(on, &[])?);
    ensure!(opens_packets(on, &["--cap-add", "NET_ADMIN"])?);
    let script = "ping -c1 127.0.0.1 >/dev/null && traceroute -I -m1 -q1 127.0.0.1 >/dev/null 2>&1 && \
        awk '/CapEff/ {print $2}' /proc/self/status";
    let held = shell(on, script)?;
    ensure!(u64::from_str_radix(&held, 16)? & RIGHT != 0, "{held}");
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "sniffed", "busybox", "sleep", "1000"])?;
    let look = |options: &[&str]| {
        let script = format!("{PACKET_SOCKET}; true");
        docker.ok([&["exec"], options, &["sniffed", "sh", "-c", &script]].concat())
    };
    let told = (look(&[])?, look(&["--privileged"])?);
    docker.ok(["rm", "-f", "sniffed"])?;
    ensure!(told == ("1".into(), "0".into()), "{told:?}");
    Ok(())
}

/// The keys of whoever started the engine are in the session that it was started in.
fn a_container_has_a_keyring_of_its_own(on: &dyn Subject) -> Result<()> {
    let told = on.docker().ok([
        "run",
        "-d",
        "--name",
        "keyring",
        "--security-opt",
        "systempaths=unconfined",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let rings = "grep keyring /proc/keys | grep -o '_ses[^:]*' | sort -u";
    let seen = on.docker().ok(["exec", "keyring", "sh", "-c", rings])?;
    on.docker().ok(["rm", "-f", "keyring"])?;
    ensure!(seen.lines().any(|ring| ring == format!("_ses.{told}")), "{seen}");
    Ok(())
}

/// A container that makes of `/race/x`, without end, a directory and a link to the host's `/run` by turns, in a volume. An engine that finds
/// neither makes a directory for its mount, which is put aside: in the way of the turns, it would be the last.
fn racing(on: &dyn Subject, name: &str) -> Result<()> {
    let script = "mkdir -p /race/d /run; echo inside >/run/raced-secret; touch /ready; cd /race; \
        while :; do mv -T d x || mv -T x made-$((made += 1)); mv -T x d; ln -s /run l; mv -T l x; rm x; done";
    let volume = format!("{name}:/race");
    on.docker().ok(["run", "-d", "--name", name, "-v", &volume, "busybox", "sh", "-c", script])?;
    on.docker().ok(["exec", name, "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done"]).map(drop)
}

fn end_race(on: &dyn Subject, name: &str) -> Result<()> {
    on.docker().ok(["rm", "-f", name])?;
    on.docker().ok(["volume", "rm", "-f", name]).map(drop)
}

fn on_host(on: &dyn Subject, script: &str) -> Result<String> {
    let output = on.on_host("sh").args(["-c", script]).in_time()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// CVE-2018-15664 and its like. Whether a copy succeeds is a matter of the moment; where it leads is not. It goes on until the race is known
/// to be one: until copies have met the directory, and the link.
fn links_that_change_lead_no_copy_out(on: &dyn Subject) -> Result<()> {
    const TRIES: usize = 20;
    on_host(on, "echo secret >/run/raced-secret")?;
    racing(on, "race-copy")?;
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header(6), "raced-in", &b"inside"[..])?;
    let archive = archive.into_inner()?;
    let place = "/containers/race-copy/archive?path=/race/x";
    let (mut out, mut met) = (false, BTreeSet::new());
    until("copies that meet the directory and the link", || {
        for _ in 0..TRIES {
            on.api().call(Method::PUT, place, &[], archive.clone())?;
            let copied = on.api().get(&format!("{place}/raced-secret"))?.body;
            let has = |text: &[u8]| copied.windows(text.len()).any(|part| part == text);
            ensure!(!has(b"secret\n"), "the host's file came out");
            out |= has(b"inside\n");
        }
        let script = "rm /run/raced-in && echo link; rm /race/?/raced-in && echo directory";
        let seen = on.docker().run(["exec", "race-copy", "sh", "-c", script])?.out;
        met.extend(seen.lines().map(str::to_owned));
        Ok((out && met.len() == 2).then_some(()))
    })?;
    end_race(on, "race-copy")?;
    ensure!(on_host(on, "ls /run/raced-in 2>/dev/null; rm /run/raced-secret")?.is_empty(), "a file went out");
    Ok(())
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header
}

/// CVE-2021-30465: what is mounted in a volume that another container changes, until that has met the directory and the link.
fn links_that_change_lead_no_mount_out(on: &dyn Subject) -> Result<()> {
    racing(on, "race-mount")?;
    let run = ["run", "--rm", "--network", "none", "-v", "race-mount:/race", "--tmpfs", "/race/x/raced"];
    let mut met = BTreeSet::new();
    until("mounts that meet the directory and the link", || {
        let mounted = on.docker().run(run.iter().chain(&[
            "busybox",
            "grep",
            "-o",
            " /r[^ ]*/raced ",
            "/proc/mounts",
        ]))?;
        met.extend(mounted.out.lines().map(|place| place.trim().starts_with("/run/")));
        Ok((met.len() == 2).then_some(()))
    })?;
    end_race(on, "race-mount")?;
    let left = on_host(on, "ls -d /run/raced 2>/dev/null; grep raced /proc/self/mounts || true")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
