//! Processes that are added to a running container: `docker exec` and `/exec`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::api::Answer;
use crate::cases;
use crate::subject::{Case, Subject};

cases![
    what_a_command_does_is_told,
    what_cannot_be_run_is_told,
    standard_input_reaches_it_and_its_end_too,
    a_megabyte_goes_in_and_out,
    it_is_in_the_container,
    it_has_the_container_s_rights_and_no_others,
    a_privileged_one_has_all_rights,
    users_are_looked_up_in_the_container,
    a_terminal_has_its_size,
    a_detached_one_runs_alone,
    inspect_tells_of_it,
    events_tell_of_it,
    it_runs_once,
    where_nothing_runs_nothing_is_added,
    it_ends_with_its_container,
    many_run_at_once,
    the_detach_keys_leave_a_terminal,
    a_process_left_behind_does_not_hold_it_up,
];

/// What dockerd does not do: it loses what is sent with the request.
pub const OURS: &[Case] = &[Case {
    name: "input_and_its_end_may_come_with_the_request",
    run: input_and_its_end_may_come_with_the_request,
}];

/// When an end that does not come is a failure.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A container that runs until it is removed.
fn container(on: &dyn Subject, name: &str, options: &[&str]) -> Result<()> {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend_from_slice(options);
    words.extend_from_slice(&["busybox", "sleep", "1000"]);
    on.docker().ok(words)?;
    Ok(())
}

fn remove(on: &dyn Subject, name: &str) -> Result<()> {
    on.docker().ok(["rm", "-f", name])?;
    Ok(())
}

fn create(on: &dyn Subject, container: &str, body: &Value) -> Result<String> {
    let answer = on.api().post(&format!("/containers/{container}/exec"), body)?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.json()?);
    Ok(answer.json()?["Id"].as_str().context("an id")?.to_owned())
}

fn start(on: &dyn Subject, id: &str, body: &Value) -> Result<Answer> {
    on.api().post(&format!("/exec/{id}/start"), body)
}

fn inspect(on: &dyn Subject, id: &str) -> Result<Value> {
    on.api().get(&format!("/exec/{id}/json"))?.json()
}

/// Returns when it has ended, with all about it.
fn ended(on: &dyn Subject, id: &str) -> Result<Value> {
    let give_up = Instant::now() + GIVE_UP;
    loop {
        let told = inspect(on, id)?;
        if told["Running"] == false {
            return Ok(told);
        }
        ensure!(Instant::now() < give_up, "{told}");
    }
}

fn what_a_command_does_is_told(on: &dyn Subject) -> Result<()> {
    container(on, "told", &["-e", "OF=container"])?;
    for (words, status, out, err) in [
        (&["true"][..], 0, "", ""),
        (&["sh", "-c", "echo out; echo err >&2; exit 7"], 7, "out\n", "err\n"),
        (&["sh", "-c", "kill -9 $$"], 137, "", ""),
        (&["sh", "-c", "echo $OF; pwd"], 0, "container\n/\n", ""),
        (&["sh", "-c", "echo -n no line end"], 0, "no line end", ""),
    ] {
        let answer = on.docker().run(["exec", "told"].iter().chain(words))?;
        ensure!(
            (answer.status, &answer.out[..], &answer.err[..]) == (status, out, err),
            "{words:?}: {answer:?}"
        );
    }
    let asked =
        ["exec", "-e", "OF=exec", "-e", "NEW=1", "-w", "/tmp", "told", "sh", "-c", "echo $OF $NEW; pwd"];
    ensure!(on.docker().ok(asked)? == "exec 1\n/tmp");
    remove(on, "told")
}

fn what_cannot_be_run_is_told(on: &dyn Subject) -> Result<()> {
    container(on, "cannot", &[])?;
    for (words, status, said) in [
        (&["cannot", "no-such"][..], 127, r#"exec: "no-such": executable file not found in $PATH"#),
        (&["cannot", "/no/such"], 127, r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        (&["cannot", "/etc/passwd"], 126, r#"exec: "/etc/passwd": permission denied"#),
        (&["cannot", "/etc"], 126, r#"exec: "/etc": "#),
        (
            &["-w", "/no/such", "cannot", "true"],
            127,
            r#"chdir to cwd ("/no/such") set in config.json failed"#,
        ),
        (
            &["-u", "nobody-else", "cannot", "true"],
            1,
            "unable to find user nobody-else: no matching entries in passwd file",
        ),
    ] {
        let answer = on.docker().run(["exec"].iter().chain(words))?;
        let text = answer.out.clone() + &answer.err;
        ensure!(answer.status == status && text.contains(said), "{words:?}: {answer:?}");
    }
    remove(on, "cannot")
}

fn standard_input_reaches_it_and_its_end_too(on: &dyn Subject) -> Result<()> {
    container(on, "fed", &[])?;
    let docker = on.docker();
    ensure!(docker.feed(["exec", "-i", "fed", "cat"], b"hi\n")?.ok()? == "hi");
    ensure!(docker.feed(["exec", "-i", "fed", "wc", "-c"], b"12345")?.ok()?.trim() == "5");
    ensure!(
        docker.feed(["exec", "fed", "wc", "-c"], b"12345")?.ok()?.trim() == "0",
        "without -i there is none"
    );
    remove(on, "fed")
}

fn a_megabyte_goes_in_and_out(on: &dyn Subject) -> Result<()> {
    container(on, "much", &[])?;
    let input: String = (0..120_000).map(|n| format!("{n:08}\n")).collect();
    let answer = on.docker().feed(["exec", "-i", "much", "cat"], input.as_bytes())?;
    ensure!(answer.status == 0 && answer.out == input, "{} bytes came back", answer.out.len());
    remove(on, "much")
}

fn it_is_in_the_container(on: &dyn Subject) -> Result<()> {
    container(on, "inside", &[])?;
    let script = "for ns in mnt pid net ipc uts cgroup user; do [ $(readlink /proc/self/ns/$ns) = $(readlink /proc/1/ns/$ns) ] || echo $ns; done
        [ \"$(cat /proc/self/cgroup)\" = \"$(cat /proc/1/cgroup)\" ] || echo its cgroup
        ls /proc/self/fd | wc -l";
    let told = on.docker().ok(["exec", "inside", "sh", "-c", script])?;
    ensure!(told.trim() == "4", "its streams and the folder that is read, and nothing else: {told}");
    remove(on, "inside")
}

/// What the kernel says of a process' rights.
const RIGHTS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' ";

fn it_has_the_container_s_rights_and_no_others(on: &dyn Subject) -> Result<()> {
    for (name, options) in [
        ("rights1", &[][..]),
        ("rights2", &["--cap-drop", "ALL", "--cap-add", "KILL", "--security-opt", "no-new-privileges"]),
        ("rights3", &["--security-opt", "seccomp=unconfined", "--ulimit", "nofile=123:456"]),
        ("rights4", &["--user", "1000:1000", "--group-add", "7"]),
    ] {
        container(on, name, options)?;
        let of = |process: &str| {
            on.docker().ok(["exec", name, "sh", "-c", &format!("{RIGHTS}/proc/{process}/status; ulimit -Hn")])
        };
        let (first, added) = (of("1")?, of("self")?);
        ensure!(first == added, "{name}:\n{first}\n-- and --\n{added}");
        remove(on, name)?;
    }
    Ok(())
}

fn a_privileged_one_has_all_rights(on: &dyn Subject) -> Result<()> {
    container(on, "rightful", &[])?;
    let bits = |options: &[&str]| -> Result<u32> {
        let words = [&["exec"], options, &["rightful", "sh", "-c", "grep CapEff /proc/self/status"]].concat();
        let line = on.docker().ok(words)?;
        let number = line.split_whitespace().last().context("a number")?;
        Ok(u64::from_str_radix(number, 16)?.count_ones())
    };
    let (usual, all) = (bits(&[])?, bits(&["--privileged"])?);
    ensure!(usual == 14 && all > 30, "{usual} and {all}");
    remove(on, "rightful")
}

fn users_are_looked_up_in_the_container(on: &dyn Subject) -> Result<()> {
    container(on, "users", &["--user", "nobody"])?;
    for (options, told) in [
        (&[][..], "65534 65534"),
        (&["-u", "root"], "0 0"),
        (&["-u", "0:5"], "0 5"),
        (&["-u", "1234"], "1234 0"),
        (&["-u", "nobody:root"], "65534 0"),
    ] {
        let words = [&["exec"], options, &["users", "sh", "-c", "echo $(id -u) $(id -g)"]].concat();
        let found = on.docker().ok(words)?;
        ensure!(found == told, "{options:?}: {found}");
    }
    remove(on, "users")
}

fn a_terminal_has_its_size(on: &dyn Subject) -> Result<()> {
    container(on, "sized", &[])?;
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM";
    let body =
        json!({"Cmd": ["sh", "-c", script], "Tty": true, "AttachStdout": true, "ConsoleSize": [11, 22]});
    let id = create(on, "sized", &body)?;
    let out = start(on, &id, &json!({"Tty": true}))?.body;
    ensure!(
        String::from_utf8_lossy(&out) == "/dev/pts/0\r\n11 22\r\nxterm\r\n",
        "{}",
        String::from_utf8_lossy(&out)
    );
    let id = create(on, "sized", &body)?;
    let out = start(on, &id, &json!({"Tty": true, "ConsoleSize": [33, 44]}))?.body;
    ensure!(String::from_utf8_lossy(&out).contains("33 44"), "{}", String::from_utf8_lossy(&out));
    let waits = json!({"Cmd": ["sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"], "Tty": true, "AttachStdout": true});
    let id = create(on, "sized", &waits)?;
    let (_, mut stream) = on.api().open(&format!("/exec/{id}/start"), &[], &json!({"Tty": true}))?;
    let mut ready = [0; 7];
    stream.read_exact(&mut ready)?;
    ensure!(on.api().post(&format!("/exec/{id}/resize?h=55&w=66"), &Value::Null)?.status == 200);
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    ensure!(rest == "55 66\r\n", "{rest:?}");
    remove(on, "sized")
}

fn a_detached_one_runs_alone(on: &dyn Subject) -> Result<()> {
    container(on, "alone", &[])?;
    let body = json!({"Cmd": ["sh", "-c", "cat; echo out; touch /done; exit 3"], "AttachStdout": true, "AttachStdin": true});
    let id = create(on, "alone", &body)?;
    let answer = start(on, &id, &json!({"Detach": true}))?;
    ensure!(answer.status == 200 && answer.body.is_empty(), "{} {:?}", answer.status, answer.body);
    ensure!(ended(on, &id)?["ExitCode"] == 3);
    on.docker().ok(["exec", "alone", "test", "-e", "/done"])?;
    ensure!(on.docker().ok(["exec", "-d", "alone", "true"])?.is_empty());
    let id = create(on, "alone", &json!({"Cmd": ["no-such"]}))?;
    let answer = start(on, &id, &json!({"Detach": true}))?;
    ensure!(answer.status == 400, "{} {}", answer.status, answer.json()?);
    ensure!(inspect(on, &id)?["ExitCode"] == 127);
    remove(on, "alone")
}

fn inspect_tells_of_it(on: &dyn Subject) -> Result<()> {
    container(on, "asked", &[])?;
    let ids = || -> Result<Value> { Ok(on.api().get("/containers/asked/json")?.json()?["ExecIDs"].clone()) };
    ensure!(ids()?.is_null());
    let id = create(
        on,
        "asked",
        &json!({"Cmd": ["sh", "-c", "read x; exit $x"], "AttachStdin": true, "AttachStdout": true}),
    )?;
    ensure!(ids()? == json!([id]));
    let told = inspect(on, &id)?;
    ensure!(told["Running"] == false && told["ExitCode"].is_null() && told["Pid"] == 0, "{told}");
    let (_, mut stream) = on.api().open(&format!("/exec/{id}/start"), &[], &json!({}))?;
    loop {
        let told = inspect(on, &id)?;
        if told["Pid"] != 0 {
            ensure!(told["Running"] == true && told["ExitCode"].is_null(), "{told}");
            ensure!(told["ProcessConfig"]["entrypoint"] == "sh", "{told}");
            break;
        }
    }
    ensure!(ids()? == json!([id]));
    stream.write_all(b"5\n")?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(ended(on, &id)?["ExitCode"] == 5);
    ensure!(ids()?.is_null());
    remove(on, "asked")
}

fn events_tell_of_it(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["run", "-d", "--name", "tells", "busybox", "sleep", "1000"])?;
    docker.run(["exec", "tells", "sh", "-c", "exit 4"])?;
    docker.ok(["rm", "-f", "tells"])?;
    let now = docker.ok(["run", "--rm", "busybox", "date", "+%s"])?;
    let until = (now.trim().parse::<i64>()? + 1).to_string();
    let (filter, format) = (format!("container={id}"), "{{.Action}} {{.Actor.Attributes.exitCode}}");
    let words = ["events", "--since", "0", "--until", &until, "--filter", &filter, "--format", format];
    let told = docker.ok(words)?;
    let told: Vec<&str> = told.lines().filter(|line| line.starts_with("exec")).collect();
    let expected =
        ["exec_create: sh -c exit 4 <no value>", "exec_start: sh -c exit 4 <no value>", "exec_die 4"];
    ensure!(told == expected, "{told:?}");
    Ok(())
}

fn it_runs_once(on: &dyn Subject) -> Result<()> {
    container(on, "once", &[])?;
    let id = create(on, "once", &json!({"Cmd": ["true"]}))?;
    start(on, &id, &json!({"Detach": true}))?;
    ended(on, &id)?;
    let again = start(on, &id, &json!({"Detach": true}))?;
    let message = again.json()?["message"].to_string();
    ensure!(again.status == 409 && message.contains("has already run"), "{} {message}", again.status);
    let again = start(on, &id, &json!({}))?;
    ensure!(again.status == 200, "{}", again.status);
    ensure!(String::from_utf8_lossy(&again.body).contains(&format!("exec command {id} has already run\r\n")));
    remove(on, "once")
}

fn where_nothing_runs_nothing_is_added(on: &dyn Subject) -> Result<()> {
    container(on, "ran", &[])?;
    let id = create(on, "ran", &json!({"Cmd": ["true"]}))?;
    on.docker().ok(["kill", "ran"])?;
    on.docker().ok(["wait", "ran"])?;
    let refused = on.docker().run(["exec", "ran", "true"])?;
    ensure!(refused.status == 1 && refused.err.contains("is not running"), "{refused:?}");
    for gone in [start(on, &id, &json!({}))?, on.api().get(&format!("/exec/{id}/json"))?] {
        let message = format!("No such exec instance: {id}");
        ensure!(gone.status == 404 && gone.json()?["message"] == message, "{} {}", gone.status, gone.json()?);
    }
    remove(on, "ran")?;
    Ok(())
}

fn it_ends_with_its_container(on: &dyn Subject) -> Result<()> {
    container(on, "ending", &[])?;
    let mut exec = on.docker().spawn(["exec", "ending", "sh", "-c", "echo ready; sleep 1000"])?;
    let mut out = exec.stdout.take().context("spawned with a pipe")?;
    let mut ready = [0; 6];
    out.read_exact(&mut ready)?;
    on.docker().ok(["kill", "ending"])?;
    let status = exec.wait()?;
    ensure!(status.code() == Some(137), "{status}");
    remove(on, "ending")
}

fn many_run_at_once(on: &dyn Subject) -> Result<()> {
    const MANY: usize = 24;
    container(on, "many", &[])?;
    let ids: Vec<String> = (0..MANY)
        .map(|n| create(on, "many", &json!({"Cmd": ["sh", "-c", format!("cat; echo {n}")], "AttachStdin": true, "AttachStdout": true})))
        .collect::<Result<_>>()?;
    let mut streams = Vec::new();
    for id in &ids {
        streams.push(on.api().open(&format!("/exec/{id}/start"), &[], &json!({}))?.1);
    }
    for (n, mut stream) in streams.into_iter().enumerate() {
        stream.write_all(b"in ")?;
        stream.shutdown(Shutdown::Write)?;
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        ensure!(plain(&out) == format!("in {n}\n").as_bytes(), "{n}: {:?}", String::from_utf8_lossy(&out));
    }
    for id in &ids {
        ensure!(ended(on, id)?["ExitCode"] == 0);
    }
    remove(on, "many")
}

/// The bytes of a multiplexed stream without its headers.
fn plain(mut stream: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        bytes.extend_from_slice(&rest[..length.min(rest.len())]);
        stream = &rest[length.min(rest.len())..];
    }
    bytes
}

fn input_and_its_end_may_come_with_the_request(on: &dyn Subject) -> Result<()> {
    container(on, "early", &[])?;
    let id = create(on, "early", &json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true}))?;
    let mut stream = on.api().send(&format!("/exec/{id}/start"), &[], &json!({}), b"typed ahead")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("a head")? + 4;
    ensure!(plain(&answer[head..]) == b"typed ahead", "{}", String::from_utf8_lossy(&answer));
    remove(on, "early")
}

fn the_detach_keys_leave_a_terminal(on: &dyn Subject) -> Result<()> {
    container(on, "left", &[])?;
    for (keys, typed) in [("", &b"\x10\x11"[..]), ("ctrl-a,x", b"\x01x")] {
        let body = json!({"Cmd": ["cat"], "Tty": true, "AttachStdin": true, "AttachStdout": true, "DetachKeys": keys});
        let id = create(on, "left", &body)?;
        let upgrade = [("Upgrade", "tcp"), ("Connection", "Upgrade")];
        let (head, mut stream) =
            on.api().open(&format!("/exec/{id}/start"), &upgrade, &json!({"Tty": true}))?;
        ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream.write_all(b"a")?;
        let mut echo = [0];
        stream.read_exact(&mut echo)?;
        stream.write_all(typed)?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        // dockerd says what ended the stream.
        ensure!(echo == *b"a" && (rest.is_empty() || rest.contains("read escape sequence")), "{rest:?}");
        on.docker().ok(["exec", "left", "pidof", "cat"]).context("it goes on")?;
    }
    let bad = on.api().post("/containers/left/exec", &json!({"Cmd": ["cat"], "DetachKeys": "foo"}))?;
    ensure!(bad.json()?["message"] == "Invalid escape keys (foo) provided", "{}", bad.json()?);
    remove(on, "left")
}

fn a_process_left_behind_does_not_hold_it_up(on: &dyn Subject) -> Result<()> {
    container(on, "behind", &[])?;
    let answer = on.docker().run(["exec", "behind", "sh", "-c", "sleep 1000 & echo started"])?;
    ensure!((answer.status, answer.out.as_str()) == (0, "started\n"), "{answer:?}");
    remove(on, "behind")
}
