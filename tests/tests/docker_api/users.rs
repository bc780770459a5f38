//! `--userns-remap`: containers whose users are not the host's, on engines that are started with it. Every case runs on Caisson and on dockerd.

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::Bounded;
use caisson_tests::engine::Setting;
use caisson_tests::subject::Subject;
use serde_json::json;

/// Ids of a user whom every Debian has, granted in the engine's own namespaces only.
pub(crate) const SETTING: Setting = Setting {
    before: "echo games:100000:65536 >/run/granted && mount --bind /run/granted /etc/subuid && mount --bind /run/granted /etc/subgid",
    arguments: &["--userns-remap", "games"],
};

/// One thing that an engine with remapped users must do.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&dyn Subject) -> Result<()>,
}

macro_rules! cases {
    ($list:ident: $($name:ident),+ $(,)?) => {
        pub(crate) const $list: &[Case] = &[$(Case { name: stringify!($name), run: $name }),+];
    };
}

cases![
    BOTH:
    root_in_a_container_is_nobody_on_the_host,
    the_engine_tells_of_it,
    what_is_the_host_s_cannot_be_shared,
    a_container_can_have_the_host_s_users,
    its_files_and_streams_are_its_users,
    what_is_added_has_its_users,
    a_terminal_is_its_user_s,
    a_volume_is_filled_for_its_users,
    a_directory_of_the_host_s_stays_the_host_s,
    a_volume_of_the_host_s_directory_stays_the_host_s,
    an_image_of_it_has_its_owners,
    namespaces_are_shared_with_their_users,
    its_network_is_its_own,
    rights_are_over_its_own_only,
];

cases![
    OURS:
    the_host_s_users_find_the_image_s_owners,
    a_mounted_image_has_its_users,
    a_device_has_its_owner_and_another_name,
    a_volume_is_shared_with_the_host_s_users,
    its_cgroup_is_its_root_s_if_it_may_arrange_it,
    files_go_in_and_out_with_their_owners,
];

fn run(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let mut all = vec!["run", "--rm"];
    all.extend(args);
    on.docker().ok(all)
}

fn shell(on: &dyn Subject, script: &str) -> Result<String> {
    run(on, &["busybox", "sh", "-c", script])
}

fn on_host(on: &dyn Subject, script: &str) -> Result<String> {
    let output = on.on_host("sh").args(["-c", script]).in_time()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn root_in_a_container_is_nobody_on_the_host(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "remapped", "busybox", "sleep", "1000"])?;
    let maps = docker.ok(["exec", "remapped", "cat", "/proc/self/uid_map", "/proc/self/gid_map"])?;
    ensure!(words(&maps) == ["0", "100000", "65536", "0", "100000", "65536"], "{maps}");
    let pid = docker.ok(["inspect", "-f", "{{.State.Pid}}", "remapped"])?;
    let status = on_host(on, &format!("grep -h '^[UG]id:' /proc/{pid}/status"))?;
    ensure!(words(&status)[1..5] == ["100000"; 4] && words(&status)[6..] == ["100000"; 4], "{status}");
    docker.ok(["restart", "-t", "0", "remapped"])?;
    ensure!(docker.ok(["exec", "remapped", "id", "-u"])? == "0");
    docker.ok(["rm", "-f", "remapped"])?;
    let user =
        run(on, &["--user", "1000:1001", "busybox", "sh", "-c", "id -u; id -g; cat /proc/self/setgroups"])?;
    ensure!(words(&user) == ["1000", "1001", "allow"], "{user}");
    Ok(())
}

fn the_engine_tells_of_it(on: &dyn Subject) -> Result<()> {
    let told = on.docker().ok(["info", "-f", "{{.DockerRootDir}} {{.SecurityOptions}}"])?;
    let (root, options) = told.split_once(' ').context("two words")?;
    ensure!(root.ends_with("/100000.100000"), "{root}");
    ensure!(options.contains("name=userns"), "{options}");
    Ok(())
}

fn what_is_the_host_s_cannot_be_shared(on: &dyn Subject) -> Result<()> {
    let cases = [
        (
            "--privileged",
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        ("--network=host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
    ];
    for (option, why) in cases {
        let answer = on.docker().run(["run", "--rm", option, "busybox", "true"])?;
        ensure!(
            answer.status == 125 && answer.err.contains(&format!("Error response from daemon: {why}\n")),
            "{answer:?}"
        );
        run(on, &[option, "--userns=host", "busybox", "true"])?;
    }
    Ok(())
}

fn a_container_can_have_the_host_s_users(on: &dyn Subject) -> Result<()> {
    let map = run(on, &["--userns=host", "busybox", "cat", "/proc/self/uid_map"])?;
    ensure!(words(&map) == ["0", "0", "4294967295"], "{map}");
    Ok(())
}

fn its_files_and_streams_are_its_users(on: &dyn Subject) -> Result<()> {
    let script = "stat -c %u:%g / /bin/busybox /etc/hosts /etc/resolv.conf /etc/hostname /dev/shm; touch /new && stat -c %u:%g /new; \
        echo x >>/etc/hosts; mkdir -p /a/b && chown 12:13 /a/b && stat -c %u:%g /a/b; echo out >/dev/stdout; echo ok >/dev/null; mount -t tmpfs x /mnt 2>/dev/null && echo mounted; true";
    let told = shell(on, script)?;
    ensure!(told == "0:0\n".repeat(7) + "12:13\nout", "{told}");
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; touch /tmp/x; stat -c %u:%g /tmp/x";
    let answer = on.docker().run(["run", "--rm", "--user", "33:44", "busybox", "sh", "-c", script])?;
    ensure!(answer.out == "out\n33:44\n" && answer.err == "err\n", "{answer:?}");
    Ok(())
}

fn what_is_added_has_its_users(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "added-users", "busybox", "sleep", "1000"])?;
    let script = "id -u; cat /proc/self/uid_map; echo out >/dev/stdout; touch /by-exec; stat -c %u /by-exec; for n in user mnt net pid ipc uts cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done";
    let told = docker.ok(["exec", "added-users", "sh", "-c", script])?;
    ensure!(words(&told) == ["0", "0", "100000", "65536", "out", "0"], "{told}");
    let told =
        docker.ok(["exec", "--user", "7", "added-users", "sh", "-c", "id -u; echo out >/dev/stdout"])?;
    ensure!(words(&told) == ["7", "out"], "{told}");
    let top = docker.ok(["top", "added-users", "-o", "pid,uid"])?;
    ensure!(top.contains("100000"), "{top}");
    docker.ok(["rm", "-f", "added-users"])?;
    Ok(())
}

fn a_terminal_is_its_user_s(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-dt", "--name", "users-tty", "busybox", "sleep", "1000"])?;
    // Of the first process, and of one that is added with a terminal.
    let script = "readlink /proc/1/fd/0; stat -c %u:%g $(readlink /proc/1/fd/0); tty; stat -c %u:%g $(tty); echo x >/dev/tty";
    let added = on.api().post(
        "/containers/users-tty/exec",
        &json!({"Cmd": ["sh", "-c", script], "Tty": true, "AttachStdout": true}),
    )?;
    let id = added.json()?["Id"].as_str().context("no id")?.to_owned();
    let told = on.api().post(&format!("/exec/{id}/start"), &json!({"Tty": true}))?;
    let told = String::from_utf8(told.body)?;
    let owners = words(&told);
    ensure!(
        owners[0].starts_with("/dev/pts/") && owners[2].starts_with("/dev/pts/") && owners[0] != owners[2],
        "{told}"
    );
    ensure!(owners[1].starts_with("0:") && owners[3].starts_with("0:") && owners[4..] == ["x"], "{told}");
    docker.ok([
        "run",
        "-dt",
        "--name",
        "users-tty-done",
        "busybox",
        "sh",
        "-c",
        "stat -c %u $(tty); stat -c %u /dev/console; echo x >/dev/tty",
    ])?;
    docker.ok(["wait", "users-tty-done"])?;
    let told = docker.ok(["logs", "users-tty-done"])?;
    ensure!(words(&told) == ["0", "0", "x"], "{told}");
    docker.ok(["rm", "-f", "users-tty", "users-tty-done"])?;
    Ok(())
}

fn a_volume_is_filled_for_its_users(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--name",
        "users-filled",
        "busybox",
        "sh",
        "-c",
        "mkdir /full && touch /full/mine /full/other && chown 5:6 /full/other && chown 7:8 /full",
    ])?;
    docker.ok(["commit", "users-filled", "users-filled"])?;
    let script = "stat -c %u:%g /full /full/mine /full/other; touch /full/new && chown 9 /full/new && stat -c %u /full/new";
    let told = run(on, &["-v", "users-volume:/full", "users-filled", "sh", "-c", script])?;
    ensure!(words(&told) == ["7:8", "0:0", "5:6", "9"], "{told}");
    let told = run(on, &["-v", "users-volume:/v", "busybox", "stat", "-c", "%u", "/v/new"])?;
    ensure!(told == "9", "{told}");
    docker.ok(["rm", "users-filled"])?;
    docker.ok(["volume", "rm", "users-volume"])?;
    docker.ok(["rmi", "users-filled"])?;
    Ok(())
}

fn a_directory_of_the_host_s_stays_the_host_s(on: &dyn Subject) -> Result<()> {
    on_host(on, "mkdir -p /run/users && echo root >/run/users/root && mkdir -m 777 /run/users/all")?;
    let script = "stat -c %u:%g /b/root; cat /b/root; (echo x >/b/root) 2>/dev/null && echo wrote; touch /b/new 2>/dev/null && echo made; touch /b/all/new; stat -c %u /b/all/new; chown 0 /b/root 2>/dev/null && echo owned; true";
    let told = run(on, &["-v", "/run/users:/b", "busybox", "sh", "-c", script])?;
    ensure!(words(&told) == ["65534:65534", "root", "0"], "{told}");
    ensure!(on_host(on, "stat -c %u:%g /run/users/all/new; rm -r /run/users")? == "100000:100000");
    Ok(())
}

/// What a volume's options name is not the containers'.
fn a_volume_of_the_host_s_directory_stays_the_host_s(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    on_host(
        on,
        "mkdir -p /run/users-bound && echo root >/run/users-bound/root && mkdir -m 777 /run/users-bound/all",
    )?;
    let create = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/run/users-bound"];
    docker.ok(create.iter().chain(&["users-bound"]))?;
    let script = "stat -c %u:%g /b/root; cat /b/root; (echo x >/b/root) 2>/dev/null && echo wrote; touch /b/new 2>/dev/null && echo made; touch /b/all/new; stat -c %u /b/all/new; chown 0 /b/root 2>/dev/null && echo owned; true";
    let told = run(on, &["-v", "users-bound:/b", "busybox", "sh", "-c", script])?;
    ensure!(words(&told) == ["65534:65534", "root", "0"], "{told}");
    ensure!(on_host(on, "stat -c %u:%g /run/users-bound/all/new")? == "100000:100000");
    docker.ok(["volume", "rm", "users-bound"])?;
    // Filled from an image, what it is filled with is the containers'.
    on_host(on, "rm -r /run/users-bound/*")?;
    docker.ok(create.iter().chain(&["users-bound"]))?;
    let told = run(on, &["-v", "users-bound:/etc", "busybox", "stat", "-c", "%u:%g", "/etc/passwd"])?;
    ensure!(told == "0:0", "{told}");
    ensure!(on_host(on, "stat -c %u:%g /run/users-bound/passwd; rm -r /run/users-bound")? == "100000:100000");
    docker.ok(["volume", "rm", "users-bound"]).map(drop)
}

/// The owner of the first file of `docker cp`'s archive of a path is this.
fn copy_is_of(on: &dyn Subject, what: &str, owner: (u64, u64)) -> Result<()> {
    let output = on.docker().command(["cp", what, "-"])?.in_time()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let entry = archive.entries()?.next().context("an empty archive")??;
    let found = (entry.header().uid()?, entry.header().gid()?);
    ensure!(found == owner, "{what} is {found:?}'s, not {owner:?}'s");
    Ok(())
}

/// dockerd's `docker cp` out tells of the host's numbers.
fn files_go_in_and_out_with_their_owners(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "users-cp",
        "-v",
        "/volume",
        "busybox",
        "sh",
        "-c",
        "touch /mine /volume/mine && chown 21:22 /mine /volume/mine; sleep 1000",
    ])?;
    docker.ok([
        "exec",
        "users-cp",
        "sh",
        "-c",
        "until [ $(stat -c %u /volume/mine) = 21 ]; do sleep 0.05; done",
    ])?;
    let mut builder = tar::Builder::new(Vec::new());
    for (name, uid, gid) in [("given", 31, 32), ("root", 0, 0)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(2);
        builder.append_data(&mut header, name, &b"x\n"[..])?;
    }
    let archive = builder.into_inner()?;
    for running in [true, false] {
        copy_is_of(on, "users-cp:/mine", (21, 22))?;
        copy_is_of(on, "users-cp:/volume/mine", (21, 22))?;
        for place in ["/tmp", "/volume"] {
            docker.feed(["cp", "-a", "-", &format!("users-cp:{place}")], &archive)?.ok()?;
            copy_is_of(on, &format!("users-cp:{place}/given"), (31, 32))?;
            copy_is_of(on, &format!("users-cp:{place}/root"), (0, 0))?;
        }
        if running {
            let seen = docker.ok([
                "exec",
                "users-cp",
                "stat",
                "-c",
                "%u:%g",
                "/tmp/given",
                "/tmp/root",
                "/volume/given",
                "/volume/root",
            ])?;
            ensure!(words(&seen) == ["31:32", "0:0", "31:32", "0:0"], "{seen}");
            let exported = docker.command(["export", "users-cp"])?.in_time()?;
            let mut archive = tar::Archive::new(&exported.stdout[..]);
            for entry in archive.entries()? {
                let entry = entry?;
                let (uid, path) = (entry.header().uid()?, entry.path()?.into_owned());
                ensure!(uid < 65536, "{} is {uid}'s", path.display());
                ensure!(path != std::path::Path::new("mine") || uid == 21, "{uid}");
            }
            docker.ok(["exec", "users-cp", "rm", "/tmp/given", "/volume/given"])?;
            docker.ok(["stop", "-t", "0", "users-cp"])?;
        }
    }
    docker.ok(["start", "users-cp"])?;
    let seen = docker.ok(["exec", "users-cp", "stat", "-c", "%u:%g", "/tmp/given", "/volume/given"])?;
    ensure!(words(&seen) == ["31:32", "31:32"], "{seen}");
    let changes = docker.ok(["diff", "users-cp"])?;
    ensure!(
        changes.contains("A /mine") && changes.contains("A /tmp/given") && !changes.contains("/bin"),
        "{changes}"
    );
    docker.ok(["rm", "-fv", "users-cp"])?;
    Ok(())
}

fn an_image_of_it_has_its_owners(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--name",
        "users-commit",
        "busybox",
        "sh",
        "-c",
        "touch /one && chown 41:42 /one && mkdir /two && rm -r /var",
    ])?;
    docker.ok(["commit", "users-commit", "users-commit"])?;
    let told =
        run(on, &["users-commit", "sh", "-c", "stat -c %u:%g /one /two /etc; ls -d /var 2>/dev/null; true"])?;
    ensure!(words(&told) == ["41:42", "0:0", "0:0"], "{told}");
    docker.ok(["rm", "users-commit"])?;
    docker.ok(["rmi", "users-commit"])?;
    Ok(())
}

fn namespaces_are_shared_with_their_users(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "users-donor",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "echo shared >/dev/shm/file; sleep 1000",
    ])?;
    let users = docker.ok(["exec", "users-donor", "readlink", "/proc/1/ns/user"])?;
    for (option, kind) in [("--network", "net"), ("--ipc", "ipc"), ("--pid", "pid")] {
        let own = docker.ok(["exec", "users-donor", "readlink", &format!("/proc/1/ns/{kind}")])?;
        let script = format!("readlink /proc/self/ns/user; readlink /proc/self/ns/{kind}; id -u");
        let told = run(on, &[option, "container:users-donor", "busybox", "sh", "-c", &script])?;
        ensure!(words(&told) == [users.as_str(), own.as_str(), "0"], "{option}: {told}");
    }
    ensure!(run(on, &["--ipc", "container:users-donor", "busybox", "cat", "/dev/shm/file"])? == "shared");
    docker.ok(["rm", "-f", "users-donor"])?;
    Ok(())
}

fn its_network_is_its_own(on: &dyn Subject) -> Result<()> {
    let told = run(
        on,
        &[
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "busybox",
            "sh",
            "-c",
            "ping -c1 -W9 127.0.0.1 >/dev/null && echo pinged; cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; ip link set lo down 2>/dev/null && echo downed; true",
        ],
    )?;
    ensure!(words(&told) == ["pinged", "1", "eth0", "lo"], "{told}");
    let told = run(
        on,
        &[
            "--cap-add",
            "NET_ADMIN",
            "busybox",
            "sh",
            "-c",
            "ip link set lo down && echo downed; ip route | grep -c default",
        ],
    )?;
    ensure!(words(&told) == ["downed", "1"], "{told}");
    on.docker().ok(["run", "-d", "--name", "users-web", "-p", "28471:80", "web"])?;
    on.fetch("http://127.0.0.1:28471/")?;
    on.docker().ok(["rm", "-f", "users-web"])?;
    let told = run(on, &["--network", "none", "busybox", "ls", "/sys/class/net"])?;
    ensure!(told == "lo", "{told}");
    Ok(())
}

fn rights_are_over_its_own_only(on: &dyn Subject) -> Result<()> {
    let script = "mknod /tmp/d c 1 3 2>/dev/null && echo node; echo 1 2>/dev/null >/proc/sys/kernel/printk && echo printk; hostname other && hostname; mkdir /m; mount -t tmpfs x /m && echo mounted; true";
    let told = run(
        on,
        &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "busybox", "sh", "-c", script],
    )?;
    ensure!(words(&told) == ["other", "mounted"], "{told}");
    let told = run(
        on,
        &[
            "--read-only",
            "--tmpfs",
            "/t",
            "busybox",
            "sh",
            "-c",
            "touch /x 2>/dev/null && echo wrote; touch /t/x && stat -c %u /t/x",
        ],
    )?;
    ensure!(told == "0", "{told}");
    Ok(())
}

/// With dockerd, whose layers are chowned, everything in such a container is somebody else's.
fn the_host_s_users_find_the_image_s_owners(on: &dyn Subject) -> Result<()> {
    let told = run(on, &["--userns=host", "busybox", "stat", "-c", "%u:%g", "/", "/bin/busybox"])?;
    ensure!(words(&told) == ["0:0", "0:0"], "{told}");
    Ok(())
}

/// All of an image of one layer, or a part of it.
fn a_mounted_image_has_its_users(on: &dyn Subject) -> Result<()> {
    for (subpath, file) in [("", "/i/bin/busybox"), (",image-subpath=bin", "/i/busybox")] {
        let mount = format!("type=image,source=busybox,target=/i{subpath}");
        let script = format!("stat -c %u:%g /i {file}; touch /i/x 2>/dev/null || echo refused");
        let told = run(on, &["--mount", &mount, "busybox", "sh", "-c", &script])?;
        ensure!(words(&told) == ["0:0", "0:0", "refused"], "{subpath}: {told}");
    }
    Ok(())
}

/// dockerd shows the host's node, by the host's name for it and as nobody's.
fn a_device_has_its_owner_and_another_name(on: &dyn Subject) -> Result<()> {
    let script = "stat -c %u:%g /dev/null /dev/other; head -c1 /dev/other | wc -c; echo x >/dev/null";
    let told = run(on, &["--device", "/dev/zero:/dev/other:r", "busybox", "sh", "-c", script])?;
    ensure!(words(&told) == ["0:0", "0:0", "1"], "{told}");
    Ok(())
}

/// dockerd's volumes are owned by whom the ids happen to be when they are made.
fn a_volume_is_shared_with_the_host_s_users(on: &dyn Subject) -> Result<()> {
    run(on, &["-v", "users-both:/v", "busybox", "sh", "-c", "touch /v/f && chown 51 /v/f"])?;
    let told =
        run(on, &["--userns=host", "-v", "users-both:/v", "busybox", "stat", "-c", "%u", "/v", "/v/f"])?;
    ensure!(words(&told) == ["0", "51"], "{told}");
    on.docker().ok(["volume", "rm", "users-both"]).map(drop)
}

/// dockerd gives every container with such users a writable mount of a cgroup that is not theirs.
fn its_cgroup_is_its_root_s_if_it_may_arrange_it(on: &dyn Subject) -> Result<()> {
    let script = "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/below 2>/dev/null && echo $$ >/sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup | grep ^0; true";
    let told = run(on, &["--security-opt", "writable-cgroups=true", "busybox", "sh", "-c", script])?;
    ensure!(words(&told) == ["0", "0", "0::/below"], "{told}");
    let told = shell(on, script)?;
    ensure!(words(&told) == ["65534", "65534"], "{told}");
    Ok(())
}
