//! What would keep a shim from answering: output without end, clients without end, a log that is slow to be compressed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use caisson_shim::proto::{ExitRecord, Reply, Request, State};
use caisson_shim::{LogFile, LogTarget, Stdin};
use flate2::read::GzDecoder;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, Shim, able, demultiplex, read_until, send};

/// Waits for what must come.
fn until(what: &str, mut come: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + Duration::from_secs(60);
    while !come() {
        assert!(Instant::now() < give_up_at, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answers(shim: &Shim) -> bool {
    matches!(shim.ask(&Request::State).0, Reply::State(_))
}

#[test]
fn a_process_left_behind_that_writes_without_end_does_not_hold_up_the_end() {
    if !able() {
        return;
    }
    const ENDLESS: &str = "cat /dev/zero & cat /dev/zero &";
    let shim = Rig::new(&["sleep", "1000"]).spawn();
    shim.start().unwrap();
    let (reply, mut stream) = shim.exec("first", &["sh", "-c", ENDLESS]);
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    // It is read as fast as it comes, so that no bound of a client's ends it.
    let reading = std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    assert!(answers(&shim));
    let (reply, _) = shim.ask(&Request::ExecWait { id: "first".into() });
    assert!(matches!(&reply, Reply::Exited(record) if record.code == 0), "{reply:?}");
    reading.join().unwrap().unwrap();
    // A client that reads nothing is owed little.
    let (_, stream) = shim.exec("again", &["sh", "-c", ENDLESS]);
    shim.ask(&Request::ExecWait { id: "again".into() });
    let (owed, _) = demultiplex(stream);
    assert!(owed.len() < 1 << 20, "{} bytes", owed.len());
}

#[test]
fn who_still_serves_a_slow_client_answers_others() {
    if !able() {
        return;
    }
    // More than the socket takes, and less than with what is kept for a client.
    const BYTES: usize = 400_000;
    let shim = Rig::new(&["head", "-c", &BYTES.to_string(), "/dev/zero"]).spawn();
    let slow = shim.attach(false);
    shim.start().unwrap();
    shim.ask(&Request::Wait);
    assert!(matches!(shim.ask(&Request::State).0, Reply::State(State::Exited(_))));
    assert_eq!(demultiplex(slow).0.len(), BYTES);
}

/// Processor time that a process has taken, in hundredths of a second.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn more_clients_than_files_wait_quietly() {
    if !able() {
        return;
    }
    let mut rig = Rig::new(&["true"]);
    rig.before = "ulimit -n 16;".into();
    let shim = rig.spawn();
    assert!(answers(&shim));
    let clients: Vec<_> = (0..40).map(|_| shim.connect()).collect();
    until("no client is too many", || !shim.says().is_empty());
    let before = ticks(shim.process.id());
    std::thread::sleep(Duration::from_secs(1));
    let taken = ticks(shim.process.id()) - before;
    assert!(taken < 20, "{taken} hundredths of a second");
    assert_eq!(shim.says().lines().count(), 1, "{}", shim.says());
    drop(clients);
    assert!(answers(&shim));
}

/// The log's older files by their numbers, and whether each is compressed.
fn older(folder: &Path) -> BTreeMap<u32, bool> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(rest) = name.strip_prefix("log.") else { continue };
        let number = rest.strip_suffix(".gz").unwrap_or(rest).parse().unwrap();
        *found.entry(number).or_default() |= rest.ends_with(".gz");
    }
    found
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_older_file_is_compressed_in_the_end_and_none_is_lost() {
    if !able() {
        return;
    }
    const LINES: u32 = 20_000;
    let mut rig = Rig::new(&["sh", "-c", &format!("seq {LINES}; sleep 1000")]);
    let LogTarget::File(log) = rig.config.log.clone() else { panic!("no file") };
    let folder = rig.path("logs");
    let (path, max_bytes) = (folder.join("log"), Some(100_000));
    rig.config.log =
        LogTarget::File(LogFile { path: path.clone(), max_bytes, max_files: 100, compress: true, ..log });
    let shim = rig.spawn();
    let container = shim.start().unwrap();
    let last = format!("{{\"log\":\"{LINES}\\n\"");
    until("the last line", || fs::read_to_string(&path).is_ok_and(|text| text.contains(&last)));
    until("all compressed", || older(&folder).values().all(|compressed| *compressed));
    let numbers: Vec<u32> = older(&folder).into_keys().collect();
    assert!(numbers.len() > 5, "{numbers:?}");
    let mut text = String::new();
    for number in numbers.iter().rev() {
        text.push_str(&unpacked(&folder.join(format!("log.{number}.gz"))));
    }
    text.push_str(&fs::read_to_string(&path).unwrap());
    let entry = |(line, number): (&str, u32)| line.starts_with(&format!("{{\"log\":\"{number}\\n\""));
    assert!(text.lines().zip(1..).all(entry) && text.lines().count() == LINES as usize);
    // No zombie is left of those who did it.
    let shim_id = shim.process.id();
    let children = format!("/proc/{shim_id}/task/{shim_id}/children");
    until("no children but the container", || {
        fs::read_to_string(&children).unwrap().split_whitespace().eq([container.to_string()])
    });
    assert_eq!(shim.says(), "");
}

/// Returns when the shim has seen the end of a process: there is no event for others than its parent.
fn wait_until_reaped(pid: u32) {
    let give_up_at = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < give_up_at, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The process that writes the log of a shim that does not wait for it.
fn log_writer(shim: &Shim) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", shim.process.id());
    let writes = |child: &&str| {
        fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("--write-log"))
    };
    let mut writer = None;
    // One that has just been made has no words yet.
    until("there is no writer", || {
        let children = fs::read_to_string(&children).unwrap();
        writer =
            children.split_whitespace().find(writes).and_then(|child| Pid::from_raw(child.parse().unwrap()));
        writer.is_some()
    });
    writer.unwrap()
}

/// How much memory is a process' own.
fn own_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn unblocking(script: &str, buffer: u64) -> Rig {
    let mut rig = Rig::new(&["sh", "-c", script]);
    let LogTarget::File(log) = rig.config.log.clone() else { panic!("no file") };
    rig.config.log = LogTarget::File(LogFile { buffer: Some(buffer), ..log });
    rig
}

/// The numbers that `seq` wrote and the log has.
fn logged(shim: &Shim) -> Vec<usize> {
    shim.log().iter().filter_map(|(_, text)| text.trim().parse().ok()).collect()
}

#[test]
fn a_log_that_is_not_waited_for_has_all_when_its_writer_keeps_up() {
    if !able() {
        return;
    }
    let mut shim = unblocking("seq 1000; printf end", 1 << 20).spawn();
    shim.start().unwrap();
    assert_eq!(shim.wait().code, 0);
    assert!(logged(&shim).into_iter().eq(1..=1000));
    assert_eq!(shim.log().last().unwrap().1, "end");
    shim.gone();
    let mut failing = unblocking("", 1 << 20).with(|spec| spec["process"]["args"][0] = "nope".into()).spawn();
    failing.start().unwrap_err();
    failing.gone();
}

#[test]
fn where_a_log_s_writer_is_killed_another_goes_on() {
    if !able() {
        return;
    }
    const LINES: usize = 5000;
    let script = format!("seq 100; read go; seq 101 {LINES}; echo done >&2; read end; echo {}", LINES + 1);
    let mut shim = unblocking(&script, 1 << 20).stdin(Stdin::Open).spawn();
    let (_, mut streams) = shim.ask(&Request::Attach { stdin: true, stdout: false, stderr: true });
    shim.start().unwrap();
    until("the first lines", || logged(&shim).len() == 100);
    // Who is killed sooner has no successor.
    std::thread::sleep(Duration::from_secs(1));
    let writer = log_writer(&shim);
    kill_process(writer, Signal::STOP).unwrap();
    send(&mut streams, "go\n");
    read_until(&mut streams, "done\n");
    assert_eq!(logged(&shim).len(), 100);
    kill_process(writer, Signal::KILL).unwrap();
    until("what waited", || logged(&shim).len() == LINES);
    send(&mut streams, "end\n");
    assert_eq!(shim.wait().code, 0);
    assert!(logged(&shim).into_iter().eq(1..=LINES + 1));
    assert!(shim.process.wait().unwrap().success());
    assert!(shim.says().contains("another goes on"), "{}", shim.says());
}

#[test]
fn a_log_that_stands_still_and_is_not_waited_for_holds_up_nothing() {
    if !able() {
        return;
    }
    const LINES: usize = 200_000;
    const BUFFER: u64 = 200_000;
    let mut shim = unblocking(&format!("seq {LINES}; echo done >&2; exec sleep 1000"), BUFFER).spawn();
    let (_, mut errors) = shim.ask(&Request::Attach { stdin: false, stdout: false, stderr: true });
    let writer = log_writer(&shim);
    kill_process(writer, Signal::STOP).unwrap();
    shim.start().unwrap();
    read_until(&mut errors, "done\n");
    let own = own_kib(shim.process.id());
    assert!(own < 1024, "{own} KiB");
    assert!(logged(&shim).is_empty());
    // Its end waits for the log for a while, and a signal comes too late for nobody.
    let Reply::State(State::Running { pid, .. }) = shim.ask(&Request::State).0 else { panic!("it runs") };
    assert_eq!(shim.ask(&Request::Signal { signal: 9 }).0, Reply::Done);
    wait_until_reaped(pid);
    assert!(matches!(shim.ask(&Request::State).0, Reply::State(State::Running { .. })));
    assert_eq!(shim.ask(&Request::Signal { signal: 9 }).0, Reply::Done);
    kill_process(writer, Signal::CONT).unwrap();
    assert_eq!(shim.wait().code, 137);
    let kept = logged(&shim);
    // What the buffer and the pipe held, at some seventy bytes each: the first, and none between them is missing.
    assert!((2000..10_000).contains(&kept.len()), "{} lines", kept.len());
    assert!(kept.iter().copied().eq(1..=kept.len()));
    shim.gone();
}

#[test]
fn how_it_ended_outlives_a_shim_that_is_killed_at_the_rest() {
    if !able() {
        return;
    }
    let mut shim = unblocking("echo line; exit 3", 1 << 20).spawn();
    let writer = log_writer(&shim);
    kill_process(writer, Signal::STOP).unwrap();
    wait_until_reaped(shim.start().unwrap());
    // Its log is waited for.
    assert!(matches!(shim.ask(&Request::State).0, Reply::State(State::Running { .. })));
    shim.process.kill().unwrap();
    shim.process.wait().unwrap();
    kill_process(writer, Signal::KILL).unwrap();
    let record: ExitRecord = serde_json::from_slice(&fs::read(shim.path("exit.json")).unwrap()).unwrap();
    assert_eq!(record.code, 3);
}
