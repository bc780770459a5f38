//! What a container sees, may do, and says when it cannot be made.

use std::fs;

use crate::rig::{Rig, SHIM, able, demultiplex, read_until, text};
use caisson_shim::proto::Reply;
use serde_json::json;

fn shell(script: &str) -> Rig {
    Rig::new(&["sh", "-c", script])
}

/// What the script prints; it must succeed.
fn printed(rig: Rig) -> String {
    let (stdout, stderr, code) = rig.run();
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

#[test]
fn output_and_exit_code_come_back() {
    if !able() {
        return;
    }
    let (stdout, stderr, code) = shell("echo out; echo err >&2; exit 3").run();
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("out\n", "err\n", 3));
}

#[test]
fn a_signal_is_128_and_its_number() {
    if !able() {
        return;
    }
    assert_eq!(Rig::new(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).run().2, 137);
}

#[test]
fn what_cannot_be_run_is_said_in_dockers_words() {
    if !able() {
        return;
    }
    let cases = [
        (vec!["foo"], "exec: \"foo\": executable file not found in $PATH", 127),
        (vec!["/etc/passwd"], "exec: \"/etc/passwd\": permission denied", 126),
        (vec!["/no/such"], "exec: \"/no/such\": stat /no/such: no such file or directory", 127),
        (vec!["/"], "exec: \"/\": is a directory", 126),
    ];
    for (arguments, message, code) in cases {
        let (_, said, exit) = Rig::new(&arguments).run();
        assert_eq!((said.as_str(), exit), (message, code));
    }
    let (_, said, code) = Rig::new(&["true"]).user("nobody").run();
    assert_eq!(
        (said.as_str(), code),
        ("unable to find user nobody: no matching entries in passwd file", 128)
    );
    let (_, said, code) =
        Rig::new(&["true"]).with(|spec| spec["process"]["cwd"] = json!("/etc/passwd")).run();
    assert_eq!((said.as_str(), code), ("Cannot mkdir: /etc/passwd is not a directory", 126));
}

#[test]
fn a_program_of_a_wrong_format_fails_in_the_container_as_under_dockerd() {
    if !able() {
        return;
    }
    let rig = Rig::new(&["/script"]).file("script", "#!/no/such\n");
    fs::set_permissions(rig.path("layer/script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let (stdout, stderr, code) = rig.run();
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("", "exec /script: no such file or directory\n", 255)
    );
}

#[test]
fn rights_are_dockers() {
    if !able() {
        return;
    }
    let status = printed(Rig::new(&["cat", "/proc/self/status"]));
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "SigIgn:\t0000000000000000",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let other = printed(Rig::new(&["cat", "/proc/self/status"]).user("web"));
    assert!(
        other.contains("CapEff:\t0000000000000000") && other.contains("CapBnd:\t00000000a80425fb"),
        "{other}"
    );
    let rig =
        Rig::new(&["cat", "/proc/self/status"]).with(|spec| spec["process"]["noNewPrivileges"] = json!(true));
    let bound = printed(rig);
    assert!(bound.contains("NoNewPrivs:\t1") && bound.contains("Seccomp:\t2"), "{bound}");
}

#[test]
fn users_and_groups_are_the_containers() {
    if !able() {
        return;
    }
    let script = "id -u; id -g; id -G; echo $HOME; umask; pwd";
    assert_eq!(printed(shell(script).user("web")), "33\n34\n34 29\n/srv/web\n0022\n/\n");
    assert_eq!(printed(shell(script).user("1000:1001")), "1000\n1001\n1001\n/\n0022\n/\n");
    let mut rig = shell("id -G").user("");
    rig.config.group_add = vec!["audio".into(), "77".into()];
    assert_eq!(printed(rig), "0 29 77\n");
    assert_eq!(printed(shell("echo to; echo stdout >/dev/stdout").user("web")), "to\nstdout\n");
}

#[test]
fn it_is_alone_in_its_namespaces() {
    if !able() {
        return;
    }
    let script = "echo $$; hostname; ls /sys/class/net; ip -o addr show lo | head -n1 | cut -d' ' -f7; \
                  cat /proc/self/cgroup; ps -o comm= | sort | uniq | head -n1";
    let told = printed(shell(script));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..4], ["1", "box", "lo", "127.0.0.1/8"], "{told}");
    assert!(lines.contains(&"0::/"), "{told}");
}

#[test]
fn the_kernels_files_are_masked_and_read_only() {
    if !able() {
        return;
    }
    let script = "cat /proc/keys /proc/timer_list; ls /sys/firmware/; \
        for f in /proc/sys/kernel/hostname /sys/kernel/x /sys/fs/cgroup/x /sys/firmware/x; \
        do (echo 1 >$f) 2>&1 | grep -o 'Read-only file system\\|Permission denied'; done; true";
    let told = printed(shell(script));
    let read_only = told.lines().filter(|line| *line == "Read-only file system").count();
    assert_eq!((read_only, told.lines().count()), (4, 4), "{told}");
}

#[test]
fn dangerous_calls_are_filtered() {
    if !able() {
        return;
    }
    let script = "unshare -U true; mount -t tmpfs x /tmp; swapoff /x; chroot / true && echo chroot; mknod /tmp/n c 1 3 && echo mknod";
    let (stdout, stderr, _) = shell(script).run();
    assert_eq!(stdout, "chroot\nmknod\n");
    assert_eq!(
        stderr.matches("Operation not permitted").count() + stderr.matches("permission denied").count(),
        3,
        "{stderr}"
    );
}

#[test]
fn devices_and_links_are_there() {
    if !able() {
        return;
    }
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        head -c 3 /dev/zero | wc -c; for l in ptmx fd stdin; do readlink /dev/$l; done; echo x >/dev/null; \
        stat -c %a /dev/null /dev /dev/shm; df /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2; test -p /dev/stdout && echo pipe";
    let expected = "3\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n666\n755\n1777\n65536\npipe\n";
    assert_eq!(printed(shell(script)), expected);
}

#[test]
fn a_device_that_it_makes_is_not_its_to_use() {
    if !able() {
        return;
    }
    let host = fs::File::open("/dev/fuse").is_ok();
    if !host || caisson_runtime::cgroup::mount_point().is_none() {
        eprintln!("skipped: needs cgroup v2, and /dev/fuse (have it: {host})");
        return;
    }
    let script = "mknod /tmp/fuse c 10 229; mknod /tmp/null c 1 3; echo x >/tmp/null && echo null; exec 3</tmp/fuse && echo fuse";
    let (stdout, stderr, _) = shell(script).run();
    assert_eq!(stdout, "null\n");
    assert!(stderr.contains("/tmp/fuse: Operation not permitted"), "{stderr}");
    let all = json!([{"allow": true, "type": "a", "access": "rwm"}]);
    let privileged = shell(script).with(|spec| spec["linux"]["resources"]["devices"] = all);
    assert_eq!(printed(privileged), "null\nfuse\n");
}

#[test]
fn nothing_of_the_shim_is_open_in_it() {
    if !able() {
        return;
    }
    let mut open: Vec<String> =
        printed(Rig::new(&["ls", "/proc/self/fd"])).lines().map(str::to_owned).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2", "3"], "3 is the directory that is listed");
}

/// CVE-2019-5736.
#[test]
fn the_shim_s_own_program_cannot_be_run_in_it() {
    if !able() {
        return;
    }
    let executable = |rig: Rig, name: &str| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(rig.path("layer").join(name), mode).unwrap();
        rig
    };
    let link = Rig::new(&["/evil"]);
    std::os::unix::fs::symlink("/proc/self/exe", link.path("layer/evil")).unwrap();
    let script = executable(Rig::new(&["/evil"]).file("evil", "#!/proc/self/exe\n"), "evil");
    for rig in [link, script] {
        let (stdout, said, code) = rig.run();
        assert_eq!((stdout.as_str(), said.as_str(), code), ("", "exec: \"/evil\": permission denied", 126));
    }
    let running = Rig::new(&["sleep", "1000"]);
    std::os::unix::fs::symlink("/proc/self/exe", running.path("layer/evil")).unwrap();
    let running = running.spawn();
    running.start().unwrap();
    let (reply, _) = running.exec("evil", &["/evil"]);
    let refused = "exec: \"/evil\": permission denied";
    assert!(matches!(reply, Reply::Failed(failure) if failure.message == refused));
    // A container's init is the same file. Here it needs libraries that the image lacks, so it is only tried.
    let init = Rig::new(&["/sbin/docker-init", "--", "true"]);
    let (_, said, _) = init.mount(SHIM.as_ref(), "/sbin/docker-init", &["bind", "ro"]).run();
    assert!(!said.contains("permission denied"), "{said}");
}

#[test]
fn a_process_that_is_killed_before_it_is_the_program_is_a_failed_start() {
    if !able() {
        return;
    }
    // The last call before the program that nobody else makes.
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["setresuid"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    let (_, said, code) = Rig::new(&["true"]).with(|spec| spec["linux"]["seccomp"] = filter).run();
    assert_eq!((said.as_str(), code), ("container init exited prematurely: killed by signal 31", 128));
}

#[test]
fn the_shim_s_limit_of_open_files_is_not_the_container_s() {
    if !able() {
        return;
    }
    let mut rig = shell("ulimit -n; sleep 1000");
    rig.before = "ulimit -Sn 64;".into();
    let shim = rig.spawn();
    let mut stream = shim.attach(false);
    shim.start().unwrap();
    assert_eq!(read_until(&mut stream, "64\n")[8..], *"64\n");
    let (_, added) = shim.exec("added", &["sh", "-c", "ulimit -n"]);
    assert_eq!(text(demultiplex(added).0), "64\n");
    let limits = fs::read_to_string(format!("/proc/{}/limits", shim.process.id())).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = open.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{open}");
}

#[test]
fn binds_are_what_was_asked_for() {
    if !able() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "host\n").unwrap();
    let write = "cat /data/file; echo new >/data/new && echo wrote";
    let rig = || shell(write);
    let (stdout, stderr, _) = rig().mount(host.path(), "/data", &["rbind", "rprivate", "rro"]).run();
    assert_eq!(stdout, "host\n");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
    assert_eq!(printed(rig().mount(host.path(), "/data", &["rbind", "rprivate"])), "host\nwrote\n");
    assert_eq!(fs::read_to_string(host.path().join("new")).unwrap(), "new\n");
    let file =
        Rig::new(&["cat", "/new/dir/hosts"]).mount(&host.path().join("file"), "/new/dir/hosts", &["bind"]);
    assert_eq!(printed(file), "host\n");
    let (_, said, code) = Rig::new(&["true"]).mount(host.path(), "/etc/passwd", &["bind"]).run();
    assert_eq!(code, 128);
    assert!(said.contains("Are you trying to mount a directory onto a file"), "{said}");
}

#[test]
fn links_in_the_image_do_not_move_mounts_out() {
    if !able() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "host\n").unwrap();
    let outside = tempfile::tempdir().unwrap();
    let rig = Rig::new(&["cat", "/link/x/file"]);
    std::os::unix::fs::symlink(outside.path(), rig.path("layer/link")).unwrap();
    let inside = format!("{}/x/file", outside.path().display());
    assert_eq!(
        printed(rig.mount(host.path(), "/link/x", &["bind"])),
        "host\n",
        "it is at {inside} in the container"
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn proc_cannot_be_covered_nor_diverted() {
    if !able() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let (_, said, _) = Rig::new(&["true"]).mount(host.path(), "/proc/sys", &["bind"]).run();
    assert!(said.contains("cannot be mounted because it is inside /proc"), "{said}");
    let rig = Rig::new(&["true"]);
    fs::create_dir(rig.path("layer/elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", rig.path("layer/proc")).unwrap();
    let (_, said, _) = rig.run();
    assert!(said.contains("must be mounted on ordinary directory"), "{said}");
}

#[test]
fn the_root_can_be_read_only_with_places_to_write() {
    if !able() {
        return;
    }
    let rig =
        shell("echo x >/x || echo ro; echo y >/scratch/y && cat /scratch/y; touch /frozen/z || echo frozen")
            .with(|spec| {
                spec["root"]["readonly"] = json!(true);
                let mounts = spec["mounts"].as_array_mut().unwrap();
                mounts.push(
            json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}),
        );
                mounts.push(
                    json!({"destination": "/frozen", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
                );
            });
    let (stdout, _, code) = rig.run();
    assert_eq!((stdout.as_str(), code), ("ro\ny\nfrozen\n", 0));
}

#[test]
fn what_it_writes_is_in_its_layer_and_its_directory_is_made() {
    if !able() {
        return;
    }
    let mut shim =
        shell("pwd; echo kept >file").with(|spec| spec["process"]["cwd"] = json!("/srv/app")).spawn();
    shim.start().unwrap();
    assert_eq!(shim.wait().code, 0);
    shim.gone();
    assert_eq!(fs::read_to_string(shim.path("upper/srv/app/file")).unwrap(), "kept\n");
    assert_eq!(shim.log(), [("stdout".to_string(), "/srv/app\n".to_string())]);
}

#[test]
fn parameters_and_limits_are_set() {
    if !able() {
        return;
    }
    let rig =
        shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ulimit -n; cat /proc/self/oom_score_adj")
            .with(|spec| {
                spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
                spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
                spec["process"]["oomScoreAdj"] = json!(500);
            });
    assert_eq!(printed(rig), "0\n100\n500\n");
    let (_, said, _) =
        Rig::new(&["true"]).with(|spec| spec["linux"]["sysctl"] = json!({"vm.swappiness": "1"})).run();
    assert_eq!(said, "runc create failed: sysctl \"vm.swappiness\" is not in a separate kernel namespace");
}

/// On a machine with the controller in cgroup v2 the file shows the limit; on others the container is refused, by name.
#[test]
fn a_limit_holds_or_is_refused() {
    if !able() {
        return;
    }
    let mounted = caisson_runtime::cgroup::mount_point();
    let available =
        mounted.and_then(|at| fs::read_to_string(at.join("cgroup.controllers")).ok()).unwrap_or_default();
    for (controller, file, limit, asked, shown) in [
        ("pids", "pids.max", "process limit", json!({"pids": {"limit": 77}}), "77\n"),
        ("memory", "memory.max", "memory limit", json!({"memory": {"limit": 33_554_432}}), "33554432\n"),
        ("cpu", "cpu.max", "CPU quota", json!({"cpu": {"quota": 50_000}}), "50000 100000\n"),
        (
            "hugetlb",
            "hugetlb.2MB.max",
            "huge page limit",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "4194304\n",
        ),
    ] {
        let rig = Rig::new(&["cat", &format!("/sys/fs/cgroup/{file}")]);
        let (stdout, said, code) = rig.with(|spec| spec["linux"]["resources"] = asked).run();
        if available.split_whitespace().any(|name| name == controller) {
            assert_eq!((stdout.as_str(), code), (shown, 0), "{said}");
        } else {
            assert!(said.starts_with(&format!("cannot set the {limit}: ")), "{said}");
            assert_eq!(code, 128);
        }
    }
}

#[test]
fn a_namespace_can_be_joined() {
    if !able() {
        return;
    }
    let first = Rig::new(&["sleep", "1000"]).spawn();
    let pid = first.start().unwrap();
    let rig = shell("hostname; readlink /proc/self/ns/net").with(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        for namespace in namespaces.iter_mut() {
            let path = match namespace["type"].as_str().unwrap() {
                "network" => format!("/proc/{pid}/ns/net"),
                "uts" => format!("/proc/{pid}/ns/uts"),
                "pid" => format!("/proc/{pid}/ns/pid"),
                _ => continue,
            };
            namespace["path"] = json!(path);
        }
        spec["hostname"] = json!("");
    });
    let network = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(printed(rig), format!("box\n{}\n", network.display()));
}
