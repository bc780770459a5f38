//! How a container begins, is talked to, and ends.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::rig::{Rig, Shim, able, demultiplex, read_until, send, text};
use caisson_shim::Stdin;
use caisson_shim::config::SOCKET_FILE;
use caisson_shim::proto::{Reply, Request, State, read_frame, write_frame};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::json;

fn shell(script: &str) -> Rig {
    Rig::new(&["sh", "-c", script])
}

/// Waits for the end of any process, not only a child.
fn wait_for_end(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut watched, Some(&limit)).unwrap(), 1, "it lives on");
}

fn finish(mut shim: Shim) -> i32 {
    let code = shim.wait().code;
    shim.gone();
    code
}

#[test]
fn a_terminal_is_the_containers_own() {
    if !able() {
        return;
    }
    let script = "tty; test -t 0 && echo input; stty size; ls -l /dev/console | cut -c1; read line; echo got $line; stty size";
    let rig = shell(script).terminal().stdin(Stdin::Open);
    let shim = rig.with(|spec| spec["process"]["consoleSize"] = json!({"height": 30, "width": 100})).spawn();
    let mut stream = shim.attach(true);
    shim.start().unwrap();
    let told = read_until(&mut stream, "c\r\n");
    assert_eq!(told, "/dev/pts/0\r\ninput\r\n30 100\r\nc\r\n");
    assert_eq!(shim.ask(&Request::Resize { rows: 5, cols: 50 }).0, Reply::Done);
    send(&mut stream, "word\n");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "word\r\ngot word\r\n5 50\r\n");
    assert_eq!(shim.log().iter().map(|(stream, _)| stream.as_str()).collect::<Vec<_>>(), ["stdout"; 7]);
    assert_eq!(finish(shim), 0);
}

#[test]
fn a_terminals_user_owns_it_and_ctrl_c_reaches_the_program() {
    if !able() {
        return;
    }
    let script =
        "stat -c %u /dev/pts/0; trap 'echo caught; exit 4' INT; echo ready; while true; do true; done";
    let shim = shell(script).terminal().stdin(Stdin::Open).user("web").spawn();
    let mut stream = shim.attach(true);
    shim.start().unwrap();
    assert_eq!(read_until(&mut stream, "ready\r\n"), "33\r\nready\r\n");
    stream.write_all(&[3]).unwrap();
    assert!(read_until(&mut stream, "caught\r\n").ends_with("caught\r\n"));
    assert_eq!(finish(shim), 4);
}

#[test]
fn a_half_close_ends_input_and_not_output() {
    if !able() {
        return;
    }
    let shim = shell("wc -c; echo after").stdin(Stdin::Once).spawn();
    let mut stream = shim.attach(true);
    shim.start().unwrap();
    stream.write_all(&vec![b'x'; 300_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(demultiplex(stream).0), "300000\nafter\n");
    assert_eq!(finish(shim), 0);
}

#[test]
fn open_input_outlives_a_client() {
    if !able() {
        return;
    }
    let shim = shell("read a; echo 1 $a; read a; echo 2 $a").stdin(Stdin::Open).spawn();
    let mut first = shim.attach(true);
    shim.start().unwrap();
    let mut watching = shim.attach(false);
    send(&mut first, "one\n");
    assert_eq!(read_until(&mut watching, "1 one\n")[8..], *"1 one\n");
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(demultiplex(first).0), "1 one\n", "the client is detached, as by dockerd");
    send(&mut shim.attach(true), "two\n");
    assert_eq!(text(demultiplex(watching).0), "2 two\n");
    assert_eq!(finish(shim), 0);
}

#[test]
fn input_before_the_start_waits_for_it() {
    if !able() {
        return;
    }
    let shim = Rig::new(&["cat"]).stdin(Stdin::Once).spawn();
    let mut stream = shim.attach(true);
    send(&mut stream, "early\n");
    stream.shutdown(Shutdown::Write).unwrap();
    shim.start().unwrap();
    assert_eq!(text(demultiplex(stream).0), "early\n");
    assert_eq!(finish(shim), 0);
}

#[test]
fn all_clients_get_all_bytes_however_slow_they_are() {
    if !able() {
        return;
    }
    const LINES: usize = 200_000; // 1.3 MB: more than a client's queue, a socket's and a pipe's buffers together
    let shim = shell(&format!("seq {LINES}")).spawn();
    let slow = shim.attach(false);
    let fast = shim.attach(false);
    shim.start().unwrap();
    let reading = std::thread::spawn(move || demultiplex(fast).0);
    // The fast one is held up by the slow one, which has not read a byte, and the container by both.
    assert!(matches!(state(&shim), State::Running { .. }));
    let (slow, _) = demultiplex(slow);
    let fast = reading.join().unwrap();
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(slow == expected.as_bytes() && fast == slow);
    assert_eq!(shim.log().len(), LINES);
    assert_eq!(finish(shim), 0);
}

fn state(shim: &Shim) -> State {
    match shim.ask(&Request::State).0 {
        Reply::State(state) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_goes_away_holds_nothing_up() {
    if !able() {
        return;
    }
    let shim = shell("seq 200000; echo end").spawn();
    let gone = shim.attach(false);
    shim.start().unwrap();
    drop(gone);
    assert_eq!(finish(shim), 0);
}

#[test]
fn requests_fit_the_stage_or_are_refused() {
    if !able() {
        return;
    }
    let shim = Rig::new(&["sleep", "1000"]).spawn();
    let refused = |request: &Request| matches!(shim.ask(request).0, Reply::Refused { .. });
    assert_eq!(state(&shim), State::Created);
    assert!(refused(&Request::Signal { signal: 15 }) && refused(&Request::Resize { rows: 1, cols: 1 }));
    let mut early = shim.connect();
    write_frame(&mut early, &Request::Wait).unwrap();
    let pid = shim.start().unwrap();
    assert!(matches!(state(&shim), State::Running { pid: told, .. } if told == pid));
    assert!(
        refused(&Request::Start) && refused(&Request::Discard) && refused(&Request::Signal { signal: 999 })
    );
    // A first process without a handler takes no SIGTERM; SIGKILL it cannot refuse.
    assert_eq!(shim.ask(&Request::Signal { signal: 15 }).0, Reply::Done);
    assert_eq!(shim.ask(&Request::Signal { signal: 9 }).0, Reply::Done);
    let Reply::Exited(record) = read_frame(&mut early).unwrap() else { panic!("no end") };
    assert_eq!((record.code, record.oom_killed, record.failure.clone()), (137, false, None));
    let written = serde_json::from_slice(&fs::read(shim.path("exit.json")).unwrap()).unwrap();
    assert_eq!(record, written);
    assert_eq!(finish(shim), 137);
}

#[test]
fn who_watches_is_told_at_once_and_of_the_end() {
    if !able() {
        return;
    }
    let mut shim = Rig::new(&["sleep", "1000"]).spawn();
    let watch = |shim: &Shim| {
        let (reply, stream) = shim.ask(&Request::Watch);
        assert_eq!(reply, Reply::OomKills { count: 0 });
        stream
    };
    let mut watching = vec![watch(&shim)];
    shim.start().unwrap();
    // Also a later engine.
    watching.push(watch(&shim));
    assert_eq!(shim.ask(&Request::Signal { signal: 9 }).0, Reply::Done);
    for mut stream in watching {
        let Reply::Exited(record) = read_frame(&mut stream).unwrap() else { panic!("no end") };
        assert_eq!(record.code, 137);
    }
    shim.gone();
}

#[test]
fn a_discarded_container_leaves_nothing() {
    if !able() {
        return;
    }
    let mut shim = Rig::new(&["true"]).spawn();
    let mut waiting = shim.connect();
    write_frame(&mut waiting, &Request::Wait).unwrap();
    assert_eq!(state(&shim), State::Created);
    assert_eq!(shim.ask(&Request::Discard).0, Reply::Done);
    assert!(matches!(read_frame(&mut waiting), Ok(Reply::Refused { .. })));
    shim.gone();
    assert!(!shim.path("exit.json").exists());
}

#[test]
fn a_failed_start_is_told_and_recorded() {
    if !able() {
        return;
    }
    let mut shim = Rig::new(&["nope"]).spawn();
    let mut waiting = shim.connect();
    write_frame(&mut waiting, &Request::Wait).unwrap();
    let attached = shim.attach(false);
    let failure = shim.start().unwrap_err();
    let Reply::Exited(record) = read_frame(&mut waiting).unwrap() else { panic!("no end") };
    assert_eq!((record.code, record.failure), (127, Some(failure)));
    assert_eq!(demultiplex(attached), (vec![], vec![]));
    shim.gone();
}

#[test]
fn a_killed_shim_takes_the_container_with_it() {
    if !able() {
        return;
    }
    for user in ["root", "web"] {
        let mut shim = Rig::new(&["sleep", "1000"]).user(user).spawn();
        let pid = shim.start().unwrap();
        shim.process.kill().unwrap();
        shim.process.wait().unwrap();
        wait_for_end(pid);
        let refused = UnixStream::connect(shim.path("bundle").join(SOCKET_FILE));
        assert!(refused.is_err() && !shim.path("exit.json").exists(), "{user}");
    }
}

/// A process that changes its user itself (`gosu` and its like) loses its parent-death signal: the kernel's rule. Then the engine's clearing
/// away, which is this call, must get it.
#[test]
fn what_outlives_a_killed_shim_goes_with_its_cgroup() {
    if !able() {
        return;
    }
    let mut shim = shell("exec su web -c 'echo ready; exec sleep 1000'").spawn();
    let Some(cgroup) = shim.cgroup() else { return };
    let mut stream = shim.attach(false);
    let pid = shim.start().unwrap();
    read_until(&mut stream, "ready\n");
    shim.process.kill().unwrap();
    shim.process.wait().unwrap();
    cgroup.remove().unwrap();
    wait_for_end(pid);
    assert!(!cgroup.directory().exists());
}

#[test]
fn it_lives_on_without_its_engine() {
    if !able() {
        return;
    }
    // Every connection drops; a new engine finds the container by its socket.
    let shim = shell("trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.1; done").spawn();
    let mut stream = shim.attach(false);
    let pid = shim.start().unwrap();
    read_until(&mut stream, "ready\n");
    drop(stream);
    assert!(matches!(state(&shim), State::Running { pid: told, .. } if told == pid));
    let stream = shim.attach(false);
    let term = Signal::TERM.as_raw();
    assert_eq!(shim.ask(&Request::Signal { signal: term }).0, Reply::Done);
    assert_eq!(text(demultiplex(stream).0), "bye\n");
    assert_eq!(finish(shim), 5);
}

#[test]
fn the_log_is_dockers_to_the_byte() {
    if !able() {
        return;
    }
    let mut shim = shell(r"printf 'a<\377\tb\nno end'").spawn();
    shim.start().unwrap();
    assert_eq!(shim.wait().code, 0);
    shim.gone();
    let file = fs::read_to_string(shim.path("log")).unwrap();
    let (texts, times): (Vec<_>, Vec<_>) =
        file.lines().map(|line| line.split_once(",\"time\":").unwrap()).unzip();
    let expected =
        [r#"{"log":"a\u003c\ufffd\u0009b\n","stream":"stdout""#, r#"{"log":"no end","stream":"stdout""#];
    assert_eq!(texts, expected);
    assert!(times.iter().all(|time| time.starts_with("\"20") && time.ends_with("Z\"}")), "{times:?}");
}

#[test]
fn nothing_is_left_mounted_or_running() {
    if !able() {
        return;
    }
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let script = "sleep 1000 & mkdir /sys/fs/cgroup/x; echo started";
    let mut shim = shell(script)
        .with(|spec| {
            for mount in spec["mounts"].as_array_mut().unwrap() {
                if mount["type"] == "cgroup" {
                    mount["options"] = json!(["rw"]);
                }
            }
        })
        .spawn();
    let stream = shim.attach(false);
    let pid = shim.start().unwrap();
    assert_eq!(text(demultiplex(stream).0), "started\n");
    assert_eq!(shim.wait().code, 0);
    shim.gone();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    if let Some(cgroup) = shim.cgroup() {
        assert!(!cgroup.directory().exists());
    }
    let left: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| !before.contains(*line) && line.contains(shim.path("").to_str().unwrap()))
        .map(str::to_owned)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn processes_in_the_hosts_pid_namespace_end_with_the_first() {
    if !able() {
        return;
    }
    let rig = shell("sleep 1000 & echo $!").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let shim = rig.spawn();
    let stream = shim.attach(false);
    shim.start().unwrap();
    let other: u32 = text(demultiplex(stream).0).trim().parse().unwrap();
    if shim.cgroup().is_some() {
        wait_for_end(other);
    }
    assert_eq!(finish(shim), 0);
}
