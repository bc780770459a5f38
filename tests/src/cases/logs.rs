//! Logs: drivers and their options, rotation, and what is told of them.

use anyhow::{Result, ensure};

use super::containers::wait_for_log;
use crate::cases;
use crate::subject::{Case, Subject};

cases![
    each_driver_keeps_what_was_written,
    rotated_files_are_told_in_order,
    tails_and_times_reach_into_rotated_files,
    a_log_that_is_not_waited_for_is_kept_as_well,
    any_bytes_and_lines_of_any_length_are_kept,
    details_tell_labels_and_variables,
    a_tag_is_a_template_of_go_s,
    a_bad_tag_fails_the_start_in_go_s_words,
    options_are_checked,
    values_are_checked_at_the_start,
    a_driver_that_keeps_nothing_cannot_be_read,
    a_log_has_its_times,
];

/// dockerd's followers lose lines when files are rotated faster than they read, and its `local` driver takes no labels before version 29.
pub const OURS: &[Case] = &[
    Case { name: "a_follower_goes_on_through_rotations", run: a_follower_goes_on_through_rotations },
    Case { name: "local_entries_have_details_too", run: local_entries_have_details_too },
];

/// Runs a script to its end with these options.
fn run(on: &dyn Subject, name: &str, options: &[&str], script: &str) -> Result<()> {
    let args = [&["run", "--name", name], options, &["busybox", "sh", "-c", script]].concat();
    on.docker().ok(args)?;
    Ok(())
}

const COUNT: &str = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done";

fn counted(from: usize) -> String {
    (from..500).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n")
}

fn each_driver_keeps_what_was_written(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for driver in ["json-file", "local"] {
        let name = format!("driver-{driver}");
        run(on, &name, &["--log-driver", driver], "echo out; echo err >&2; printf 'no end'")?;
        let answer = docker.run(["logs", &name])?;
        ensure!(
            (answer.out.as_str(), answer.err.as_str()) == ("out\nno end", "err\n"),
            "{driver}: {answer:?}"
        );
        let told = docker.ok(["inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.LogPath}}", &name])?;
        let path = told.strip_prefix(&format!("{driver} ")).unwrap_or("?");
        ensure!(path.is_empty() == (driver == "local"), "{told}");
        docker.ok(["rm", &name])?;
    }
    Ok(())
}

const ROTATED: [(&str, &[&str]); 4] = [
    ("json-file", &["max-size=4k", "max-file=50"]),
    ("json-file", &["max-size=4k", "max-file=50", "compress=true"]),
    ("local", &["max-size=4k", "max-file=50", "compress=false"]),
    ("local", &["max-size=4k", "max-file=50"]),
];

fn rotated<'a>(driver: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--log-driver", driver];
    args.extend(options.iter().flat_map(|option| ["--log-opt", *option]));
    args
}

fn rotated_files_are_told_in_order(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (driver, options) in ROTATED {
        run(on, "rotated", &rotated(driver, options), COUNT)?;
        let told = docker.ok(["logs", "rotated"])?;
        ensure!(told == counted(0), "{driver} {options:?}: {} lines", told.lines().count());
        docker.ok(["rm", "rotated"])?;
    }
    run(on, "rotated", &["--log-opt", "max-size=4k", "--log-opt", "max-file=2"], COUNT)?;
    let told = docker.ok(["logs", "rotated"])?;
    ensure!(told.lines().count() < 200 && counted(300).ends_with(&told), "only the newest two files: {told}");
    docker.ok(["rm", "rotated"])?;
    run(on, "rotated", &["--log-opt", "max-size=4k"], COUNT)?;
    let told = docker.ok(["logs", "rotated"])?;
    ensure!(told.lines().count() < 100 && counted(300).ends_with(&told), "only one file: {told}");
    docker.ok(["rm", "rotated"])?;
    Ok(())
}

fn a_follower_goes_on_through_rotations(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (driver, options) in ROTATED {
        let script = format!("echo up; read go; {COUNT}");
        let args = [
            &["run", "-d", "-i", "--name", "followed-on"],
            &rotated(driver, options)[..],
            &["busybox", "sh", "-c", &script],
        ];
        docker.ok(args.concat())?;
        wait_for_log(on, "followed-on", "up")?;
        let follower = docker.spawn(["logs", "-f", "followed-on"])?;
        docker.feed(["attach", "--no-stdin=false", "followed-on"], b"go\n")?;
        let told = String::from_utf8(follower.wait_with_output()?.stdout)?;
        ensure!(
            told.trim_end() == format!("up\n{}", counted(0)),
            "{driver} {options:?}: {} lines",
            told.lines().count()
        );
        docker.ok(["rm", "-f", "followed-on"])?;
    }
    Ok(())
}

fn tails_and_times_reach_into_rotated_files(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (driver, options) in ROTATED {
        run(on, "tailed", &rotated(driver, options), COUNT)?;
        for tail in [0, 1, 30, 200, 499, 500, 600] {
            let told = docker.ok(["logs", "-n", &tail.to_string(), "tailed"])?;
            ensure!(
                told == counted(500_usize.saturating_sub(tail)),
                "{driver} {options:?} -n {tail}: {} lines",
                told.lines().count()
            );
        }
        let times = docker.ok(["logs", "-t", "tailed"])?;
        let time_of = |line: usize| {
            times.lines().nth(line).and_then(|l| l.split(' ').next()).unwrap_or_default().to_owned()
        };
        let since = docker.ok(["logs", "--since", &time_of(200), "tailed"])?;
        ensure!(counted(0).ends_with(&since) && since.contains("line 200\n"), "{driver}: since");
        let until = docker.ok(["logs", "--until", &time_of(200), "tailed"])?;
        ensure!(counted(0).starts_with(&until) && until.contains("line 200"), "{driver}: until");
        docker.ok(["rm", "tailed"])?;
    }
    Ok(())
}

/// As long as it keeps up: what becomes of the rest needs a log that stands still.
fn a_log_that_is_not_waited_for_is_kept_as_well(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (driver, options) in ROTATED {
        let options = [rotated(driver, options), vec!["--log-opt", "mode=non-blocking"]].concat();
        run(on, "unblocked", &options, &format!("{COUNT}; printf 'no end' >&2"))?;
        let answer = docker.run(["logs", "unblocked"])?;
        ensure!(
            answer.out.trim_end() == counted(0) && answer.err == "no end",
            "{driver} {options:?}: {} lines, {:?}",
            answer.out.lines().count(),
            answer.err
        );
        docker.ok(["rm", "unblocked"])?;
    }
    Ok(())
}

fn any_bytes_and_lines_of_any_length_are_kept(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script =
        r#"printf 'a\0b\r\n"\\<&>\n'; head -c 100000 /dev/zero | tr '\0' x; echo; printf '\342\202\254\n'"#;
    for driver in ["json-file", "local"] {
        run(on, "any-bytes", &["--log-driver", driver], script)?;
        let told = docker.ok(["logs", "any-bytes"])?;
        let expected = format!("a\0b\r\n\"\\<&>\n{}\n€", "x".repeat(100_000));
        ensure!(told == expected, "{driver}: {} bytes", told.len());
        docker.ok(["rm", "any-bytes"])?;
    }
    Ok(())
}

fn details_tell_labels_and_variables(on: &dyn Subject) -> Result<()> {
    has_details(on, "json-file")?;
    run(on, "undetailed", &[], "echo hi")?;
    ensure!(on.docker().run(["logs", "--details", "undetailed"])?.out == " hi\n");
    on.docker().ok(["rm", "undetailed"])?;
    Ok(())
}

fn local_entries_have_details_too(on: &dyn Subject) -> Result<()> {
    has_details(on, "local")
}

fn has_details(on: &dyn Subject, driver: &str) -> Result<()> {
    let name = format!("details-{driver}");
    let options = [
        "--log-driver",
        driver,
        "--label",
        "tier=front end",
        "--label",
        "other=1",
        "--label",
        "com.x=2",
        "-e",
        "A=b/c",
        "-e",
        "SECRET=s",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "labels-regex=^com",
        "--log-opt",
        "env=A,NONE",
        "--log-opt",
        "tag={{.ImageName}}!",
    ];
    run(on, &name, &options, "echo hi")?;
    let told = on.docker().ok(["logs", "--details", &name])?;
    ensure!(told == "A=b%2Fc,com.x=2,tag=busybox%21,tier=front+end hi", "{told}");
    on.docker().ok(["rm", &name])?;
    Ok(())
}

fn options_are_checked(on: &dyn Subject) -> Result<()> {
    for (options, words) in [
        (&["--log-opt", "nope=1"][..], "unknown log opt 'nope' for json-file log driver"),
        (&["--log-driver", "local", "--log-opt", "nope=1"], "unknown log opt 'nope' for log driver local"),
        (&["--log-opt", "mode=x"], "logger: logging mode not supported: x"),
        (
            &["--log-opt", "max-buffer-size=1m"],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (&["--log-driver", "no-such"], "no-such"),
    ] {
        let answer = on.docker().run([&["create"], options, &["busybox"]].concat())?;
        ensure!(answer.status == 1 && answer.err.contains(words), "{options:?}: {answer:?}");
    }
    let id = on.docker().ok([
        "create",
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=1m",
        "busybox",
    ])?;
    on.docker().ok(["rm", &id])?;
    Ok(())
}

fn values_are_checked_at_the_start(on: &dyn Subject) -> Result<()> {
    for (options, words) in [
        (&["--log-opt", "max-size=x"][..], "failed to initialize logging driver: invalid size: 'x'"),
        (
            &["--log-opt", "max-size=0"],
            "failed to initialize logging driver: max-size must be a positive number",
        ),
        (&["--log-opt", "max-file=0"], "failed to initialize logging driver: max-file cannot be less than 1"),
        (
            &["--log-opt", "compress=true"],
            "failed to initialize logging driver: compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (
            &["--log-driver", "local", "--log-opt", "max-file=1"],
            "failed to initialize logging driver: compression cannot be enabled when max file count is 1",
        ),
    ] {
        let answer = on.docker().run([&["run", "--rm"], options, &["busybox", "true"]].concat())?;
        ensure!(answer.status == 125 && answer.err.contains(words), "{options:?}: {answer:?}");
    }
    Ok(())
}

fn a_driver_that_keeps_nothing_cannot_be_read(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    run(on, "kept-nothing", &["--log-driver", "none"], "echo hi")?;
    let answer = docker.run(["logs", "kept-nothing"])?;
    ensure!(
        answer.status == 1 && answer.err.contains("configured logging driver does not support reading"),
        "{answer:?}"
    );
    docker.ok(["rm", "kept-nothing"])?;
    Ok(())
}

fn a_log_has_its_times(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    run(on, "timed", &[], "echo hi")?;
    let line = docker.ok(["logs", "-t", "timed"])?;
    let (time, text) = line.split_once(' ').unwrap_or_default();
    ensure!(
        text == "hi" && time.len() == "2026-01-01T00:00:00.000000000Z".len() && time.ends_with('Z'),
        "{line}"
    );
    docker.ok(["rm", "timed"])?;
    Ok(())
}

/// A container that could not start yet takes each: a tag is read when it starts.
fn a_tag_is_a_template_of_go_s(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (index, (tag, expected)) in [
        ("{{.Name | upper}}/{{truncate .FullID 0}}x", "TAGGED-0/x"),
        ("{{index .ContainerLabels \"com.x/y\"}}-{{.ContainerLabels.z}}-{{.ContainerLabels.none}}", "1-2-<no value>"),
        ("{{with .ContainerLabels.z}}{{.}}{{else}}no{{end}}{{if eq .ImageName \"busybox\" }}!{{end}}", "2!"),
        ("{{range .ContainerArgs}}[{{.}}]{{else}}none{{end}}{{range .Config}}.{{end}}", "[-c][echo hi]."),
        ("{{slice .Name 0 3}}{{printf \"%5d|%-4s|\" 7 .DaemonName}}{{- /* no */ -}}  {{join (split .Name \"-\") \"_\"}}", "tag    7|docker|tagged_4"),
        ("{{json .ContainerArgs}}{{.ContainerEntrypoint}}{{.ContainerName}}", "[\"-c\",\"echo hi\"]sh/tagged-5"),
        ("{{len .Command}} {{print 1 2}} {{and .Name \"b\"}} {{not true}} {{title \"a b\"}}", "13 1 2 b false A B"),
        ("plain }} text", "plain }} text"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("tagged-{index}");
        let tag = format!("tag={tag}");
        let options = ["--log-opt", &tag, "--label", "com.x/y=1", "--label", "z=2"];
        run(on, &name, &options, "echo hi")?;
        let told = docker.ok(["logs", "--details", &name])?;
        let told = told.strip_prefix("tag=").and_then(|told| told.strip_suffix(" hi")).unwrap_or(&told);
        let plain = unescaped(told);
        ensure!(plain == expected, "{tag}: {plain}, not {expected}");
        docker.ok(["rm", &name])?;
    }
    Ok(())
}

/// What a details' value was before it was made fit for a URL.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn a_bad_tag_fails_the_start_in_go_s_words(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for (tag, message) in [
        (
            "{{.Nope}}",
            "template: log-tag:1:2: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info",
        ),
        (
            "a{{.Name.x}}",
            "template: log-tag:1:8: executing \"log-tag\" at <.Name.x>: can't evaluate field x in type string",
        ),
        ("{{nope .Name}}", "template: log-tag:1: function \"nope\" not defined"),
        ("{{.Name", "template: log-tag:1: unclosed action"),
        ("{{if .Name}}", "template: log-tag:1: unexpected EOF"),
        ("{{end}}", "template: log-tag:1: unexpected {{end}}"),
        ("{{}}", "template: log-tag:1: missing value for command"),
        ("{{with}}{{end}}", "template: log-tag:1: missing value for with"),
        ("{{(.Name}}", "template: log-tag:1: unclosed left paren"),
        ("{{\"a}}", "template: log-tag:1: unterminated quoted string"),
        (
            "{{slice .Name 19}}",
            "template: log-tag:1:2: executing \"log-tag\" at <slice .Name 19>: error calling slice: index out of range: 19",
        ),
        (
            "{{upper}}",
            "template: log-tag:1:2: executing \"log-tag\" at <upper>: wrong number of args for upper: want 1 got 0",
        ),
        (
            "{{range .Name}}{{end}}",
            "template: log-tag:1:8: executing \"log-tag\" at <.Name>: range can't iterate over bad-tag",
        ),
        (
            "{{.ContainerName 1}}",
            "template: log-tag:1:2: executing \"log-tag\" at <.ContainerName>: ContainerName has arguments but cannot be invoked as function",
        ),
    ] {
        docker.ok(["create", "--name", "bad-tag", "--log-opt", &format!("tag={tag}"), "busybox", "true"])?;
        let answer = docker.run(["start", "bad-tag"])?;
        ensure!(
            answer.err.contains(&format!("failed to initialize logging driver: {message}")),
            "{tag}: {}",
            answer.err
        );
        docker.ok(["rm", "bad-tag"])?;
    }
    Ok(())
}
